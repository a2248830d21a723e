"""Constant load, well below what the relay can do, that judges every answer: for tests of what happens meanwhile.

Requests of KEEP_ALIVE connections follow each other on the connection, and those of FRESH clients come on a new one
each. Half are GETs, half POSTs, and half go to a route that may be led elsewhere at any time. An answer is right if it
is the upstream's to this very request. As any client does, one that finds its connection closed *before* it sends a
request, or that was told so with the last answer, opens another; whatever happens afterwards is a failure. Nothing is
sent twice.

    with steady_load(port) as load: …
    record = load.stop()
"""

import asyncio
import contextlib
import re
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from time import monotonic

import msgspec
import uvloop

from loadtests.edit_visibility import MOVING
from loadtests.keep_alive import Answer, KeepAlive, WrongAnswerError
from loadtests.upstreams import REPOSITORY

STEADY = "/steady"
"""The route that nobody touches."""
KEEP_ALIVE, FRESH = 48, 16
KEEP_ALIVE_INTERVAL_S, FRESH_INTERVAL_S = 1 / 30, 1 / 10
ANSWER_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 2 * ANSWER_TIMEOUT_S
SLOT_S = 0.1
FAILURES_KEPT_MAX = 1000
BODY = bytes(range(256))


class Failure(msgspec.Struct, frozen=True):
    """A request that was not answered right. Times are of `time.monotonic`, which all processes share.

    `worker` is who answered on its connection before; empty where nobody did.
    """

    began_s: float
    ended_s: float
    worker: str
    what: str


class Slot(msgspec.Struct):
    """Right answers that came within one SLOT_S, by worker, and the longest time that one took."""

    answered: dict[str, int] = {}
    longest_s: float = 0.0


class Record(msgspec.Struct):
    """What became of all requests. Slot n is that from n times SLOT_S on, of `time.monotonic`."""

    failed: int = 0
    failures: list[Failure] = []
    """The first FAILURES_KEPT_MAX."""
    slots: dict[int, Slot] = {}

    @property
    def answered(self) -> int:
        return sum(self.answered_by().values())

    def answered_by(self, since_s: float = 0.0, until_s: float = float("inf")) -> Counter[str]:
        """Right answers between two times, to a SLOT_S, by worker."""
        total: Counter[str] = Counter()
        for slot in self._between(since_s, until_s):
            total.update(slot.answered)
        return total

    def longest_s(self, since_s: float, until_s: float) -> float:
        return max((slot.longest_s for slot in self._between(since_s, until_s)), default=0.0)

    def failures_between(self, since_s: float, until_s: float) -> list[Failure]:
        """Those that ended within these times."""
        return [failure for failure in self.failures if since_s <= failure.ended_s < until_s]

    def _between(self, since_s: float, until_s: float) -> Iterator[Slot]:
        return (slot for number, slot in self.slots.items() if since_s <= number * SLOT_S < until_s)


class Load:
    """The clients, and what they have recorded."""

    def __init__(self, port: int, tls: ssl.SSLContext | None) -> None:
        self._port = port
        self._tls = tls
        self._stopping = asyncio.Event()
        self.record = Record()

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        """Asks until `stop`, and returns when every request has had its answer."""
        async with asyncio.TaskGroup() as clients:
            for number in range(KEEP_ALIVE):
                clients.create_task(self._client(number, KEEP_ALIVE_INTERVAL_S, stays=True))
            for number in range(FRESH):
                clients.create_task(self._client(number, FRESH_INTERVAL_S, stays=False))

    async def _client(self, number: int, interval_s: float, *, stays: bool) -> None:
        wire: KeepAlive | None = None
        due_s = monotonic() + interval_s * number / KEEP_ALIVE
        while not self._stopping.is_set():
            # One that is late does not catch up: the load stays what it is.
            due_s = max(due_s + interval_s, monotonic())
            await asyncio.sleep(due_s - monotonic())
            await asyncio.sleep(0)  # the loop looks at its sockets: where it was late, a close may wait there
            if wire is not None and wire.ended:
                await wire.close()
                wire = None
            wire = await self._exchange(number, wire)
            number += 1
            if wire is not None and not stays:
                await wire.close()
                wire = None
        if wire is not None:
            await wire.close()

    async def _exchange(self, number: int, wire: KeepAlive | None) -> KeepAlive | None:
        """One request and its answer; returns the connection for the next one, None after a failure."""
        route = (STEADY, MOVING)[number % 2]
        method, body = ((b"GET", b""), (b"POST", BODY))[number // 2 % 2]
        began_s = monotonic()
        worker = "" if wire is None else wire.worker
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                if wire is None:
                    wire = await KeepAlive.open(self._port, self._tls)
                answer = await wire.ask(method, b"%b/%d" % (route.encode(), number), body)
            expect(answer, route, method, number, body)
        except (OSError, EOFError, WrongAnswerError) as error:
            self._note_failure(Failure(began_s, monotonic(), worker, f"{type(error).__name__}: {error}"))
            if wire is not None:
                await wire.close()
            return None
        self._note_answer(answer.worker, began_s)
        return wire

    def _note_answer(self, worker: str, began_s: float) -> None:
        ended_s = monotonic()
        slot = self.record.slots.setdefault(int(ended_s / SLOT_S), Slot())
        slot.answered[worker] = slot.answered.get(worker, 0) + 1
        slot.longest_s = max(slot.longest_s, ended_s - began_s)

    def _note_failure(self, failure: Failure) -> None:
        self.record.failed += 1
        if len(self.record.failures) < FAILURES_KEPT_MAX:
            self.record.failures.append(failure)


def expect(answer: Answer, route: str, method: bytes, number: int, body: bytes) -> None:
    """Raises WrongAnswerError where this is not the answer of an `echo_upstream` to the request."""
    base = rb"" if route == STEADY else rb"(?:/v\d+)?"
    right = re.fullmatch(rb"\w+ %b %b/%d\n(.*)" % (method, base, number), answer.body, re.DOTALL)
    if answer.status != 200 or right is None or right[1] != body:
        raise WrongAnswerError(f"{answer.status} {answer.body[:200]!r}")


class RunningLoad:
    """A load in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def stop(self) -> Record:
        """Returns what became of all requests, once each has ended."""
        output, _ = self._process.communicate(timeout=STOP_TIMEOUT_S)
        return msgspec.json.decode(output, type=Record)


@contextlib.contextmanager
def steady_load(port: int, authority: str = "") -> Iterator[RunningLoad]:
    """Load on a relay. `authority` is the file of that of the relay's certificate; without one, in clear text."""
    command = [sys.executable, "-m", "loadtests.steady_load", str(port), authority]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield RunningLoad(process)
    finally:
        process.kill()
        process.communicate()


async def main(port: int, authority: str) -> None:
    tls = ssl.create_default_context(cafile=authority) if authority else None
    load = Load(port, tls)
    # The end of its input ends it, also when whoever started it was killed.
    asyncio.get_running_loop().add_reader(sys.stdin, load.stop)
    await load.run()
    sys.stdout.buffer.write(msgspec.json.encode(load.record))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2]))
