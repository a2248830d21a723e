"""What a worker tells once a second: that it lives, and what it has counted; and what dead workers had counted.

The law of this file: nothing that has been counted is told twice under two numbers, or forgotten before Redis has
confirmed it. A delta whose confirmation did not come is sent again as it was, also by whoever finds it after the
worker's death; the consumer takes each number of a worker once.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import resource
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from redis.exceptions import RedisError

from proxy.shared_state.breaker import Guard, StoreUnavailable
from proxy.shared_state.client import Client
from proxy.shared_state.event_stream import EventStream
from proxy.shared_state.events import STATISTICS
from proxy.shared_state.keys import SUMMARY, WORKERS
from proxy.shared_state.worker_state import WorkerState, encode_state
from proxy.tallies import Leftover, Leftovers, Tallies
from proxy.version import VERSION

log = logging.getLogger("relaygate")

BEAT_S = 1.0
CLAIM_BEATS = 5
"""How often what dead workers have left is looked for."""
FINISH_S = 1.0
"""How long a worker that ends goes on trying to tell what it has counted. After the drain it has two seconds in all."""


class Reported(Protocol):
    """What a reporter needs of its worker. `summary` is filled in while `wants_summary`."""

    name: str
    started_s: float
    certificate: str
    tallies: Tallies | None
    summary: bytes | None

    @property
    def in_flight(self) -> int: ...

    @property
    def wants_summary(self) -> bool: ...


class Reporter:
    """Tells Redis of one worker. `version` says which published configuration that uses."""

    def __init__(self, client: Client, guard: Guard, worker: Reported, version: Callable[[], int], left: Path) -> None:
        """`left` is the directory of what dead workers have left."""
        self._client = client
        self._guard = guard
        self._worker = worker
        self._version = version
        self._leftovers = Leftovers(left)
        self._claimed: list[Leftover] = []
        self.stream = EventStream(client, guard)

    async def run(self) -> None:
        """Tells once a second until it is cancelled."""
        told: set[str] = set()
        for beat in itertools.count():
            if beat % CLAIM_BEATS == 0:
                self._claimed += await asyncio.to_thread(self._leftovers.claim)
            problems = await self.beat()
            for problem in problems - told:
                log.error("not told to redis: %s", problem)
            told = problems
            await asyncio.sleep(BEAT_S)

    async def beat(self) -> set[str]:
        """Tells all that there is to tell; returns what was refused, each in a line."""
        problems = set()
        for tell in (self._tell_statistics, self._tell_leftovers, self._tell_state, self._fetch_summary):
            try:
                await tell()
            except StoreUnavailable:  # the guard tells of it
                self._worker.summary = None
                break
            except (RedisError, OSError) as error:
                problems.add(f"{type(error).__name__}: {error}")
        return problems

    async def finish(self) -> None:
        """Tells what is left and says goodbye, in a moment or not at all: then another worker will."""
        with contextlib.suppress(StoreUnavailable, RedisError, OSError, TimeoutError):
            async with asyncio.timeout(FINISH_S):
                while await self._tell_statistics():
                    pass
                await self._guard.call(lambda: self._client.hdel(WORKERS, self._worker.name))  # type: ignore[arg-type,return-value,unused-ignore]
        if self._worker.tallies is not None:
            self._worker.tallies.close()
        for leftover in self._claimed:
            leftover.journal.leave()

    async def _tell_state(self) -> None:
        worker = self._worker
        state = WorkerState(
            name=worker.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            program=VERSION,
            started_s=worker.started_s,
            time_s=time.time(),
            configuration=self._version(),
            in_flight=worker.in_flight,
            memory_bytes=memory_bytes(),
            unsent=0 if worker.tallies is None else worker.tallies.unsent,
            tls=worker.certificate,
        )
        await self._guard.call(lambda: self._client.hset(WORKERS, worker.name, encode_state(state)))  # type: ignore[arg-type,return-value,unused-ignore]

    async def _tell_statistics(self) -> bool:
        """Sends one delta, if there is one. Returns whether it did."""
        tallies = self._worker.tallies
        delta = None if tallies is None else tallies.offer(time.time())
        if tallies is None or delta is None or not await self.stream.has_room(len(delta)):
            return False
        await self._send(delta)
        tallies.confirm()
        return True

    async def _tell_leftovers(self) -> None:
        while self._claimed:
            leftover = self._claimed[0]
            if not await self.stream.has_room(sum(map(len, leftover.deltas))):
                return
            for delta in leftover.deltas:
                await self._send(delta)
            await asyncio.to_thread(leftover.journal.remove)
            del self._claimed[0]
            log.info("told what a worker that is gone had counted")

    async def _fetch_summary(self) -> None:
        if self._worker.wants_summary:
            found = await self._guard.call(lambda: self._client.get(SUMMARY))
            self._worker.summary = found if isinstance(found, bytes) else None

    async def _send(self, delta: bytes) -> None:
        await self.stream.add(STATISTICS, delta)


def memory_bytes() -> int:
    """Returns the resident set of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
