"""A worker's view of all bans: told of each change with the ban itself, and reading what it was not told of.

The law of this file: Redis says what a ban is, but for what it has lost. Changes are numbered, so a gap shows; a number
smaller than known shows that Redis went back to an earlier state or to none, and then each worker puts back what it
knows wherever nothing is.
"""

import itertools
import logging
from typing import Any

import msgspec

from proxy.shared_state.bans import KIND, SEPARATOR, BanStore, decode_ban, split_field
from proxy.shared_state.breaker import Guard, StoreUnavailable
from proxy.shared_state.client import Client
from proxy.shared_state.keys import BANS, BANS_CHANGES, BANS_VERSION
from proxy.shared_state.linked_key_pool import CredentialUser

log = logging.getLogger("relaygate")

CHUNK = 500
"""So many are read by one call: a millisecond's work for Redis and for the loop."""
CHANGES_MAX = 10_000
"""From so many changes on, all are read."""
OFFERS_MAX = 100
"""So many are put by one refresh, a call each; then announcements have their turn."""


class Announcement(msgspec.Struct, array_like=True, frozen=True):
    """A change of one ban, with what it left (None: nothing)."""

    kind: str
    number: int
    field: bytes
    data: bytes | None


decode_announcement = msgspec.msgpack.Decoder(Announcement).decode


class BanView:
    """Keeps the `known` of a store up to date, and tells `user` of each change that he did not make himself."""

    def __init__(self, client: Client, guard: Guard, store: BanStore, user: CredentialUser) -> None:
        self._client = client
        self._guard = guard
        self._store = store
        self._user = user
        self._number = 0
        """Up to which change all are known."""
        self._all = True
        self._stale = True

    @property
    def behind(self) -> bool:
        """Whether there is reason to refresh at once."""
        return self._stale

    def distrust(self) -> None:
        """Has all read at the next refresh: the connection was lost, and Redis may be another one, or an earlier."""
        self._all = self._stale = True

    def hear(self, data: bytes) -> None:
        """Takes an announcement. Raises one of `published.UNREADABLE` where it is none."""
        said = decode_announcement(data)
        if said.kind != KIND:
            return
        if said.number <= self._number:  # read already, unless Redis counts anew
            known = self._store.known.get(said.field)
            self._stale |= (None if known is None else known.data) != said.data
            return
        if said.number == self._number + 1:
            self._number = said.number
        else:
            self._stale = True
        self._take(said.field, said.data or b"", said.number)

    async def refresh(self) -> None:
        """Reads what changed unheard, and puts what could not be put. Raises StoreUnavailable, RedisError."""
        number = number_of(await self._guard.call(lambda: self._client.get(BANS_VERSION)))
        if self._all or number < self._number or not await self._read_changes(number):
            await self._read_all(number)
        self._stale = await self._offer()

    def forget(self, credentials: set[str]) -> None:
        """Forgets the bans of credentials that are gone."""
        names = {name.encode() for name in credentials}
        for table in (self._store.known, self._store.unshared):
            for field in [field for field in table if field.partition(SEPARATOR)[0] in names]:
                del table[field]

    async def _read_changes(self, number: int) -> bool:
        """Reads what changed since the last change that is known. Returns False where that is too much."""
        if number == self._number:
            return True
        found: Any = await self._guard.call(
            lambda: self._client.zrangebyscore(
                BANS_CHANGES, f"({self._number}", "+inf", start=0, num=CHANGES_MAX + 1, withscores=True
            )
        )
        if len(found) > CHANGES_MAX:
            return False
        changes = [(field, int(score)) for field, score in found]
        for first in range(0, len(changes), CHUNK):
            fields = [field for field, _ in changes[first : first + CHUNK]]
            values: Any = await self._guard.call(lambda fields=fields: self._client.hmget(BANS, fields))  # type: ignore[misc]
            for (field, at), data in zip(changes[first:], values, strict=False):
                self._take(field, data or b"", at)
        self._number = changes[-1][1] if changes else number
        return True

    async def _read_all(self, number: int) -> None:
        lost = number < self._number
        if lost:  # numbers that are given out anew
            for field, known in self._store.known.items():
                self._store.known[field] = known._replace(number=0)
        seen: set[bytes] = set()
        cursor = 0
        while True:
            found: Any = await self._guard.call(lambda at=cursor: self._client.hscan(BANS, at, count=CHUNK))  # type: ignore[misc]
            cursor, bans = found
            for field, data in bans.items():
                seen.add(field)
                self._take(field, data, number)
            if not int(cursor):
                break
        lost |= number_of(await self._guard.call(lambda: self._client.get(BANS_VERSION))) < number
        missing = [(field, known) for field, known in self._store.known.items() if field not in seen]
        for field, known in missing:
            if lost:
                del self._store.known[field]
                self._store.unshared.setdefault(field, decode_ban(known.data))
            elif known.number <= number:  # or else it was put while we read
                self._take(field, b"", number)
        if lost and missing:
            log.warning("redis has lost %d bans; they are put back", len(missing))
        self._number = number
        self._all = False

    async def _offer(self) -> bool:
        """Puts what could not be put before, or was lost. Where something else is there by now, that holds.

        Returns whether more of it waits.
        """
        for field in list(itertools.islice(self._store.unshared, OFFERS_MAX)):
            if field not in self._store.unshared:
                continue
            new = self._store.unshared.pop(field)
            known = self._store.known.get(field)
            credential, model = split_field(field)
            try:
                put = await self._store.put(credential, model, None if known is None else decode_ban(known.data), new)
            except StoreUnavailable:
                return False
            if not put.won and put.there != new:
                self._user.ban_changed(credential, model, put.there)
        return bool(self._store.unshared)

    def _take(self, field: bytes, data: bytes, number: int) -> None:
        known = self._store.known.get(field)
        if known is not None and number < known.number:
            return
        if data == (b"" if known is None else known.data):
            return
        self._store.unshared.pop(field, None)
        self._user.ban_changed(*split_field(field), decode_ban(data))
        self._store.note(field, data, number)


def number_of(data: object) -> int:
    """Returns the number of the last change as it lies in Redis; 0 where there is none, or no number."""
    return int(data) if isinstance(data, bytes) and data.isdigit() and len(data) < 20 else 0
