"""From SQL to Redis: access tokens, of which only what was edited is published, and all where Redis may lack some.

A counter lives in Redis, and SQL follows it. Where Redis has started anew it may have lost its latest changes, which
SQL has by then: what lies in the ledger's stream is taken, nothing is admitted, and each counter that has changed
oftener in SQL is SQL's, before anything is admitted again (`publish_tokens.lua`).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from redis.asyncio import RedisCluster

from admin.publishing import keep_published
from admin.services.token_feed import TokenFeed
from proxy.shared_state.breaker import Guard
from proxy.shared_state.client import Client
from proxy.shared_state.keys import METER_FILLED, METER_READY, METER_TOKEN
from proxy.shared_state.token_store import TokenStore

DIGEST_CHARACTERS = 64
SCANNED = 1000
"""Keys that Redis looks through at once when it is asked which there are."""


class TokenPublisher:
    """Keeps what is published the newest that there is. `take_ledger` brings into SQL all that the ledger's stream has.

    `take_ledger` raises where it cannot do so.
    """

    def __init__(
        self, client: Client, guard: Guard, feed: TokenFeed, take_ledger: Callable[[], Awaitable[None]]
    ) -> None:
        self._client = client
        self._guard = guard
        self._store = TokenStore(client, guard)
        self._feed = feed
        self._take_ledger = take_ledger
        self._wanted = asyncio.Event()
        self._revision = -1
        self._told = asyncio.Condition()
        self._refill = False

    def refill_soon(self) -> None:
        """Has all counters compared: Redis has lost changes that SQL has."""
        self._refill = True
        self._wanted.set()

    async def published(self, revision: int) -> bool:
        """Waits until Redis has an edit, however long that takes; returns True then."""
        self._wanted.set()
        async with self._told:
            await self._told.wait_for(lambda: self._revision >= revision)
        return True

    async def publish(self) -> None:
        """Publishes what is new, or all. Raises StoreUnavailable, DatabaseDown."""
        here = await self._here()
        ready, filled = await self._guard.call(lambda: self._client.mget(METER_READY, METER_FILLED))
        known = await self._store.revision()
        newest = await self._feed.revision()
        if ready and filled == here and known <= newest and not self._refill:
            if known < newest:
                await self._publish_since(known)
        else:
            if known > newest:
                await self._feed.overtake(known)
            newest = await self._fill(here)
        if known != newest:
            await self._store.set_revision(newest)
        async with self._told:
            self._revision = newest
            self._told.notify_all()

    async def run(self) -> None:
        """Publishes what changes until it is cancelled."""
        await keep_published(
            self.publish, self._wanted, lambda error: f"access tokens are not published: {type(error).__name__}"
        )

    async def forget_deleted(self) -> None:
        """Removes from Redis what was deleted long ago. Raises StoreUnavailable, DatabaseDown."""
        await self._store.forget(await self._feed.long_deleted())

    async def _fill(self, here: bytes) -> int:
        """Publishes all; returns up to which revision. While SQL cannot be asked, Redis goes on with what it has."""
        await self._take_ledger()
        self._refill = False
        await self._guard.call(lambda: self._client.delete(METER_READY))
        await self._take_ledger()
        newest = await self._feed.revision()
        await self._publish_since(-1)
        async for digests in self._digests():
            await self._store.forget(await self._feed.strays(digests))
        await self._guard.call(lambda: self._client.set(METER_FILLED, here))
        await self._store.set_ready()
        return newest

    async def _publish_since(self, revision: int) -> None:
        async for tokens in self._feed.since(revision):
            await self._store.publish(tokens)

    async def _here(self) -> bytes:
        """Names this start of Redis, and the database."""
        about: dict[str, Any] = await self._guard.call(self._about)
        return f"{about.get('run_id', '')}@{await self._feed.made_ms()}".encode()

    async def _about(self) -> Any:
        return await self._client.info("server", **await self._target())

    async def _target(self) -> dict[str, Any]:
        """The node of a cluster that has the access tokens."""
        if not isinstance(self._client, RedisCluster):
            return {}
        await self._client.initialize()
        return {"target_nodes": self._client.get_node_from_key(METER_READY)}

    async def _digests(self) -> AsyncIterator[Sequence[str]]:
        """The digests of all tokens in Redis."""
        cursor = 0
        while True:
            cursor, names = await self._guard.call(lambda at=cursor: self._scan(at))  # type: ignore[misc]
            digests = [
                digest for name in names if len(digest := name.decode()[len(METER_TOKEN) :]) == DIGEST_CHARACTERS
            ]
            if digests:
                yield digests
            if not cursor:
                return

    async def _scan(self, cursor: int) -> tuple[int, list[bytes]]:
        pattern = METER_TOKEN + "*"
        answer: Any = await self._client.scan(cursor, pattern, SCANNED, **await self._target())
        found, names = answer
        return (next(iter(found.values())) if isinstance(found, dict) else int(found)), names
