"""From SQL to Redis: the newest version of the configuration, published where workers look for it.

An edit calls `publish_soon`; once a second it is checked all the same, so that a Redis that lost everything, or an edit
made by another process, is put right.
"""

import asyncio
from collections.abc import Awaitable, Callable

from admin.publishing import keep_published
from proxy.shared_state import published
from proxy.shared_state.breaker import Guard
from proxy.shared_state.client import Client
from proxy.shared_state.keys import CONFIG_CHANNEL, CONFIG_SECTIONS, CONFIG_VERSION
from proxy.shared_state.published import Mark


class Publisher:
    """Keeps what is published the newest that there is.

    `mark` reads from SQL which version is the newest, `section` all of it.
    """

    def __init__(
        self,
        client: Client,
        guard: Guard,
        mark: Callable[[], Awaitable[Mark]],
        section: Callable[[], Awaitable[published.RoutesSection]],
    ) -> None:
        self._client = client
        self._guard = guard
        self._mark = mark
        self._section = section
        self._wanted = asyncio.Event()

    def publish_soon(self) -> None:
        self._wanted.set()

    async def publish(self) -> None:
        """Publishes the newest version, unless that is done. Raises StoreUnavailable."""
        found = await self._guard.call(self._published)
        if found is not None and found == await self._mark():
            return
        section = await self._section()
        await self._guard.call(lambda: self._write(section))
        await self._guard.call(lambda: self._client.publish(CONFIG_CHANNEL, section.version))

    async def _published(self) -> Mark | None:
        """Returns the version that is published; None where none is, or not all of it, as after an eviction."""
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.get(CONFIG_VERSION)
            pipe.hstrlen(CONFIG_SECTIONS, published.ROUTES)
            mark, whole = await pipe.execute()
        return published.decode_mark(mark) if whole else None

    async def _write(self, section: published.RoutesSection) -> None:
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.hset(CONFIG_SECTIONS, published.ROUTES, published.encode_routes(section))
            pipe.set(CONFIG_VERSION, published.encode_mark(section.mark))
            await pipe.execute()

    async def run(self) -> None:
        """Publishes what changes until it is cancelled."""
        await keep_published(
            self.publish, self._wanted, lambda error: f"not published: {type(error).__name__}: {error}"
        )
