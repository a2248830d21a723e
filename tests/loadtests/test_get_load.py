"""The load judges every answer, and tells when it was asked for and which backend gave it."""

import asyncio
import sys
import time
from pathlib import Path

import pytest

from loadtests.echo_upstream import echo
from loadtests.get_load import Asked, Load, LoadError, backend_of, fault_of, get_load
from loadtests.keep_alive import Answer
from loadtests.processes import Launch, free_port, running
from loadtests.upstreams import REPOSITORY


def test_only_the_answer_to_this_very_request_tells_a_backend() -> None:
    assert backend_of(Answer(200, "", echo(b"alpha", b"GET", b"/7")), 7) == "alpha"
    wrong = [
        Answer(503, "", echo(b"alpha", b"GET", b"/7")),
        Answer(200, "", echo(b"alpha", b"GET", b"/77")),
        Answer(200, "", echo(b"alpha", b"HEAD", b"/7")),
        Answer(200, "", b""),
    ]
    assert {backend_of(answer, 7) for answer in wrong} == {""}


def test_what_is_wrong_with_an_answer() -> None:
    assert fault_of(Answer(503, "", b"no backend")) == "status 503"
    assert fault_of(Answer(200, "", b"other")) == "a wrong answer: b'other'"


def test_a_backend_that_is_there(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "loadtests.echo_upstream", str(port), "alpha"]
    with running(Launch(command, port, directory=REPOSITORY), tmp_path / "log"):
        began_s = time.monotonic()
        record = asyncio.run(until(port, 20))
        ended_s = time.monotonic()
    assert {(asked.backend, asked.fault) for asked in record} == {("alpha", "")}
    assert all(began_s <= asked.began_s <= asked.ended_s <= ended_s for asked in record)


def test_a_backend_that_is_not_there() -> None:
    record = asyncio.run(until(free_port(), 20))
    assert {(asked.backend, asked.fault.partition(":")[0]) for asked in record} == {("", "ConnectionRefusedError")}


async def until(port: int, count: int) -> list[Asked]:
    """What two clients note until so many requests have ended."""
    load = Load(port, 2, 100.0)
    task = asyncio.create_task(load.run())
    async with asyncio.timeout(30):
        while len(load.record) < count:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
    load.stop()
    await task
    return load.record


def test_a_load_in_a_process_of_its_own() -> None:
    with get_load(free_port(), 2, 100) as load:
        record = load.stop()
    assert {asked.fault.partition(":")[0] for asked in record} <= {"ConnectionRefusedError"}


def test_a_load_that_died_is_an_error() -> None:
    with get_load(free_port(), 1, 1) as load:
        load.process.kill()
        with pytest.raises(LoadError, match="did not end"):
            load.stop()


def test_a_load_that_cannot_begin_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LoadError, match="did not begin"), get_load(1, 1, 0):
        pass
    assert "ZeroDivisionError" in capfd.readouterr().err
