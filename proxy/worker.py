"""One worker: its snapshot, its pools, the requests in flight, and a tick that looks after them.

The tick is what makes the hot path cheap. A request that ends within a moment is never watched; one that lasts longer
gets a task that waits for its client's leaving, since that costs two thread hops in Granian.
"""

import asyncio
import importlib
import itertools
import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from proxy.access_log import AccessLog
from proxy.client_sockets import ClientSockets
from proxy.config import Config, OnClientGone, Route, Upstream, warnings_of
from proxy.config import KeyPool as KeyPoolSettings
from proxy.errors import NOT_READY
from proxy.exchange import Exchange
from proxy.key_pool.pool import KeyPool
from proxy.metering.gate import Gate
from proxy.shared_state.live_log import LiveLog
from proxy.snapshot import Shared, compile_snapshot
from proxy.tallies import DIRECTORY, Tallies
from proxy.upstream.groups import Groups
from proxy.upstream.pool import Pools

if TYPE_CHECKING:
    from proxy.secrets import Secrets
    from proxy.tracing import Tracing

log = logging.getLogger("relaygate")

TICK_S = 0.1
SWEEP_TICKS = 10
DRAINED_S_MAX = 600.0
"""How long an answer is read that nobody waits for any more, on routes with `on_client_gone: drain`."""
DRAIN = OnClientGone.DRAIN


