"""What a record says of the damage, on plain numbers; and backends that really fail."""

import asyncio
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest

from loadtests.failures import Fault, backends, damage, play, recovery_s, return_s
from loadtests.get_load import Asked
from loadtests.keep_alive import Answer, KeepAlive

FAULT = Fault("is killed", "beta", 10.0, 12.0, 14.0)
"""From 10 to 12, and nothing else until 14."""
FINE = [Asked(9.0, 0.01, "beta"), Asked(10.5, 0.02, "alpha"), Asked(11.0, 0.01, "alpha"), Asked(13.0, 0.01, "alpha")]


def test_a_fault_that_nobody_noticed() -> None:
    found = damage(FINE, [FAULT])
    assert (found.failed, found.p99_s, found.recovery_s, found.kinds) == (0, 0.02, 0, {})


@pytest.mark.parametrize(
    ("asked", "recovered_s"),
    [
        (Asked(9.9, 0.2, "", "status 502"), 0.1),  # under way as it began
        (Asked(11.0, 0.5, "", "status 502"), 1.5),
        (Asked(11.0, 1.5, "alpha"), 2.5),  # late, and over when the fault was
        (Asked(13.0, 0.5, "", "status 502"), 3.5),
        (Asked(14.5, 0.5, "", "status 502"), 0),  # of another fault
        (Asked(9.0, 0.5, "", "status 502"), 0),
    ],
)
def test_recovery_is_up_to_the_last_request_that_suffered(asked: Asked, recovered_s: float) -> None:
    assert recovery_s([*FINE, asked], FAULT) == pytest.approx(recovered_s)


def test_the_return_is_up_to_the_backends_next_answer() -> None:
    assert return_s(FINE, FAULT) == 2
    again = [Asked(11.9, 0.2, "beta"), Asked(12.5, 0.25, "beta"), Asked(13.5, 0.1, "beta")]
    assert return_s([*FINE, *again], FAULT) == 0.75


def test_failures_are_counted_by_kind() -> None:
    found = damage(
        [*FINE, Asked(1, 1, "", "reset"), Asked(10, 1, "", "reset"), Asked(20, 1, "", "status 502")], [FAULT]
    )
    assert (found.failed, found.kinds) == (3, {"reset": 2, "status 502": 1})


def test_a_fault_in_which_nothing_was_answered_has_no_p99() -> None:
    with pytest.raises(ValueError, match="while a backend is killed"):
        damage(FINE[:1], [FAULT])


async def ask(port: int) -> Answer:
    wire = await KeepAlive.open(port)
    try:
        async with asyncio.timeout(0.1):
            return await wire.ask(b"GET", b"/x")
    finally:
        await wire.close()


def test_backends_fail_as_the_script_says_and_are_well_afterwards(tmp_path: Path) -> None:
    seen: list[str] = []

    def look(_seconds: float) -> None:
        """In the place of each wait: what all backends say."""
        for backend in group:
            try:
                said = str(asyncio.run(ask(backend.port)).status)
            except (OSError, EOFError) as error:
                said = type(error).__name__
            seen.append(said)

    with backends(tmp_path) as group:
        began_s = time.monotonic()
        faults = play(group, 1.0, look)
        well, down = ["200"] * 3, ["ConnectionRefusedError", "200", "200"]
        expected = [well, down, well, ["200", "TimeoutError", "200"], well, ["200", "200", "503"], well]
        expected += [down, well] * 3 + [well]
        assert [seen[at : at + 3] for at in range(0, len(seen), 3)] == expected
    assert [fault.name for fault in faults] == ["is killed", "hangs", "answers 503", *["flaps"] * 3]
    assert [fault.backend for fault in faults] == ["backend-0", "backend-1", "backend-2", *["backend-0"] * 3]
    times = [began_s, *(at for fault in faults for at in fault[2:])]
    assert all(earlier <= later for earlier, later in pairwise(times))


def test_a_backend_that_hangs_is_ended_too(tmp_path: Path) -> None:
    with backends(tmp_path) as group:
        group[0].tell(signal.SIGSTOP)
        group[1].kill()
    for backend in group:
        with pytest.raises(ConnectionRefusedError):
            asyncio.run(ask(backend.port))
