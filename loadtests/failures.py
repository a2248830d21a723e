"""Backends that fail by a script, and what their failures did to the requests meanwhile.

A backend is an `echo_upstream` in a process of its own: it is killed with SIGKILL and started again, stopped with
SIGSTOP and let go on, told to answer 503 and to be well again.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from loadtests.get_load import Asked
from loadtests.processes import Launch, free_port, running
from loadtests.samples import percentile
from loadtests.upstreams import BACKENDS, REPOSITORY

SLOW_S = 0.25
"""An answer that takes longer has waited for a backend that is not well."""
FLAPS = 3


class Fault(NamedTuple):
    """A time in which a backend was not well, of `time.monotonic`. It could answer again at `ended_s` at the latest,
    and nothing else was wrong until `calm_s`.
    """

    name: str
    backend: str
    began_s: float
    ended_s: float
    calm_s: float


class Backend:
    """One of them, which can be made to fail."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.port = free_port()
        self._log = directory / f"{name}.log"
        self._life = contextlib.ExitStack()
        self._pid = 0

    def start(self) -> None:
        """Returns once it listens. Raises `StartError`."""
        command = [sys.executable, "-m", "loadtests.echo_upstream", str(self.port), self.name]
        self._pid = self._life.enter_context(
            running(Launch(command, self.port, directory=REPOSITORY), self._log)
        ).session

    def kill(self) -> None:
        self.tell(signal.SIGKILL)
        self._pid = 0
        self._life.close()

    def tell(self, number: signal.Signals) -> None:
        os.kill(self._pid, number)

    def end(self) -> None:
        """Whatever state it is in."""
        if self._pid:
            self.tell(signal.SIGCONT)
        self._life.close()


@contextlib.contextmanager
def backends(directory: Path) -> Iterator[list[Backend]]:
    """`BACKENDS` that are well. Raises `StartError`."""
    with contextlib.ExitStack() as stack:
        group = [Backend(f"backend-{number}", directory) for number in range(BACKENDS)]
        for backend in group:
            stack.callback(backend.end)
            backend.start()
        yield group


def play(group: Sequence[Backend], fault_s: float, wait: Callable[[float], None] = time.sleep) -> list[Fault]:
    """One failure after the other, each for `fault_s` and followed by as long a calm; it begins with one."""
    first, second, third = group
    script: list[tuple[str, Backend, Callable[[], None], Callable[[], None], float]] = [
        ("is killed", first, first.kill, first.start, fault_s),
        ("hangs", second, lambda: second.tell(signal.SIGSTOP), lambda: second.tell(signal.SIGCONT), fault_s),
        ("answers 503", third, lambda: third.tell(signal.SIGUSR1), lambda: third.tell(signal.SIGUSR2), fault_s),
        *(("flaps", first, first.kill, first.start, fault_s / 4) for _ in range(FLAPS)),
    ]
    faults = []
    wait(fault_s)
    for name, backend, fail, recover, length_s in script:
        began_s = time.monotonic()
        fail()
        wait(length_s)
        recover()
        ended_s = time.monotonic()
        wait(length_s)
        faults.append(Fault(name, backend.name, began_s, ended_s, time.monotonic()))
    wait(fault_s)
    return faults


class Damage(NamedTuple):
    """What faults did, each of the fault where it was most.

    `p99_s` is of the right answers to what was sent during the fault. `recovery_s` is from its beginning to the last
    answer that was wrong or late because of it, `return_s` from its end until its backend answered again, or to the end
    of the calm where it did not.
    """

    failed: int
    p99_s: float
    recovery_s: float
    return_s: float
    kinds: dict[str, int]
    """How often what came instead of a right answer."""


def damage(record: Sequence[Asked], faults: Sequence[Fault]) -> Damage:
    """Raises ValueError where no request that was sent during a fault was answered right."""
    kinds: dict[str, int] = {}
    for asked in record:
        if asked.fault:
            kinds[asked.fault] = kinds.get(asked.fault, 0) + 1
    return Damage(
        failed=sum(kinds.values()),
        p99_s=max(p99_s(record, fault) for fault in faults),
        recovery_s=max(recovery_s(record, fault) for fault in faults),
        return_s=max(return_s(record, fault) for fault in faults),
        kinds=kinds,
    )


def p99_s(record: Sequence[Asked], fault: Fault) -> float:
    took_s = [asked.took_s for asked in record if not asked.fault and fault.began_s <= asked.began_s < fault.ended_s]
    if not took_s:
        raise ValueError(f"no request that was sent while a backend {fault.name} was answered right")
    return percentile(took_s, 99)


def recovery_s(record: Sequence[Asked], fault: Fault) -> float:
    """How long requests suffered from a fault: 0 where none did."""
    bad_s = (
        asked.ended_s
        for asked in record
        if fault.began_s <= asked.ended_s and asked.began_s < fault.calm_s and (asked.fault or asked.took_s > SLOW_S)
    )
    return max(bad_s, default=fault.began_s) - fault.began_s


def return_s(record: Sequence[Asked], fault: Fault) -> float:
    """How long a backend was not used although it was well."""
    used_s = (
        asked.ended_s
        for asked in record
        if asked.backend == fault.backend and fault.ended_s < asked.began_s < fault.calm_s
    )
    return min(used_s, default=fault.calm_s) - fault.ended_s
