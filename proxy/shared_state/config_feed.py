"""A worker's view of the published configuration: told of each change, and asking once a second in case it was not.

What it cannot use it leaves, with one log line: the worker goes on with what it has. The last good configuration lies
on disk too, for a start without Redis.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import msgspec
from redis.exceptions import RedisError

from proxy.config import KeyPool, Route, Upstream
from proxy.shared_state import published
from proxy.shared_state.breaker import Guard, StoreUnavailable
from proxy.shared_state.client import Client
from proxy.shared_state.keys import CONFIG_CHANNEL, CONFIG_SECTIONS, CONFIG_VERSION

log = logging.getLogger("relaygate")

POLL_S = 1.0
"""The longest that a change stays unseen where its announcement was lost."""


class ConfigFeed:
    """Follows the published routes, settings of the key pool and upstreams, and gives each version to `use`."""

    def __init__(
        self,
        client: Client,
        guard: Guard,
        use: Callable[[dict[str, Route], KeyPool, dict[str, Upstream]], None],
        last_good: Path,
    ) -> None:
        self._client = client
        self._guard = guard
        self._use = use
        self._last_good = last_good
        self._reader = published.RoutesReader()
        self._mark = published.Mark(0, 0)

    @property
    def version(self) -> int:
        """The number of the version in use; 0 before the first."""
        return self._mark.version

    def begin(self) -> None:
        """Uses what lay on disk, until Redis tells more."""
        section = published.stored(self._last_good)
        if section is not None:
            self._take(section)

    async def refresh(self) -> None:
        """Takes what is published, if it is another version than the one in use. Raises StoreUnavailable."""
        mark = published.decode_mark(await self._guard.call(lambda: self._client.get(CONFIG_VERSION)))
        if mark is None or mark == self._mark:
            return
        data = await self._guard.call(lambda: self._client.hget(CONFIG_SECTIONS, published.ROUTES))
        if not isinstance(data, bytes):
            return
        try:
            section = self._reader.read(data)
        except msgspec.DecodeError as error:
            log.error("published configuration not used: %s", error)  # noqa: TRY400 - a line, not a traceback
            self._mark = mark
            return
        await asyncio.sleep(0)  # with many routes, decoding and compiling would together stop the loop for too long
        if self._take(section):
            await asyncio.to_thread(self._keep, data)

    async def follow(self) -> None:
        """Follows the configuration until it is cancelled."""
        while True:
            try:
                await self._follow_announcements()
            except (StoreUnavailable, RedisError, OSError):  # the guard tells of it
                await asyncio.sleep(POLL_S)

    async def _follow_announcements(self) -> None:
        async with self._client.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(CONFIG_CHANNEL)
            while True:
                await self.refresh()
                await channel.get_message(timeout=POLL_S)

    def _take(self, section: published.RoutesSection) -> bool:
        self._mark = section.mark
        try:
            self._use(section.routes, section.key_pool, section.upstreams)
        except Exception as error:
            log.error("published configuration %d not used: %s", section.version, error)  # noqa: TRY400
            return False
        return True

    def _keep(self, data: bytes) -> None:
        try:
            published.store(data, self._last_good)
        except OSError as error:
            log.warning("the configuration in use cannot be kept on disk: %s", error)
