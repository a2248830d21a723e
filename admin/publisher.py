"""From SQL to Redis: the newest version of the configuration, published where workers look for it.

An edit calls `publish_soon`; once a second it is checked all the same, so that a Redis that lost everything, or an edit
made by another process, is put right.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from redis.exceptions import RedisError

from proxy.shared_state import published
from proxy.shared_state.breaker import Guard, StoreUnavailable
from proxy.shared_state.client import Client
from proxy.shared_state.keys import CONFIG_CHANNEL, CONFIG_SECTIONS, CONFIG_VERSION

log = logging.getLogger("relaygate")

CHECK_S = 1.0

Newest = Callable[[], Awaitable[published.RoutesSection]]
"""Reads the newest version from SQL."""


class Publisher:
    """Keeps what is published the newest that there is."""

    def __init__(self, client: Client, guard: Guard, newest: Newest) -> None:
        self._client = client
        self._guard = guard
        self._newest = newest
        self._wanted = asyncio.Event()

    def publish_soon(self) -> None:
        self._wanted.set()

    async def publish(self) -> None:
        """Publishes the newest version, unless that is done. Raises StoreUnavailable."""
        section = await self._newest()
        found = await self._guard.call(lambda: self._client.get(CONFIG_VERSION))
        if found is not None and int(found) == section.version:
            return
        await self._guard.call(lambda: self._write(section))

    async def _write(self, section: published.RoutesSection) -> None:
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.hset(CONFIG_SECTIONS, published.ROUTES, published.encode_routes(section))
            pipe.set(CONFIG_VERSION, section.version)
            pipe.publish(CONFIG_CHANNEL, section.version)
            await pipe.execute()

    async def run(self) -> None:
        """Publishes what changes until it is cancelled."""
        while True:
            self._wanted.clear()
            try:
                await self.publish()
            except (StoreUnavailable, RedisError, OSError) as error:
                log.debug("not published: %s", error)
            try:
                async with asyncio.timeout(CHECK_S):
                    await self._wanted.wait()
            except TimeoutError:
                pass
