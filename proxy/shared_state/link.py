"""A worker's link to Redis. Made only where the settings name a Redis, since redis-py takes 8 MB of memory."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from redis.exceptions import RedisError

from proxy.config import Config, Route
from proxy.shared_state.breaker import Breaker, Guard, StoreUnavailable
from proxy.shared_state.client import connect
from proxy.shared_state.config_feed import ConfigFeed
from proxy.shared_state.tasks import end

log = logging.getLogger("relaygate")

FIRST_ANSWER_S = 1.0
"""How long a starting worker waits for what is published, before it begins with what lay on disk."""


class Link:
    """What a worker shares with the others through Redis."""

    def __init__(self, config: Config, use_routes: Callable[[dict[str, Route]], None]) -> None:
        """Raises ConfigError where the URL cannot be used."""
        self._client = connect(config.redis.url or "")
        guard = Guard(self._client, Breaker())
        self.feed = ConfigFeed(self._client, guard, use_routes, Path(config.data_dir) / "last-good" / "routes.msgpack")
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Takes the configuration that is published, or else the last good one, and follows it from then on."""
        self.feed.begin()
        with contextlib.suppress(StoreUnavailable, RedisError, OSError):
            async with asyncio.timeout(FIRST_ANSWER_S):
                await self.feed.refresh()
        self._task = asyncio.get_running_loop().create_task(self.feed.follow())

    async def close(self) -> None:
        if self._task is not None:
            await end(self._task)
        await self._client.aclose()