class Worker:
    """The state of one worker process. All of it belongs to one event loop, so nothing here is locked."""

    def __init__(self, loop: asyncio.AbstractEventLoop, config: Config, reload: Callable[[], Config]) -> None:
        """Compiles the first configuration. Raises OSError for unusable TLS files."""
        self.loop = loop
        self.name = os.urandom(8).hex()
        """No other worker has this name; the ids of its requests begin with it."""
        self.started_s = time.time()
        self.certificate = ""
        """The fingerprint of the one that clients are shown; empty: none is."""
        self.pools = Pools(loop)
        self.groups = Groups(loop)
        self.tallies: Tallies | None = None
        """What has been counted, also under configurations before; None until something is to be counted."""
        self.summary: bytes | None = None
        """The figures of all workers in JSON, where they are wanted and there are any."""
        self.key_pool = KeyPool(self._reveal)
        self.gate = Gate()
        self._secrets: Secrets | None = None
        self._data_dir = Path(config.data_dir)
        self.live_log = LiveLog(time.monotonic)
        self.listened: LiveLog | None = None
        """The live log while somebody listens; asked on each tick, since a request should not look at the clock."""
        self._may_count = config.redis.url is not None
        self.snapshot = compile_snapshot(msgspec.structs.replace(config, routes={}), self._shared(None))
        self.access_log: AccessLog | None = None
        self.tracing: Tracing | None = None
        self.young: set[Exchange] = set()
        """Requests that have begun since the last tick."""
        self.watched: set[Exchange] = set()
        """Requests that have lasted longer, each with a task that waits for its client's leaving."""
        self.tunnels: set[Exchange] = set()
        """WebSockets. They wait for their client's leaving themselves."""
        self.client_sockets = ClientSockets(time.monotonic)
        self.draining = False
        """Whether it has been told to stop."""
        self._reload = reload
        self._published: dict[str, Route] | None = None
        self._published_upstreams: dict[str, Upstream] = {}
        self._warned: list[str] = []
        """Of what in the published routes, last."""
        self._ids = itertools.count()
        self._id_prefix = self.name.encode()
        self._ticks = 0
        self.use(config)
        if config.server.tracing is not None:
            self.tracing = importlib.import_module("proxy.tracing").Tracing(config.server.tracing, self.name)
        self._timer = loop.call_later(TICK_S, self._tick)

    def use(self, config: Config) -> None:
        """Compiles a configuration and swaps it in; requests in flight keep the one that they began with.

        Published routes and upstreams, where there are any, stand in for its own.
        """
        if self._published is None:
            self._compile(config, config.routes, config.upstreams)
        else:
            self._compile(config, self._published, self._published_upstreams)
        self._config = config
        if self._published is None:
            self.key_pool.use(config.key_pool)
        self.key_pool.api_key = config.credentials.api_key
        self.gate.use(config)
        if config.server.access_log:
            self.access_log = self.access_log or AccessLog()
        elif self.access_log is not None:
            self.access_log.flush()
            self.access_log = None

    def use_routes(self, routes: dict[str, Route], key_pool: KeyPoolSettings, upstreams: dict[str, Upstream]) -> None:
        """Compiles published routes and upstreams and swaps them in, with the published settings of the key pool."""
        self._compile(self._config, routes, upstreams)
        self._published, self._published_upstreams = routes, upstreams
        self.key_pool.use(key_pool)
        self._warn(warnings_of(routes, upstreams, self._config.credentials))

    def _warn(self, warnings: list[str]) -> None:
        """Says of published routes what has not been said; of the settings' own ones the parent does."""
        config = self._config
        said = [*self._warned, *warnings_of(config.routes, config.upstreams, config.credentials)]
        for warning in warnings:
            if warning not in said:
                log.warning(warning)
        self._warned = warnings

    def explain(self, request_id: bytes) -> bytes | None:
        """Returns what is known of a request, in JSON; None where that is nothing."""
        return self.key_pool.traces.answer(request_id)

    def latest(self, _: bytes) -> bytes:
        """Returns what is known of the latest requests, in JSON."""
        return self.key_pool.traces.answer_latest()

    def _compile(self, config: Config, routes: dict[str, Route], upstreams: dict[str, Upstream]) -> None:
        whole = msgspec.structs.replace(config, routes=routes, upstreams=upstreams)
        counts = self._may_count and config.server.statistics
        if counts and self.tallies is None:
            self.tallies = Tallies.open(Path(config.data_dir) / DIRECTORY, self.name, self.started_s)
        self.snapshot = compile_snapshot(whole, self._shared(self.tallies if counts else None), self.snapshot)

    def _shared(self, tallies: Tallies | None) -> Shared:
        return Shared(self.pools, self.groups, tallies, self.key_pool, self.gate)

    def _reveal(self, secret: str, purpose: str) -> str:
        """Decrypts a credential's secret. The library is loaded for the first: it takes 8 MB."""
        if self._secrets is None:
            secrets = importlib.import_module("proxy.secrets")
            self._secrets = secrets.known_secrets(os.environ, self._data_dir / secrets.KEY_FILE)
        return self._secrets.decrypt(secret, purpose)

    def reload(self) -> None:
        """Loads the configuration anew; one that cannot be used changes nothing and is told in one line."""
        try:
            self.use(self._reload())
        except Exception as error:
            log.error("configuration not reloaded: %s", error)  # noqa: TRY400 - a line, not a traceback
        else:
            log.info("configuration reloaded")

    def new_request_id(self) -> bytes:
        """Returns an id that no other request has, here or in another worker."""
        return b"%b%08x" % (self._id_prefix, next(self._ids))

    @property
    def wants_summary(self) -> bool:
        return self.snapshot.server.stats_path is not None

    @property
    def in_flight(self) -> int:
        return len(self.young) + len(self.watched) + len(self.tunnels)

    def finish(self, exchange: Exchange) -> None:
        """Forgets a request that has ended."""
        self.young.discard(exchange)
        if exchange.watch is not None:
            self.watched.discard(exchange)
            exchange.watch.cancel()
            exchange.watch = None

    def begin_drain(self) -> None:
        """Closes the tunnels as going away, then lets Granian stop, which would leave them no time for a close frame.

        A tunnel has no end of its own that could be waited for; told to go, its client opens another one elsewhere.
        """
        self.draining = True
        self._drain = self.loop.create_task(self._close_tunnels())

    async def _close_tunnels(self) -> None:
        tasks = [exchange.task for exchange in self.tunnels]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        signal.raise_signal(signal.SIGINT)

    def end_drain(self) -> None:
        """Breaks off what is still in flight at the drain deadline, and says how much that was."""
        left = [*self.young, *self.watched, *self.tunnels]
        log.warning("drain deadline: %d requests were left and are broken off", len(left))
        for exchange in left:
            exchange.cause = NOT_READY
            exchange.task.cancel()

    async def end_requests(self) -> None:
        """Ends what has not noticed yet that Granian has closed its connection."""
        tasks = [exchange.task for exchange in (*self.young, *self.watched, *self.tunnels)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> None:
        """Stops the tick and closes every pooled connection."""
        self._timer.cancel()
        self.pools.keep_only(set())
        if self.access_log is not None:
            self.access_log.flush()
        if self.tracing is not None:
            self.tracing.close()

    def _tick(self) -> None:
        self._timer = self.loop.call_later(TICK_S, self._tick)
        # One that already has a task keeps it until that ends: a second in its place could not be taken back.
        for exchange in [one for one in self.young if one.body_received and one.watch is None]:
            self.young.discard(exchange)
            self.watched.add(exchange)
            exchange.watch = self.loop.create_task(watch(exchange))
        if self.access_log is not None:
            self.access_log.flush()
        self.listened = self.live_log if self.live_log.wanted else None
        if self.tallies is not None:
            self.tallies.tick(time.time())
        self.groups.tick()
        self._ticks += 1
        if self._ticks % SWEEP_TICKS == 0:
            self.pools.sweep()
            self.key_pool.tick()
            for exchange in self.young:
                if exchange.congested:
                    exchange.watch = exchange.watch or self.loop.create_task(self._watch_congested(exchange))

    async def _watch_congested(self, exchange: Exchange) -> None:
        """Cancels an upload whose client has left while its upstream took nothing.

        Granian reads no further then, so it cannot see the client leave; the kernel can.
        """
        if not await self.client_sockets.stands(exchange.scope["client"]) and exchange.congested:
            exchange.task.cancel()
        exchange.watch = None


async def watch(exchange: Exchange) -> None:
    """Waits until the client has left, then cancels its request, unless the upstream is to be heard to the end.

    The body has been received, so nothing else is to come.
    """
    while (await exchange.receive())["type"] == "http.request":
        pass
    if exchange.was_sent and exchange.route.settings.on_client_gone is DRAIN:
        exchange.truncated = True
        await asyncio.sleep(DRAINED_S_MAX)  # the request's end cancels this
    exchange.task.cancel()
