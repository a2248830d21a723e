"""Clients of a balanced route that ask all the time, half of them at each worker, and note what each was told.

Most requests are idempotent; every fifth is a POST. Each has a marker, by which backends tell how often it came.
"""

import asyncio
import contextlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from loadtests.keep_alive import KeepAlive, WrongAnswerError
from tests.end_to_end.backends import MARKER
from tests.end_to_end.relay_process import Relay
from tests.end_to_end.waiting import eventually

CLIENTS = 16
WORKERS = 2
PAUSE_S = 0.01
ANSWER_S = 10.0
ANSWERS = 300
DEADLINE_S = 15.0
METHODS = (b"GET", b"PUT", b"GET", b"PUT", b"POST")
BODY = b"a small body of "

_NUMBERS = itertools.count()


class Asked(NamedTuple):
    """A request: its marker and what it was told; status 0 where that was nothing, and the failure then says what."""

    marker: str
    method: str
    status: int
    worker: str
    began_s: float
    ended_s: float
    failure: str

    @property
    def lasted_s(self) -> float:
        return self.ended_s - self.began_s


class BalancedLoad:
    """The clients, in a thread of their own. Those whose connection ends take another one."""

    def __init__(self, relay: Relay, path: str, clients: int = CLIENTS) -> None:
        self.asked: list[Asked] = []
        self._port = relay.port
        self._path = path.encode()
        self._clients = clients
        self._over = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="balanced-load")

    @contextlib.contextmanager
    def running(self) -> Iterator["BalancedLoad"]:
        """Until the block is left, and each request has had its answer."""
        self._thread.start()
        try:
            yield self
        finally:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join()

    @property
    def answered(self) -> int:
        return len(self.asked)

    def await_answers(self, more: int = ANSWERS) -> None:
        goal = self.answered + more
        eventually(lambda: self.answered >= goal, DEADLINE_S, what=f"{more} more answers")

    def failures(self) -> list[Asked]:
        """Requests that had not their right answer."""
        return [asked for asked in list(self.asked) if asked.failure]

    def idempotent_failures(self) -> list[Asked]:
        return [asked for asked in self.failures() if asked.method != "POST"]

    def posts(self) -> list[Asked]:
        return [asked for asked in list(self.asked) if asked.method == "POST"]

    def workers(self) -> set[str]:
        """Who answered."""
        return {asked.worker for asked in list(self.asked) if asked.worker}

    def longest_s(self, since_s: float = 0.0) -> float:
        return max((asked.lasted_s for asked in list(self.asked) if asked.ended_s >= since_s), default=0.0)

    def _run(self) -> None:
        asyncio.run(self._all())

    async def _all(self) -> None:
        self._loop = asyncio.get_running_loop()
        wires = await self._wires()
        await asyncio.gather(*(self._client(number, wire) for number, wire in enumerate(wires)))

    async def _wires(self) -> list[KeepAlive]:
        """Connections, of which each worker has an equal share. The kernel says who gets one, so some are closed."""
        found: Counter[str] = Counter()
        wires: list[KeepAlive] = []
        async with asyncio.timeout(ANSWER_S):
            while len(wires) < self._clients:
                wire = await KeepAlive.open(self._port)
                worker = (await wire.ask(b"GET", b"/nowhere")).worker
                if found[worker] < self._clients // WORKERS:
                    found[worker] += 1
                    wires.append(wire)
                else:
                    await wire.close()
        return wires

    async def _client(self, number: int, wire: KeepAlive | None) -> None:
        for turn in itertools.count(number):
            if self._over.is_set():
                break
            if wire is not None and wire.ended:
                await wire.close()
                wire = None
            wire = await self._exchange(wire, METHODS[turn % len(METHODS)])
            await asyncio.sleep(PAUSE_S)
        if wire is not None:
            await wire.close()

    async def _exchange(self, wire: KeepAlive | None, method: bytes) -> KeepAlive | None:
        """One request; returns the connection for the next one."""
        marker = f"load-{next(_NUMBERS)}"
        target = b"%b/%b" % (self._path, marker.encode())
        body = b"" if method == b"GET" else BODY + marker.encode()
        began_s = time.monotonic()
        status, worker, failure = 0, "", ""
        try:
            async with asyncio.timeout(ANSWER_S):
                wire = wire or await KeepAlive.open(self._port)
                answer = await wire.ask(method, target, body, f"{MARKER}: {marker}\r\n".encode())
            status, worker = answer.status, answer.worker
            if status != 200 or answer.body != (body or b"/" + marker.encode()):
                failure = f"{status} {answer.body[:200]!r}"
        except (OSError, EOFError, WrongAnswerError) as error:
            failure = repr(error)
            if wire is not None:
                await wire.close()
                wire = None
        ended_s = time.monotonic()
        self.asked.append(Asked(marker, method.decode(), status, worker, began_s, ended_s, failure))
        return wire
