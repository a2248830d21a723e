"""What a worker hears of credentials and bans: one channel for both, which `CredentialView` and `BanView` listen to.

A ban's announcement carries the ban, so it holds here as soon as it is heard. Of credentials, only the new version is
announced, and they are read in a task of their own: bans do not wait while 100,000 credentials come in.
"""

import asyncio
import logging
from pathlib import Path

import msgspec
from redis.exceptions import RedisError

from proxy.shared_state import bans, published_credentials
from proxy.shared_state.ban_view import BanView
from proxy.shared_state.bans import BanStore
from proxy.shared_state.breaker import Guard, StoreUnavailable
from proxy.shared_state.client import Client
from proxy.shared_state.credential_file import CredentialFile
from proxy.shared_state.credential_view import POLL_S, CredentialView
from proxy.shared_state.keys import CREDENTIALS_CHANNEL
from proxy.shared_state.linked_key_pool import CredentialUser
from proxy.shared_state.published import UNREADABLE

log = logging.getLogger("relaygate")

RETRY_S = 0.5


class CredentialFeed:
    """Follows credentials and bans. `bans` is what the worker writes its own bans with."""

    def __init__(self, client: Client, guard: Guard, user: CredentialUser, last_good: Path) -> None:
        self._client = client
        self.bans = BanStore(client, guard)
        self.ban_view = BanView(client, guard, self.bans, user)
        self.credentials = CredentialView(client, guard, user, self.ban_view, CredentialFile(last_good))

    async def refresh(self) -> None:
        """Reads what is there. Raises StoreUnavailable, RedisError."""
        await self.ban_view.refresh()
        await self.credentials.refresh()

    async def listen(self) -> None:
        """Listens to the channel, and follows bans, until it is cancelled."""
        while True:
            try:
                await self._listen_once()
            except (StoreUnavailable, RedisError, OSError):  # the guard tells of it
                pass
            except Exception as error:
                log.error("bans are read anew: %s", type(error).__name__)  # noqa: TRY400 - a line, not a traceback
            await asyncio.sleep(RETRY_S)

    async def _listen_once(self) -> None:
        now_s = asyncio.get_running_loop().time
        async with self._client.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(CREDENTIALS_CHANNEL)
            await channel.get_message(timeout=POLL_S)  # the confirmation: from here on nothing is missed
            self.ban_view.distrust()
            self.credentials.refresh_soon()
            poll_at_s = 0.0
            while True:
                wait_s = 0.0 if self.ban_view.behind else poll_at_s - now_s()
                message = await channel.get_message(timeout=max(0.0, wait_s))
                if message is not None:
                    self._hear(message["data"])
                    await asyncio.sleep(0)  # hundreds may have come at once, and are given out without a wait
                if message is None or now_s() >= poll_at_s:
                    await self.ban_view.refresh()
                    poll_at_s = now_s() + POLL_S

    def _hear(self, data: bytes) -> None:
        try:
            kind = _decode_kind(data).kind
            if kind == bans.KIND:
                self.ban_view.hear(data)
            elif kind == published_credentials.KIND:
                self.credentials.refresh_soon()
        except UNREADABLE:  # not ours: what is read says what is the case
            pass


class _Kind(msgspec.Struct, array_like=True):
    kind: str


_decode_kind = msgspec.msgpack.Decoder(_Kind).decode
