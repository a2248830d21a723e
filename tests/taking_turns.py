"""Processes that share the suite (pytest-xdist) leave the machine to a test that is marked `alone`.

What such a test asserts is about time or load, which other tests would add to. Two locks do it: `running` is held by
every test while it runs, by one that is alone exclusively; `next` by who waits for that, so that tests of the other
processes do not go on overtaking it.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

MARK = "alone"


@contextlib.contextmanager
def turn_of(item: pytest.Item) -> Iterator[None]:
    """The time in which a test may run. Of one process there is nobody to take turns with."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    # Each worker has a folder of its own in that of the run.
    folder = Path(item.config.getoption("basetemp")).parent
    with turn(folder, fcntl.LOCK_SH if item.get_closest_marker(MARK) is None else fcntl.LOCK_EX):
        yield


@contextlib.contextmanager
def turn(folder: Path, lock: int) -> Iterator[None]:
    """Holds `running` with a lock of flock(2), once those who came before have had their turn."""
    with (folder / "next.lock").open("w") as following, (folder / "running.lock").open("w") as running:
        fcntl.flock(following, fcntl.LOCK_EX)
        fcntl.flock(running, lock)
        fcntl.flock(following, fcntl.LOCK_UN)
        try:
            yield
        finally:
            # Not left to the close: a child that was forked may have the file open still.
            fcntl.flock(running, fcntl.LOCK_UN)
