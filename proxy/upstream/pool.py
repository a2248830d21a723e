"""The keep-alive pool of one origin: which connection a request gets, and what becomes of it afterwards.

The youngest idle connection is used first, so that surplus ones grow old and expire. At the cap requests queue, first
come first served, up to a bound of time and of number. Deciding is plain code; only `connect` and the queue wait.
"""

import asyncio
import contextlib
import logging
import math
from collections import deque
from collections.abc import Callable, Set
from weakref import WeakValueDictionary

from proxy.config import UpstreamTls
from proxy.errors import POOL_FULL, RelayError, TargetRefused
from proxy.upstream.connect import Origin, connect
from proxy.upstream.connection import Connection
from proxy.upstream.tls import SessionContext, client_context

log = logging.getLogger("relaygate")

TELL_AGAIN_S = 60.0
"""How long nothing more is logged of a target that is refused, however many requests ask for it."""


class Pool:
    """Connections of one worker to one origin.

    `open` counts those in use, idle and being made; it never exceeds the cap.
    """

    def __init__(
        self,
        origin: Origin,
        loop: asyncio.AbstractEventLoop,
        context_for: Callable[[UpstreamTls], SessionContext] = client_context,
    ) -> None:
        """Raises OSError or ssl.SSLError where the origin's TLS files are unusable."""
        self.origin = origin
        self.open = 0
        self._loop = loop
        self._context: SessionContext | None = None if origin.tls is None else context_for(origin.tls)
        self._idle: list[Connection] = []
        self._queue: deque[asyncio.Future[Connection | None]] = deque()
        self._retired = False
        self._told_s = -math.inf

    def take(self) -> Connection | None:
        """Returns an idle connection that the upstream has not closed, or None; hand it back with `give_back`."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                if self._loop.time() < connection.idle_until_s:
                    return connection
                connection.abort()
            self.open -= 1
        return None

    async def fresh(self) -> Connection:
        """Returns a new connection, or one that comes free while the pool is full. Raises RelayError."""
        if self.open >= self.origin.max_connections:
            connection = await self._queued()
            if connection is not None and not connection.closed:
                return connection
        else:
            self.open += 1
        try:
            return await connect(self.origin, self._context)
        except BaseException as error:
            self._free_a_place()
            if isinstance(error, TargetRefused):
                self._tell(error)
            raise

    def give_back(self, connection: Connection) -> None:
        """Ends a use of a connection: it idles, goes to the next in the queue, or is closed if unfit for another."""
        if not connection.reusable or self._retired:
            connection.abort()
            self._free_a_place()
            return
        if connection.exchanges == 1 and self._context is not None:
            self._context.remember(self.origin.server_name, connection.tls_session())
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        connection.idle_until_s = self._loop.time() + connection.idle_max_s(self.origin.idle_connection_s)
        self._idle.append(connection)

    def sweep(self, now_s: float) -> None:
        """Closes connections that have idled too long, and forgets those that their upstream has closed."""
        kept = []
        for connection in self._idle:
            if connection.closed:
                self.open -= 1
            elif now_s >= connection.idle_until_s:
                connection.abort()
                self.open -= 1
            else:
                kept.append(connection)
        self._idle = kept

    def retire(self) -> None:
        """Closes idle connections now and the others when their exchanges end: no route leads here any more."""
        self._retired = True
        if self._context is not None:
            self._context.forget(self.origin.server_name)
        for connection in self._idle:
            connection.abort()
            self.open -= 1
        self._idle.clear()

    def _tell(self, error: TargetRefused) -> None:
        """Logs why the target is refused, now and then."""
        now_s = self._loop.time()
        if now_s - self._told_s >= TELL_AGAIN_S:
            self._told_s = now_s
            log.warning(
                "target %s refused: %s; server.allow_private_targets: true allows it", self.origin.host, error.why
            )

    async def _queued(self) -> Connection | None:
        """Waits for a connection, or for leave to make one (None). Raises RelayError(POOL_FULL) after `pool_wait_s`."""
        if len(self._queue) >= self.origin.max_connections:
            raise RelayError(POOL_FULL)
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        self._queue.append(waiter)
        timer = self._loop.call_later(self.origin.pool_wait_s, self._give_up, waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                handed = waiter.result()
                if handed is None:
                    self._free_a_place()
                else:
                    self.give_back(handed)
            raise
        finally:
            timer.cancel()
            with contextlib.suppress(ValueError):
                self._queue.remove(waiter)

    def _give_up(self, waiter: asyncio.Future[Connection | None]) -> None:
        if not waiter.done():
            waiter.set_exception(RelayError(POOL_FULL))

    def _free_a_place(self) -> None:
        """Passes the place of a connection that is gone to the next in the queue, or gives it up."""
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self.open -= 1


class Pools:
    """All pools of a worker, one an origin. A reload keeps the pools of origins that stay, and so their connections."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._by_origin: dict[Origin, Pool] = {}
        self._contexts: WeakValueDictionary[UpstreamTls, SessionContext] = WeakValueDictionary()

    def get(self, origin: Origin) -> Pool:
        """Returns the pool of an origin, made at its first use.

        Raises OSError or ssl.SSLError for unusable TLS files.
        """
        pool = self._by_origin.get(origin)
        if pool is None:
            pool = self._by_origin[origin] = Pool(origin, self._loop, self._context_for)
        return pool

    def keep_only(self, pools: Set[Pool]) -> None:
        """Retires all other pools."""
        for origin in [origin for origin, pool in self._by_origin.items() if pool not in pools]:
            self._by_origin.pop(origin).retire()

    def sweep(self) -> None:
        """Closes what has idled too long, in every pool."""
        now_s = self._loop.time()
        for pool in self._by_origin.values():
            pool.sweep(now_s)

    def _context_for(self, tls: UpstreamTls) -> SessionContext:
        context = self._contexts.get(tls)
        if context is None:
            context = self._contexts[tls] = client_context(tls)
        return context
