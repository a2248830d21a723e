"""The live log: lines about requests, from the workers to whoever listens just now. Nothing is kept.

Each listener has a bounded queue. Who is too slow loses the oldest lines, and is told how many.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
from redis.exceptions import RedisError

from admin.services.failures import TooManyListeners
from proxy.shared_state.breaker import Guard, StoreUnavailable
from proxy.shared_state.client import Client
from proxy.shared_state.live_log_channel import lines

LISTENERS_MAX = 20
WAITING_MAX = 1000
HEARTBEAT_S = 15.0
LIFETIME_S = 3600.0
"""How long one may listen. Browsers come back by themselves (`EventSource`), and forgotten programs do not."""

LEFT_OUT = "left_out"
"""Stands alone in a line for how many a worker had too many of."""
RETRY_S = 1.0

Line = Mapping[str, Any]


class LiveLog:
    """Whom a line concerns. `tell` is given each; `wanted` is set while there is anybody to tell."""

    def __init__(
        self,
        *,
        listeners_max: int = LISTENERS_MAX,
        waiting_max: int = WAITING_MAX,
        heartbeat_s: float = HEARTBEAT_S,
        lifetime_s: float = LIFETIME_S,
    ) -> None:
        self.wanted = asyncio.Event()
        self._listeners: set[Listener] = set()
        self._listeners_max = listeners_max
        self._waiting_max = waiting_max
        self._heartbeat_s = heartbeat_s
        self._lifetime_s = lifetime_s

    def tell(self, data: bytes) -> None:
        """Takes a line in JSON, as a worker published it, or how many it left out. All else is passed over."""
        try:
            line = msgspec.json.decode(data)
        except msgspec.DecodeError:
            return
        if not isinstance(line, dict):
            return
        for listener in self._listeners:
            if line.keys() == {LEFT_OUT}:
                listener.lose(line[LEFT_OUT])
            else:
                listener.hear(line)

    @contextmanager
    def listen(self, wanted: Callable[[Line], bool]) -> "Iterator[Listener]":
        """Somebody listens for the time of the block. Raises TooManyListeners."""
        if len(self._listeners) >= self._listeners_max:
            raise TooManyListeners
        listener = Listener(wanted, self._waiting_max, self._heartbeat_s, self._lifetime_s)
        self._listeners.add(listener)
        self.wanted.set()
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            if not self._listeners:
                self.wanted.clear()

    def close(self) -> None:
        """Ends all listening."""
        for listener in self._listeners:
            listener.end()


class Listener:
    """One who listens."""

    def __init__(self, wanted: Callable[[Line], bool], waiting_max: int, heartbeat_s: float, lifetime_s: float) -> None:
        self._wanted = wanted
        self._waiting: deque[Line] = deque(maxlen=waiting_max)
        self._lost = 0
        self._heartbeat_s = heartbeat_s
        self._end_s = asyncio.get_running_loop().time() + lifetime_s
        self._news = asyncio.Event()
        self._ended = False

    def hear(self, line: Line) -> None:
        if self._wanted(line):
            self._lost += len(self._waiting) == self._waiting.maxlen
            self._waiting.append(line)
            self._news.set()

    def lose(self, count: object) -> None:
        """Of lines that no longer are there nobody knows whom they would have concerned."""
        self._lost += count if isinstance(count, int) else 0

    def end(self) -> None:
        self._ended = True
        self._news.set()

    async def next(self) -> tuple[list[Line], int] | None:
        """The lines that came meanwhile and how many were lost before them; none within a heartbeat; None: the end."""
        left_s = self._end_s - asyncio.get_running_loop().time()
        if left_s > 0 and not self._ended:
            try:
                async with asyncio.timeout(min(self._heartbeat_s, left_s)):
                    await self._news.wait()
            except TimeoutError:
                pass
        if self._ended or (left_s <= 0 and not self._waiting):
            return None
        heard = list(self._waiting), self._lost
        self._waiting.clear()
        self._lost = 0
        self._news.clear()
        return heard


async def follow(live_log: LiveLog, client: Client, guard: Guard) -> None:
    """Brings lines of all workers while somebody listens, until it is cancelled."""
    while True:
        await live_log.wanted.wait()
        try:
            await _bring(live_log, client, guard)
        except (StoreUnavailable, RedisError, OSError):  # the guard tells of it
            await asyncio.sleep(RETRY_S)


async def _bring(live_log: LiveLog, client: Client, guard: Guard) -> None:
    """Returns once nobody listens any more."""
    async with contextlib.aclosing(lines(client, guard)) as coming:
        async for line in coming:
            if not live_log.wanted.is_set():
                return
            if line:
                live_log.tell(line)
