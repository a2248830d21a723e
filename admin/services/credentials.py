"""Credentials, above all keys: to be added, read, changed and removed. What workers are to know of is published.

Those that are added at once are added a few thousand in a transaction, so that nobody waits for all of them. `actor` is
for the log of actions, which whoever asks writes.
"""

import asyncio
import builtins
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from admin.database import Database
from admin.rules import credential_marks, key_lists
from admin.rules.key_lists import InvalidLine, NewCredential
from admin.rules.key_records import LineOutcome, LineResult, Position, Status, TestResult, Wanted
from admin.services import credential_additions, credential_changes, credential_exports, credential_lists
from admin.services.credential_additions import purpose
from admin.services.credential_bans import KnownBans, NoBans
from admin.services.credential_exports import Exported
from admin.services.credential_rows import COLUMNS, StoredCredential, stored
from admin.services.edits import read_key_pool
from admin.services.failures import DuplicateKey, InvalidCredential, NoSuchGroup, NoSuchKey
from admin.tables import credentials
from proxy.rules.credentials import DEFAULT_GROUP, Kind
from proxy.secrets import Secrets

T = TypeVar("T")

CHUNK = 2000
"""Credentials added in a transaction, which lasts a fifth of a second then."""

_ROW = credentials.c


def _silent(_: object = None) -> None:
    """Tells nobody."""


