"""Prints what a relay's workers count. Python imports a module of this name at its start, if its path leads here.

A worker hands its counts to whoever asks inside the process; here a tick and the worker's end do, and what they get is
a line on standard output: `statistics` and the delta as JSON.
"""

import sys
import time
from collections.abc import Callable

import msgspec

from proxy.worker import Worker


def told(method: Callable[[Worker], None]) -> Callable[[Worker], None]:
    """A method that tells, when it has been called, what the worker has counted since the last time."""

    def call_and_tell(worker: Worker) -> None:
        method(worker)
        delta = worker.statistics.delta(time.time(), worker.in_flight)
        if delta.routes:
            sys.stdout.buffer.write(b"statistics %b\n" % msgspec.json.encode(delta))
            sys.stdout.buffer.flush()

    return call_and_tell


Worker._tick = told(Worker._tick)  # type: ignore[assignment, method-assign]
Worker.close = told(Worker.close)  # type: ignore[assignment, method-assign]
