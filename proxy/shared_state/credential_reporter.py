"""What a worker tells of credentials once a second: what was asked with each, and which bans it has begun or ended.

A delta whose confirmation did not come is sent again as it was, so the consumer takes each number of a worker once.
While Redis is away, or the stream full, counts add up where they are made, and the latest changes of bans wait here.
There is no journal: what a worker that is killed has counted since its last delta is lost.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Iterator

import msgspec
from redis.exceptions import RedisError

from proxy.shared_state.breaker import StoreUnavailable
from proxy.shared_state.credential_events import KIND, BanChange, CredentialCounts, CredentialsDelta
from proxy.shared_state.event_stream import EventStream
from proxy.shared_state.linked_key_pool import CredentialFigures

log = logging.getLogger("relaygate")

BEAT_S = 1.0
FINISH_S = 1.0
"""How long a worker that ends goes on trying to tell."""
COUNTS_MAX = 2_000
"""So many credentials are in one delta at most, and changes of bans: some 100 KB."""
BANS_MAX = 10_000
"""Changes of bans that wait to be told. Of more the oldest are never told; the bans themselves are in Redis."""

_encode = msgspec.msgpack.Encoder().encode


class CredentialReporter:
    """Tells Redis of one worker's credentials. `worker` is its name."""

    def __init__(self, stream: EventStream, worker: str, figures: CredentialFigures) -> None:
        self._stream = stream
        self._worker = worker
        self._figures = figures
        self._sequence = 0
        self._offered: bytes | None = None
        self._counts: Iterator[CredentialCounts] = iter(())
        self._bans: deque[BanChange] = deque(maxlen=BANS_MAX)

    async def run(self) -> None:
        """Tells once a second until it is cancelled."""
        told = ""
        while True:
            problem = await self.beat()
            if problem and problem != told:
                log.error("not told to redis: %s", problem)
            told = problem
            await asyncio.sleep(BEAT_S)

    async def beat(self) -> str:
        """Tells all that there is to tell; returns what was refused in a line, or nothing."""
        try:
            while await self._tell():
                pass
        except StoreUnavailable:  # the guard tells of it
            pass
        except (RedisError, OSError) as error:
            return f"{type(error).__name__}: {error}"
        return ""

    async def finish(self) -> None:
        """Tells what is left, in a moment or not at all. Nothing may be counted any more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FINISH_S):
                await self.beat()

    async def _tell(self) -> bool:
        """Sends one delta, if there is one. Returns whether it did."""
        self._bans.extend(self._figures.take_bans())
        if not await self._stream.has_room(len(self._offered or b"")):
            return False
        self._offered = self._offered or self._next()
        if self._offered is None:
            return False
        await self._stream.add(KIND, self._offered)
        self._offered = None
        return True

    def _next(self) -> bytes | None:
        counts = self._some_counts()
        bans = [self._bans.popleft() for _ in range(min(len(self._bans), COUNTS_MAX))]
        if not counts and not bans:
            return None
        self._sequence += 1
        return _encode(CredentialsDelta(self._worker, self._sequence, counts, bans))

    def _some_counts(self) -> list[CredentialCounts]:
        """Returns counts that have been taken and not been told, or takes more."""
        for _ in range(2):
            counts = [each for each, _ in zip(self._counts, range(COUNTS_MAX), strict=False)]
            if counts:
                return counts
            self._counts = iter(self._figures.take_counts())
        return []
