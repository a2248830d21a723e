"""Tests run together, but for one that is alone: nothing runs beside it, and nothing goes on overtaking it."""

import contextlib
import fcntl
import threading
from pathlib import Path

from tests.end_to_end.waiting import eventually, never
from tests.taking_turns import turn

LOCKS = {"together": fcntl.LOCK_SH, "alone": fcntl.LOCK_EX}


class Others:
    """Tests of other processes: a lock is its file's that was opened, so threads do as well."""

    def __init__(self, folder: Path) -> None:
        self.running: list[str] = []
        self._folder = folder
        self._ends: dict[str, threading.Event] = {}
        self._threads: list[threading.Thread] = []

    def begin(self, name: str) -> None:
        self._ends[name] = threading.Event()
        self._threads.append(threading.Thread(target=self._run, args=(name,)))
        self._threads[-1].start()

    def end(self, name: str) -> None:
        self._ends[name].set()

    def end_all(self) -> None:
        for end in self._ends.values():
            end.set()
        for thread in self._threads:
            thread.join()

    def _run(self, name: str) -> None:
        with turn(self._folder, LOCKS[name.split()[0]]):
            self.running.append(name)
            self._ends[name].wait()
            self.running.remove(name)


def test_one_that_is_alone_waits_for_the_others_and_those_after_it_for_itself(tmp_path: Path) -> None:
    tests = Others(tmp_path)
    with contextlib.ExitStack() as stack:
        stack.callback(tests.end_all)
        tests.begin("together 1")
        tests.begin("together 2")
        eventually(lambda: len(tests.running) == 2)
        tests.begin("alone")
        eventually(lambda: _is_taken(tmp_path / "next.lock"))
        tests.begin("together 3")
        never(lambda: len(tests.running) != 2, 0.1)
        tests.end("together 1")
        tests.end("together 2")
        eventually(lambda: tests.running == ["alone"])
        never(lambda: tests.running != ["alone"], 0.1)
        tests.end("alone")
        eventually(lambda: tests.running == ["together 3"])


def _is_taken(file: Path) -> bool:
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(lock, fcntl.LOCK_UN)
        return False
