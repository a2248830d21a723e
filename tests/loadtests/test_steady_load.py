"""The load judges every answer, and tells when which worker gave it."""

import asyncio
import sys
from collections import Counter
from pathlib import Path

import pytest

from loadtests.echo_upstream import echo
from loadtests.edit_visibility import MOVING
from loadtests.keep_alive import Answer, WrongAnswerError
from loadtests.processes import Launch, free_port, running
from loadtests.steady_load import (
    BODY,
    FRESH,
    KEEP_ALIVE,
    SLOT_S,
    STEADY,
    Failure,
    Load,
    Record,
    Slot,
    expect,
    steady_load,
)
from loadtests.upstreams import REPOSITORY


def test_only_the_answer_to_this_very_request_is_right() -> None:
    expect(Answer(200, "", echo(b"alpha", b"POST", b"/7", BODY)), MOVING, b"POST", 7, BODY)
    expect(Answer(200, "", echo(b"beta", b"GET", b"/v12/7")), MOVING, b"GET", 7, b"")
    wrong = [
        (Answer(503, "", echo(b"alpha", b"GET", b"/7")), STEADY),
        (Answer(200, "", echo(b"alpha", b"GET", b"/8")), STEADY),
        (Answer(200, "", echo(b"alpha", b"POST", b"/7")), STEADY),
        (Answer(200, "", echo(b"alpha", b"GET", b"/7", b"more")), STEADY),
        (Answer(200, "", echo(b"alpha", b"GET", b"/v1/7")), STEADY),
        (Answer(200, "", b""), MOVING),
    ]
    for answer, route in wrong:
        with pytest.raises(WrongAnswerError):
            expect(answer, route, b"GET", 7, b"")


def test_a_record_between_two_times() -> None:
    failure = Failure(1.0, 2.5, "a", "reset")
    slots = {10: Slot({"a": 1}, 0.5), 20: Slot({"a": 2, "b": 3}, 0.1), 30: Slot({"b": 4}, 0.2)}
    record = Record(1, [failure], slots)
    assert record.answered == 10
    assert record.answered_by(20 * SLOT_S) == Counter(a=2, b=7)
    assert record.answered_by(0, 15 * SLOT_S) == Counter(a=1)
    assert record.longest_s(15 * SLOT_S, 40 * SLOT_S) == 0.2
    assert record.longest_s(40 * SLOT_S, 50 * SLOT_S) == 0
    assert record.failures_between(2, 3) == [failure]
    assert record.failures_between(0, 2) == []


def failures_against(port: int) -> list[Failure]:
    """What the load notes until each client has failed once or more."""

    async def play() -> list[Failure]:
        load = Load(port, None)
        task = asyncio.create_task(load.run())
        async with asyncio.timeout(30):
            while load.record.failed < KEEP_ALIVE + FRESH:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        load.stop()
        await task
        assert load.record.answered == 0
        return load.record.failures

    return asyncio.run(play())


def test_an_upstream_that_is_not_there() -> None:
    failures = failures_against(free_port())
    assert {failure.what.partition(":")[0] for failure in failures} == {"ConnectionRefusedError"}


def test_answers_to_another_path(tmp_path: Path) -> None:
    """Without a relay between, the routes' prefixes reach the upstream."""
    port = free_port()
    command = [sys.executable, "-m", "loadtests.echo_upstream", str(port), "alpha"]
    with running(Launch(command, port, directory=REPOSITORY), tmp_path / "log"):
        failures = failures_against(port)
    assert {failure.what.partition(":")[0] for failure in failures} == {"WrongAnswerError"}


def test_a_load_in_a_process_of_its_own() -> None:
    with steady_load(free_port()) as load:
        record = load.stop()
    assert record.answered == 0