class Credentials:
    """All credentials. `now_ms` is the clock, in milliseconds since 1970; `bans` are those that workers know."""

    def __init__(
        self, database: Database, secrets: Secrets, now_ms: Callable[[], int], bans: KnownBans | None = None
    ) -> None:
        self._database = database
        self._secrets = secrets
        self._now_ms = now_ms
        self._bans = bans or NoBans()
        self.notify: Callable[[], object] = _silent
        """Called after each change that is to be published."""

    async def create(
        self, *, secret: str, notes: str = "", group: str = DEFAULT_GROUP, actor: str = ""
    ) -> StoredCredential:
        """Raises InvalidCredential, DuplicateKey, NoSuchGroup."""
        wanted = key_lists.checked(NewCredential(secret=secret, notes=notes, group=group))
        if isinstance(wanted, InvalidLine):
            raise InvalidCredential(wanted.reason)
        (made,) = await self.create_many(keys=[wanted], actor=actor)
        if made.outcome is LineOutcome.INVALID:
            raise NoSuchGroup(group)
        if made.outcome is LineOutcome.DUPLICATE:
            raise DuplicateKey(made.id)
        return await self.existing(id=made.id or "")

    async def create_many(
        self, *, keys: Sequence[key_lists.Read], actor: str = "", progress: Callable[[int], object] = _silent
    ) -> Sequence[LineResult]:
        """Adds those that can be used and are not there yet; returns what became of each, in their order.

        It is several transactions: what was added before one that fails stays. `progress` is told how many are done.
        """
        del actor
        results: list[LineResult] = []
        for start in range(0, len(keys), CHUNK):
            results += await self._add(keys[start : start + CHUNK])
            progress(len(results))
        return results

    async def import_text(
        self, *, text: str, group: str = DEFAULT_GROUP, actor: str = "", progress: Callable[[int], object] = _silent
    ) -> Sequence[LineResult]:
        """Adds what a list of keys has (`rules/key_lists.py`): text, CSV or JSON."""
        keys = await asyncio.to_thread(key_lists.read, text, group)
        return await self.create_many(keys=keys, actor=actor, progress=progress)

    async def put(self, *, id: str, secret: str, kind: Kind, notes: str = "") -> StoredCredential:  # noqa: A002
        """Makes a credential of that id, or gives the one that is there another secret. Raises InvalidCredential."""
        wanted = key_lists.checked(NewCredential(secret=secret, notes=notes))
        if isinstance(wanted, InvalidLine):
            raise InvalidCredential(wanted.reason)
        await self._publishing(
            lambda connection: credential_additions.put(connection, self._secrets, id, wanted, kind, self._now_ms())
        )
        return await self.existing(id=id)

    async def get(self, *, id: str) -> StoredCredential | None:  # noqa: A002 - the word for it
        async with self._database.read() as connection:
            row = (await connection.execute(select(*COLUMNS).where(_ROW.id == id))).one_or_none()
        return None if row is None else stored(row, self._now_ms())

    async def existing(self, *, id: str) -> StoredCredential:  # noqa: A002
        """Raises NoSuchKey."""
        found = await self.get(id=id)
        if found is None:
            raise NoSuchKey(id)
        return found

    async def list(
        self, *, wanted: Wanted, limit: int, after: Position | None = None, offset: int = 0
    ) -> Sequence[StoredCredential]:
        """Keys, oldest first: those behind `after`, if it is given, without the first `offset`."""
        async with self._database.read() as connection:
            return await credential_lists.some(connection, wanted, limit, after, offset, self._now_ms())

    async def count(self, *, wanted: Wanted) -> int:
        async with self._database.read() as connection:
            return await credential_lists.count(connection, wanted, self._now_ms())

    async def update(
        self,
        *,
        id: str,  # noqa: A002
        actor: str = "",
        notes: str | None = None,
        group: str | None = None,
        status: Status | None = None,
        tokens: tuple[int | None, int | None] | None = None,
    ) -> StoredCredential:
        """Changes what is given; status ACTIVE ends its bans. `tokens` are those used, and those there are in all.

        Raises NoSuchKey, NoSuchGroup, InvalidCredential.
        """
        before = await self.existing(id=id)
        values: dict[str, Any] = {}
        if notes is not None:
            values["notes"] = _checked_notes(notes)
            values["search"] = credential_marks.search_text(id, before.masked, notes)
        if group is not None:
            values["pool_group"] = group
        if status is not None:
            values["status"] = _given_status(status)
        if tokens is not None:
            values["tokens_used"], values["tokens_total"] = tokens
        if values and await self._change([id], values, actor) == 0:
            raise NoSuchKey(id)
        return await self.existing(id=id)

    async def toggle(self, *, id: str, actor: str = "") -> StoredCredential:  # noqa: A002
        """Disables what is active, and makes active what is disabled or banned. Raises NoSuchKey."""
        now = await self.existing(id=id)
        wanted = Status.DISABLED if now.status is Status.ACTIVE else Status.ACTIVE
        return await self.update(id=id, status=wanted, actor=actor)

    async def set_status(self, *, ids: Collection[str], status: Status, actor: str = "") -> int:
        """Returns how many of these there are; the others are no error. Raises InvalidCredential."""
        return await self._change(ids, {"status": _given_status(status)}, actor)

    async def move(self, *, ids: Collection[str], group: str, actor: str = "") -> int:
        """Moves credentials to a group; returns how many of these there are. Raises NoSuchGroup."""
        return await self._change(ids, {"pool_group": group}, actor)

    async def delete(self, *, id: str, actor: str = "") -> None:  # noqa: A002
        """Raises NoSuchKey."""
        if not await self.delete_many(ids=[id], actor=actor):
            raise NoSuchKey(id)

    async def delete_many(self, *, ids: Collection[str], actor: str = "") -> Sequence[str]:
        """Returns the ids that were there; the others are no error."""
        del actor
        return await self._publishing(lambda connection: credential_changes.remove(connection, ids, self._now_ms()))

    async def delete_all_of(self, *, status: Status, actor: str = "") -> int:
        """Returns how many there were, of which there may be all."""
        del actor
        return await self._publishing(
            lambda connection: credential_changes.remove_all_of(connection, status, self._now_ms())
        )

    async def reveal(self, *, id: str) -> str:  # noqa: A002
        """The secret. Raises NoSuchKey, SecretError."""
        async with self._database.read() as connection:
            secret = await connection.scalar(select(_ROW.secret).where(_ROW.id == id))
        if secret is None:
            raise NoSuchKey(id)
        return self._secrets.decrypt(secret, purpose(id))

    async def export(self, *, status: Status | None = None, group: str | None = None) -> Sequence[str]:
        """The secrets of all keys, or those of a status or group, oldest first. Raises SecretError."""
        return [one.secret async for one in self.exported(status=status, group=group)]

    def exported(self, *, status: Status | None = None, group: str | None = None) -> AsyncIterator[Exported]:
        """The same as a stream, with notes, group and status."""
        return credential_exports.export(self._database, self._secrets, status, group, self._now_ms)

    async def record_test(
        self,
        *,
        id: str,  # noqa: A002
        result: TestResult,
        problem: str | None,
        http_status: int,
        status: Status | None,
    ) -> None:
        """Notes a test that just ended. BANNED bans it in all workers, as the settings say. Raises NoSuchKey."""
        now_ms = self._now_ms()
        values: dict[str, Any] = {"last_test_at": now_ms, "last_test_result": result}
        if problem is not None:
            values |= {"last_error": problem[:64], "last_error_status": http_status or None, "last_error_at": now_ms}
        if await self._database.transact(lambda connection: credential_changes.note(connection, id, values)) == 0:
            raise NoSuchKey(id)
        if status is Status.BANNED:
            await self._ban(id, http_status)
        elif status is not None:
            await self._change([id], {"status": status}, "")

    async def _ban(self, id: str, http_status: int) -> None:  # noqa: A002
        async with self._database.read() as connection:
            pool = await read_key_pool(connection)
        now_ms = self._now_ms()
        ban = credential_changes.out_of_quota(now_ms, pool.ban_s, http_status)
        if await self._bans.begin(id, ban):
            values = credential_changes.mirrored(ban)
            await self._database.transact(lambda connection: credential_changes.note(connection, id, values))

    async def _add(self, part: Sequence[key_lists.Read]) -> Sequence[LineResult]:
        checked = await asyncio.to_thread(_checked, part)
        results = await self._database.transact(
            lambda connection: credential_additions.add(connection, self._secrets, checked, self._now_ms())
        )
        if any(one.outcome is LineOutcome.ADDED for one in results):
            self.notify()
        return results

    async def _change(self, ids: Collection[str], values: Mapping[str, Any], actor: str) -> int:
        del actor
        changed = await self._publishing(
            lambda connection: credential_changes.change(connection, ids, values, self._now_ms())
        )
        if changed.lifted:
            await self._bans.end(changed.lifted)
        return changed.there

    async def _publishing(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        done = await self._database.transact(work)
        self.notify()
        return done


def _checked(part: Sequence[key_lists.Read]) -> builtins.list[key_lists.Read]:
    return [one if isinstance(one, InvalidLine) else key_lists.checked(one) for one in part]


def _checked_notes(notes: str) -> str:
    if problem := key_lists.notes_problem(notes):
        raise InvalidCredential(problem)
    return notes


def _given_status(status: Status) -> Status:
    """Bans are workers' to make."""
    if status is Status.BANNED:
        raise InvalidCredential("expected the status active or disabled")
    return status
