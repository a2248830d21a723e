"""The bans that workers know, which lie in Redis: what an operator, or a test of a key, does to them."""

import logging
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from proxy.rules.credentials import ALL_MODELS, Ban, BanCause
from proxy.shared_state.bans import BanStore
from proxy.shared_state.breaker import Guard, StoreUnavailable
from proxy.shared_state.client import Client

log = logging.getLogger("relaygate")

ATTEMPTS = 3
"""To change one ban, which workers may change at the same time."""


class BanName(NamedTuple):
    """What a ban is kept under."""

    credential: str
    model: str


class KnownBans(Protocol):
    """What a service does to bans."""

    async def begin(self, credential: str, ban: Ban) -> bool:
        """Bans a credential for all models, unless it is banned; returns whether it did."""

    async def end(self, bans: Sequence[BanName]) -> None:
        """Ends bans. Those that are none are no error."""


class NoBans:
    """Where there are no workers to know any."""

    async def begin(self, _credential: str, _ban: Ban) -> bool:
        return True

    async def end(self, _bans: Sequence[BanName]) -> None:
        """There are none."""


class NoWorkers:
    """Where workers would be told by a Redis that is not there: nobody is banned, or it would only look so."""

    async def begin(self, _credential: str, _ban: Ban) -> bool:
        return False

    async def end(self, _bans: Sequence[BanName]) -> None:
        """Nobody could be told."""


class SharedBans:
    """The bans in Redis. While that is away, nothing is done to them, which is told in the log."""

    def __init__(self, client: Client, guard: Guard) -> None:
        self._client = client
        self._guard = guard

    async def begin(self, credential: str, ban: Ban) -> bool:
        try:
            return await self._put(BanName(credential, ALL_MODELS), ban)
        except StoreUnavailable as error:
            log.warning("credential %s is not banned: redis is unavailable (%s)", credential, error.reason)
            return False

    async def end(self, bans: Sequence[BanName]) -> None:
        for done, ban in enumerate(bans):
            try:
                await self._put(ban, None)
            except StoreUnavailable as error:
                log.warning("bans are not ended, %d of them: redis is unavailable (%s)", len(bans) - done, error.reason)
                return

    async def _put(self, name: BanName, ban: Ban | None) -> bool:
        """Writes a ban, or removes one. A ban that is there already is not written over."""
        store = BanStore(self._client, self._guard)  # one that remembers nothing from one call to the next
        put = await store.put(*name, None, ban)
        for _ in range(ATTEMPTS):
            if put.won or put.there is None or (ban is not None and put.there.cause is not BanCause.COUNTING):
                break
            put = await store.put(*name, put.there, ban)
        return put.won
