"""A worker's link to Redis. Made only where the settings name a Redis, since redis-py takes 8 MB of memory.

The configuration comes in by it (`config_feed.py`), credentials with their bans (`credential_feed.py`), and what is
known of backends (`backend_feed.py`). What the worker has to tell goes out (`reporter.py`, `credential_reporter.py`),
and what it is asked it answers (`questions.py`).
"""

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Protocol

from redis.exceptions import RedisError

from proxy.asking_parent import ask_for_renewal
from proxy.config import Config, KeyPool, Route, Upstream
from proxy.shared_state.backend_feed import BackendFeed
from proxy.shared_state.breaker import Breaker, Guard, StoreUnavailable
from proxy.shared_state.client import connect
from proxy.shared_state.config_feed import ConfigFeed
from proxy.shared_state.credential_feed import CredentialFeed
from proxy.shared_state.credential_reporter import CredentialReporter
from proxy.shared_state.linked_gate import LinkedGate
from proxy.shared_state.linked_groups import LinkedGroups
from proxy.shared_state.linked_key_pool import LinkedKeyPool
from proxy.shared_state.live_log import LiveLog
from proxy.shared_state.live_log_channel import bring_lines
from proxy.shared_state.meter_store import MeterStore
from proxy.shared_state.questions import EXPLAIN, LATEST, LISTEN, QuestionFeed
from proxy.shared_state.reporter import Reported, Reporter
from proxy.shared_state.tasks import end
from proxy.shared_state.tls_feed import TlsFeed
from proxy.tallies import DIRECTORY

log = logging.getLogger("relaygate")

FIRST_ANSWER_S = 1.0
"""How long a starting worker waits for what is published, before it begins with what lay on disk."""
FIRST_CREDENTIALS_S = 5.0
"""The same for credentials. A Redis that does not answer ends it sooner; 100,000 credentials take a second or two."""


class LinkedWorker(Reported, Protocol):
    """What a link needs of its worker."""

    live_log: LiveLog

    @property
    def gate(self) -> LinkedGate: ...

    @property
    def key_pool(self) -> LinkedKeyPool: ...

    @property
    def groups(self) -> LinkedGroups: ...

    def use_routes(self, routes: dict[str, Route], key_pool: KeyPool, upstreams: dict[str, Upstream], /) -> None: ...

    def explain(self, request_id: bytes, /) -> bytes | None:
        """Returns what is known of a request; None where that is nothing."""

    def latest(self, question: bytes, /) -> bytes:
        """Returns what is known of the latest requests."""


class Link:
    """What a worker shares with the others through Redis."""

    def __init__(self, config: Config, worker: LinkedWorker) -> None:
        """Raises ConfigError where the URL cannot be used."""
        self._client = connect(config.redis.url or "")
        self._guard = Guard(self._client, Breaker())
        self._worker = worker
        data_dir = Path(config.data_dir)
        last_good = data_dir / "last-good"
        self.feed = ConfigFeed(self._client, self._guard, self._use, last_good / "routes.msgpack")
        self.credential_feed = CredentialFeed(
            self._client, self._guard, worker.key_pool, last_good / "credentials.msgpack"
        )
        self.backend_feed = BackendFeed(self._client, self._guard, worker.groups, worker.name)
        worker.key_pool.share(self.credential_feed.bans, StoreUnavailable)
        self.reporter = Reporter(self._client, self._guard, worker, lambda: self.feed.version, data_dir / DIRECTORY)
        self._credential_reporter = CredentialReporter(self.reporter.stream, worker.name, worker.key_pool.figures)
        handlers = {
            EXPLAIN: worker.explain,
            LATEST: worker.latest,
            LISTEN: lambda _: worker.live_log.listen(),
        }
        self._meter_store = MeterStore(self._client, self._guard)
        self._meter = worker.gate.share(self._meter_store, worker.name)
        self._questions = QuestionFeed(self._client, self._guard, handlers)
        self._tls_feed = TlsFeed(self._client, self._guard, ask_for_renewal) if worker.certificate else None
        self._tasks: list[asyncio.Task[None]] = []

    def _use(self, routes: dict[str, Route], key_pool: KeyPool, upstreams: dict[str, Upstream]) -> None:
        self._worker.key_pool.version = self.feed.version
        self._worker.use_routes(routes, key_pool, upstreams)

    async def begin(self) -> None:
        """Takes what is published, or else what was good the last time, and follows it from then on."""
        self.feed.begin()
        await self.credential_feed.credentials.begin()
        with contextlib.suppress(StoreUnavailable, RedisError, OSError):
            async with asyncio.timeout(FIRST_ANSWER_S):
                await self.feed.refresh()
                await self.backend_feed.refresh()
        with contextlib.suppress(StoreUnavailable, RedisError, OSError):
            async with asyncio.timeout(FIRST_CREDENTIALS_S):
                await self.credential_feed.refresh()
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(each)
            for each in (
                self.feed.follow(),
                self.backend_feed.follow(),
                self.credential_feed.listen(),
                self.credential_feed.credentials.follow(),
                self.reporter.run(),
                self._credential_reporter.run(),
                self._questions.follow(),
                self._meter.run(),
                bring_lines(self._client, self._guard, self._worker.live_log),
                *([] if self._tls_feed is None else [self._tls_feed.follow()]),
            )
        ]

    async def close(self) -> None:
        """Tells what is still to be told, which takes a moment only. No request may be running any more."""
        for task in self._tasks:
            await end(task)
        await asyncio.gather(
            self.reporter.finish(), self._credential_reporter.finish(), self._meter.close(), self.backend_feed.finish()
        )
        self._meter_store.close()
        await self._client.aclose()
