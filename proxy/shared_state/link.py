"""A worker's link to Redis. Made only where the settings name a Redis, since redis-py takes 8 MB of memory.

The configuration comes in by it (`config_feed.py`), and what the worker has to tell goes out (`reporter.py`).
"""

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Protocol

from redis.exceptions import RedisError

from proxy.config import Config, Route
from proxy.shared_state.breaker import Breaker, Guard, StoreUnavailable
from proxy.shared_state.client import connect
from proxy.shared_state.config_feed import ConfigFeed
from proxy.shared_state.reporter import Reported, Reporter
from proxy.shared_state.tasks import end
from proxy.tallies import DIRECTORY

log = logging.getLogger("relaygate")

FIRST_ANSWER_S = 1.0
"""How long a starting worker waits for what is published, before it begins with what lay on disk."""


class LinkedWorker(Reported, Protocol):
    """What a link needs of its worker."""

    def use_routes(self, routes: dict[str, Route], /) -> None: ...


class Link:
    """What a worker shares with the others through Redis."""

    def __init__(self, config: Config, worker: LinkedWorker) -> None:
        """Raises ConfigError where the URL cannot be used."""
        self._client = connect(config.redis.url or "")
        guard = Guard(self._client, Breaker())
        last_good = Path(config.data_dir) / "last-good" / "routes.msgpack"
        self.feed = ConfigFeed(self._client, guard, worker.use_routes, last_good)
        self.reporter = Reporter(
            self._client, guard, worker, lambda: self.feed.version, Path(config.data_dir) / DIRECTORY
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Takes the configuration that is published, or else the last good one, and follows it from then on."""
        self.feed.begin()
        with contextlib.suppress(StoreUnavailable, RedisError, OSError):
            async with asyncio.timeout(FIRST_ANSWER_S):
                await self.feed.refresh()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self.feed.follow()), loop.create_task(self.reporter.run())]

    async def close(self) -> None:
        """Tells what is still to be told, which takes a moment only. No request may be running any more."""
        for task in self._tasks:
            await end(task)
        await self.reporter.finish()
        await self._client.aclose()
