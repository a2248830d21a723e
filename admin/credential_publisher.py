"""From SQL to Redis: credentials, of which only what changed is published, their secrets as encrypted as they are.

A change calls `publish_soon`; once a second it is checked all the same, as the configuration is (`publisher.py`).
"""

import asyncio
import logging

from admin.database import DatabaseDown
from admin.services.credential_feed import CredentialFeed
from proxy.shared_state.breaker import Guard, StoreUnavailable
from proxy.shared_state.client import Client
from proxy.shared_state.published_credentials import publish_credentials, published_mark

log = logging.getLogger("relaygate")

CHECK_S = 1.0


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
        """Publishes what changes until it is cancelled."""
        told = ""
        while True:
            self._wanted.clear()
            try:
                await self.publish()
                told = ""
            except (StoreUnavailable, DatabaseDown):  # their state is told where it changes
                pass
            except Exception as error:
                problem = type(error).__name__  # its text could have a secret in it, though an encrypted one
                if problem != told:
                    log.error("credentials are not published: %s", problem)  # noqa: TRY400 - a line, not a traceback
                told = problem
            try:
                async with asyncio.timeout(CHECK_S):
                    await self._wanted.wait()
            except TimeoutError:
                pass
