"""From SQL to Redis: credentials, of which only what changed is published, their secrets as encrypted as they are.

A change calls `publish_soon`; once a second it is checked all the same, as the configuration is (`publisher.py`).
"""

import asyncio

from admin.publishing import keep_published
from admin.services.credential_feed import CredentialFeed
from proxy.shared_state.breaker import Guard
from proxy.shared_state.client import Client
from proxy.shared_state.published_credentials import publish_credentials, published_mark


class CredentialPublisher:
    """Keeps what is published the newest that there is."""

    def __init__(self, client: Client, guard: Guard, feed: CredentialFeed) -> None:
        self._client = client
        self._guard = guard
        self._feed = feed
        self._wanted = asyncio.Event()

    def publish_soon(self) -> None:
        self._wanted.set()

    async def publish(self) -> None:
        """Publishes the newest version, unless that is done. Raises StoreUnavailable, DatabaseDown."""
        known = await published_mark(self._client, self._guard)
        if known is not None and known == await self._feed.mark():
            return
        changes = await self._feed.since(known)
        await publish_credentials(
            self._client, self._guard, changes.changed, changes.gone, changes.mark, changes.replace
        )

    async def run(self) -> None:
        """Publishes what changes until it is cancelled. No text of an error is told: it could have a secret in it."""
        await keep_published(
            self.publish, self._wanted, lambda error: f"credentials are not published: {type(error).__name__}"
        )
