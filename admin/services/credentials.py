"""Credentials: to be added, read, changed and removed. What workers are to know of is published as its own version.

Those that are added at once are added a few thousand in a transaction, so that nobody waits for all of them.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from admin.database import Database
from admin.rules import credential_marks, key_lists
from admin.rules.key_lists import InvalidLine, NewCredential
from admin.services import credential_additions, credential_changes, credential_exports, credential_lists
from admin.services.credential_additions import Became, Outcome, purpose
from admin.services.credential_changes import BanName
from admin.services.credential_exports import Exported
from admin.services.credential_lists import Filter, GroupCounts, Page
from admin.services.credential_rows import COLUMNS, Status, StoredCredential, TestResult, stored
from admin.services.failures import DuplicateCredential, InvalidCredential, NoSuchCredential
from admin.tables import credentials
from proxy.rules.credentials import DEFAULT_GROUP, Kind
from proxy.secrets import Secrets

T = TypeVar("T")

CHUNK = 2000
"""Credentials added in a transaction, which lasts a fifth of a second then."""

ALL = Filter()
"""Passes every credential."""

_ROW = credentials.c


def _silent(_: object = None) -> None:
    """Tells nobody."""


async def _no_bans(_: Sequence[BanName]) -> None:
    """There are none."""


class Credentials:
    """All credentials. `now_ms` is the clock, in milliseconds since 1970."""

    def __init__(self, database: Database, secrets: Secrets, now_ms: Callable[[], int]) -> None:
        self._database = database
        self._secrets = secrets
        self._now_ms = now_ms
        self.notify: Callable[[], object] = _silent
        """Called after each change that is to be published."""
        self.lift: Callable[[Sequence[BanName]], Awaitable[object]] = _no_bans
        """Called with the bans that an operator has ended, and those of credentials that are gone."""

    async def create(
        self, *, secret: str, notes: str = "", group: str = DEFAULT_GROUP, enabled: bool = True
    ) -> StoredCredential:
        """Raises InvalidCredential, which a group that is not there is too, and DuplicateCredential."""
        wanted = NewCredential(secret=secret, notes=notes, group=group, enabled=enabled)
        (outcome,) = await self.create_many(entries=[wanted])
        if outcome.became is Became.INVALID:
            raise InvalidCredential(outcome.reason)
        if outcome.became is Became.DUPLICATE:
            raise DuplicateCredential(outcome.id)
        return await self.existing(outcome.id or "")

    async def create_many(
        self, *, entries: Sequence[key_lists.Read], progress: Callable[[int], object] = _silent
    ) -> Sequence[Outcome]:
        """Adds those that can be used and are not there yet; returns what became of each, in their order.

        It is several transactions: what was added before one that fails stays. `progress` is told how many are done.
        """
        outcomes: list[Outcome] = []
        for start in range(0, len(entries), CHUNK):
            part = await asyncio.to_thread(_checked, entries[start : start + CHUNK])
            outcomes += await self._add(part)
            progress(len(outcomes))
        return outcomes

    async def import_text(
        self, *, text: str, group: str = DEFAULT_GROUP, progress: Callable[[int], object] = _silent
    ) -> Sequence[Outcome]:
        """Adds what a list of keys has (`rules/key_lists.py`): text, CSV or JSON."""
        entries = await asyncio.to_thread(key_lists.read, text, group)
        return await self.create_many(entries=entries, progress=progress)

    async def put(self, credential_id: str, *, secret: str, kind: Kind, notes: str = "") -> StoredCredential:
        """Makes a credential of that id, or gives the one that is there another secret. Raises InvalidCredential."""
        wanted = key_lists.checked(NewCredential(secret=secret, notes=notes))
        if isinstance(wanted, InvalidLine):
            raise InvalidCredential(wanted.reason)
        await self._publishing(
            lambda connection: credential_additions.put(
                connection, self._secrets, credential_id, wanted, kind, self._now_ms()
            )
        )
        return await self.existing(credential_id)

    async def get(self, credential_id: str) -> StoredCredential | None:
        async with self._database.read() as connection:
            row = (await connection.execute(select(*COLUMNS).where(_ROW.id == credential_id))).one_or_none()
        return None if row is None else stored(row, self._now_ms())

    async def existing(self, credential_id: str) -> StoredCredential:
        """Raises NoSuchCredential."""
        found = await self.get(credential_id)
        if found is None:
            raise NoSuchCredential(credential_id)
        return found

    async def reveal(self, credential_id: str) -> str:
        """The secret. Raises NoSuchCredential, SecretError."""
        async with self._database.read() as connection:
            secret = await connection.scalar(select(_ROW.secret).where(_ROW.id == credential_id))
        if secret is None:
            raise NoSuchCredential(credential_id)
        return self._secrets.decrypt(secret, purpose(credential_id))

    def export(self, *, status: Status | None = None) -> AsyncIterator[Exported]:
        """All with their secrets, or those of a status, in the order of a list. Raises SecretError."""
        return credential_exports.export(self._database, self._secrets, status, self._now_ms)

    async def list(self, *, wanted: Filter = ALL, after: str | None = None, limit: int = 100) -> Page:
        """At most `limit` behind the place `after` that an earlier page gave, as they were added."""
        async with self._database.read() as connection:
            return await credential_lists.behind(connection, wanted, after, limit, self._now_ms())

    async def page(self, *, wanted: Filter = ALL, page: int = 1, limit: int = 10) -> Page:
        """The same by number, from 1, with how many there are in all."""
        async with self._database.read() as connection:
            return await credential_lists.numbered(connection, wanted, page, limit, self._now_ms())

    async def counts(self) -> Sequence[GroupCounts]:
        """How many there are, by group and status."""
        async with self._database.read() as connection:
            return await credential_lists.counts(connection, self._now_ms())

    async def update(
        self,
        credential_id: str,
        *,
        notes: str | None = None,
        group: str | None = None,
        status: Status | None = None,
        tokens: tuple[int | None, int | None] | None = None,
    ) -> StoredCredential:
        """Changes what is given; status ACTIVE ends its bans. `tokens` are those used, and those there are in all.

        Raises NoSuchCredential, NoSuchGroup, InvalidCredential.
        """
        values: dict[str, Any] = {}
        if notes is not None:
            shown = (await self.existing(credential_id)).masked
            values["notes"] = _checked_notes(notes)
            values["search"] = credential_marks.search_text(credential_id, shown, notes)
        if group is not None:
            values["pool_group"] = group
        if status is not None:
            values["status"] = _given_status(status)
        if tokens is not None:
            values["tokens_used"], values["tokens_total"] = tokens
        if not values:
            return await self.existing(credential_id)
        if await self._change([credential_id], values) == 0:
            raise NoSuchCredential(credential_id)
        return await self.existing(credential_id)

    async def toggle(self, credential_id: str, *, status: Status | None = None) -> StoredCredential:
        """Gives it a status; without one, disables what is active and enables what is disabled or banned.

        Raises NoSuchCredential, InvalidCredential.
        """
        if status is None:
            now = await self.existing(credential_id)
            status = Status.DISABLED if now.status is Status.ACTIVE else Status.ACTIVE
        return await self.update(credential_id, status=status)

    async def set_status(self, *, ids: Collection[str], status: Status) -> int:
        """Returns how many of these there are; the others are no error. Raises InvalidCredential."""
        return await self._change(ids, {"status": _given_status(status)})

    async def move(self, *, ids: Collection[str], group: str) -> int:
        """Moves credentials to a group; returns how many of these there are. Raises NoSuchGroup."""
        return await self._change(ids, {"pool_group": group})

    async def tested(
        self, credential_id: str, *, result: TestResult, error: str | None = None, error_status: int | None = None
    ) -> None:
        """Notes what a test call came to; `error` is a word. It is no error if the credential is gone."""
        now_ms = self._now_ms()
        values: dict[str, Any] = {"last_test_at": now_ms, "last_test_result": result}
        if error is not None:
            values |= {"last_error": error[:64], "last_error_status": error_status, "last_error_at": now_ms}
        statement = update(credentials).where(_ROW.id == credential_id).values(values)
        await self._database.transact(lambda connection: connection.execute(statement))

    async def delete(self, credential_id: str) -> None:
        """Raises NoSuchCredential."""
        if await self.delete_many(ids=[credential_id]) == 0:
            raise NoSuchCredential(credential_id)

    async def delete_many(self, *, ids: Collection[str] = (), status: Status | None = None) -> int:
        """Removes credentials by id, and all that have a status; returns how many were there."""
        changed = await self._publishing(
            lambda connection: credential_changes.remove(connection, ids, status, self._now_ms())
        )
        if changed.lifted:
            await self.lift(changed.lifted)
        return changed.there

    async def _add(self, part: Sequence[key_lists.Read]) -> Sequence[Outcome]:
        outcomes = await self._database.transact(
            lambda connection: credential_additions.add(connection, self._secrets, part, self._now_ms())
        )
        if any(one.became is Became.ADDED for one in outcomes):
            self.notify()
        return outcomes

    async def _change(self, ids: Collection[str], values: Mapping[str, Any]) -> int:
        changed = await self._publishing(
            lambda connection: credential_changes.change(connection, ids, values, self._now_ms())
        )
        if changed.lifted:
            await self.lift(changed.lifted)
        return changed.there

    async def _publishing(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        done = await self._database.transact(work)
        self.notify()
        return done


def _checked(part: Sequence[key_lists.Read]) -> Sequence[key_lists.Read]:
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
