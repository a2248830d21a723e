"""Hears that somebody wants the listener's certificate to be loaded again, which is for a worker's parent to do.

All workers of a parent hear it and ask. It loads the files for each of them, and replaces workers for the first.
"""

import asyncio
from collections.abc import Callable

from redis.exceptions import RedisError

from proxy.shared_state.breaker import Guard, StoreUnavailable
from proxy.shared_state.client import Client
from proxy.shared_state.keys import RELOAD_TLS, RELOAD_TLS_CHANNEL

POLL_S = 1.0
"""The longest that a wish stays unheard where its announcement was lost."""


class TlsFeed:
    """Follows the number at `RELOAD_TLS`, and calls `renew` when it is another one than before.

    The first that is read is none: the parent has read the files a moment ago, and looks at them each second anyway.
    """

    def __init__(self, client: Client, guard: Guard, renew: Callable[[], None]) -> None:
        self._client = client
        self._guard = guard
        self._renew = renew
        self._known = b""
        self._has_begun = False

    async def refresh(self) -> None:
        """Looks at the number. Raises StoreUnavailable."""
        found = await self._guard.call(lambda: self._client.get(RELOAD_TLS))
        number = found if isinstance(found, bytes) else b""
        if self._has_begun and number != self._known:
            self._renew()
        self._known = number
        self._has_begun = True

    async def follow(self) -> None:
        """Follows the number until it is cancelled."""
        while True:
            try:
                await self._follow_announcements()
            except (StoreUnavailable, RedisError, OSError):  # the guard tells of it
                await asyncio.sleep(POLL_S)

    async def _follow_announcements(self) -> None:
        async with self._client.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(RELOAD_TLS_CHANNEL)
            while True:
                await self.refresh()
                await channel.get_message(timeout=POLL_S)
