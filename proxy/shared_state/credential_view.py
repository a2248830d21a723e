"""A worker's view of the published credentials: all at the start, then what changed, in pieces that hold nothing up.

What it cannot read it leaves, with one log line. A Redis that is empty, or being filled, changes nothing. The
credentials lie on disk too, for a start without Redis; their secrets are encrypted there as they are in Redis.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable
from typing import Any

from redis.exceptions import RedisError

from proxy.rules.credentials import Credential
from proxy.shared_state.ban_view import BanView
from proxy.shared_state.breaker import Guard, StoreUnavailable
from proxy.shared_state.client import Client
from proxy.shared_state.credential_file import CredentialFile
from proxy.shared_state.keys import CREDENTIALS, CREDENTIALS_CHANGES
from proxy.shared_state.linked_key_pool import CredentialUser
from proxy.shared_state.published import UNREADABLE
from proxy.shared_state.published_credentials import CHUNK, GENERATION, Published, begun, decode_credential, published

log = logging.getLogger("relaygate")

POLL_S = 1.0
"""The longest that a change stays unseen where its announcement was lost."""
CHANGES_MAX = 10_000
"""From so many changes on, all are read."""
KEEP_S = 30.0
"""So often at most are 15 MB of 100,000 credentials written to disk."""


class CredentialView:
    """Gives `user` the credentials that he does not have yet, and takes back those that are gone."""

    def __init__(self, client: Client, guard: Guard, user: CredentialUser, bans: BanView, file: CredentialFile) -> None:
        self._client = client
        self._guard = guard
        self._user = user
        self._bans = bans
        self._file = file
        self._records: dict[str, Credential] = {}
        self._known: Published | None = None
        self._kept: Published | None = None
        self._keep_at_s = 0.0
        self._wanted = asyncio.Event()

    @property
    def known(self) -> Published | None:
        """Which version is in use, whole."""
        return self._known

    def refresh_soon(self) -> None:
        self._wanted.set()

    async def begin(self) -> None:
        """Gives what lay on disk, until Redis tells more."""
        found = await asyncio.to_thread(self._file.read)
        if found is None:
            return
        try:
            self._known = self._kept = found.published
            for chunk in found.chunks():
                self._give(chunk)
                await asyncio.sleep(0)
            self._user.complete = True
        except UNREADABLE:
            self._known = self._kept = None

    async def follow(self) -> None:
        """Follows what is published until it is cancelled."""
        while True:
            self._wanted.clear()
            try:
                await self.refresh()
                await self._keep()
            except (StoreUnavailable, RedisError, OSError):  # the guard tells of it
                pass
            except Exception as error:
                self._known = None
                log.error("credentials are read anew: %s", type(error).__name__)  # noqa: TRY400 - a line, not a traceback
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._wanted.wait()

    async def refresh(self) -> None:
        """Takes what is published and not in use yet. Raises StoreUnavailable, RedisError."""
        while True:
            found = await published(self._client, self._guard)
            if found is None:
                self._user.complete |= not await begun(self._client, self._guard)
                return
            if found == self._known:
                self._user.complete = True
                return
            known = self._known
            read = known is not None and follows(known, found) and await self._read_changes(known)
            if not read and not await self._read_all(found):
                return  # it is being written anew
            self._known = found

    async def _read_changes(self, known: Published) -> bool:
        """Reads what later versions than the known have changed. Returns False where all is to be read instead."""
        names: Any = await self._guard.call(
            lambda: self._client.zrangebyscore(
                CREDENTIALS_CHANGES, f"({known.mark.version}", "+inf", start=0, num=CHANGES_MAX + 1
            )
        )
        if len(names) > CHANGES_MAX:
            return False
        for first in range(0, len(names), CHUNK):
            chunk = names[first : first + CHUNK]
            fields = [GENERATION, *chunk]
            values: Any = await self._guard.call(lambda fields=fields: self._client.hmget(CREDENTIALS, fields))  # type: ignore[misc]
            if values[0] != known.generation:  # lost, or written anew: absent does not mean gone
                return False
            records = dict(zip(chunk, values[1:], strict=True))
            self._give(self._decoded(records))
            self._take_back([name.decode(errors="replace") for name, data in records.items() if data is None])
        return True

    async def _read_all(self, found: Published) -> bool:
        """Reads all. Returns False where that could not be done to its end: then nothing is gone."""
        seen: set[str] = set()
        cursor = 0
        while True:
            answer: Any = await self._guard.call(lambda at=cursor: self._client.hscan(CREDENTIALS, at, count=CHUNK))  # type: ignore[misc]
            cursor, records = answer
            records.pop(GENERATION, None)
            seen.update(name.decode(errors="replace") for name in records)
            self._give(self._decoded(records))
            if not int(cursor):
                break
        after = await published(self._client, self._guard)
        if after is None or after.generation != found.generation:
            return False
        gone = [name for name in self._records if name not in seen]
        for first in range(0, len(gone), CHUNK):
            self._take_back(gone[first : first + CHUNK])
            await asyncio.sleep(0)
        return True

    def _decoded(self, records: dict[bytes, bytes | None]) -> Iterable[Credential]:
        unreadable = []
        for name, data in records.items():
            if data is not None:
                try:
                    yield decode_credential(data)
                except UNREADABLE:
                    unreadable.append(name)
        if unreadable:
            log.error("%d published credentials cannot be read, such as %a", len(unreadable), unreadable[0])

    def _give(self, credentials: Iterable[Credential]) -> None:
        changed = [each for each in credentials if self._records.get(each.id) != each]
        if changed:
            self._user.credentials_changed(changed, [])
            self._records.update((each.id, each) for each in changed)

    def _take_back(self, names: list[str]) -> None:
        gone = [name for name in names if name in self._records]
        if gone:
            self._user.credentials_changed([], gone)
            self._bans.forget(set(gone))
            for name in gone:
                del self._records[name]

    async def _keep(self) -> None:
        """Keeps on disk what is in use, unless it is there, or something else was written a moment ago."""
        known = self._known
        if known is None or known == self._kept or time.monotonic() < self._keep_at_s:
            return
        self._keep_at_s = time.monotonic() + KEEP_S
        content = self._file.content(known)
        credentials = list(self._records.values())
        for first in range(0, len(credentials), CHUNK):
            content.add(credentials[first : first + CHUNK])
            await asyncio.sleep(0)
        if await asyncio.to_thread(self._file.write, content):
            self._kept = known


def follows(known: Published, found: Published) -> bool:
    """Tells whether what changed between two versions says all that is different."""
    same = (known.generation, known.mark.made_ms) == (found.generation, found.mark.made_ms)
    return same and known.mark.version < found.mark.version
