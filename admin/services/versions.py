"""Versions of the configuration: what each edit changed, who made it, and the whole as it was after it."""

import builtins
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from admin import tables
from admin.rules import changes as rule
from admin.rules.changes import Change
from admin.services.edits import Editor, Whole, newest
from admin.services.failures import NoSuchVersion
from proxy.config import ConfigError, KeyPool, Route, Upstream
from proxy.shared_state.published import Mark, RoutesSection

_ROW = tables.config_versions.c
_SUMMARY = (_ROW.number, _ROW.created_at, _ROW.actor, _ROW.summary)
NUMBER_MAX = 2**63 - 1


class VersionSummary(msgspec.Struct, frozen=True):
    """A version without what is in it."""

    number: int
    created_at: int
    actor: str
    summary: str


class Version(VersionSummary, frozen=True):
    """A version with the changes that led to it, and the whole configuration after them."""

    changes: builtins.list[Change]
    document: dict[str, Any]


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    """A document as this version of the program reads it."""

    routes: dict[str, Route]
    key_pool: KeyPool = KeyPool()
    upstreams: dict[str, Upstream] = {}


class Versions:
    def __init__(self, editor: Editor) -> None:
        self._database = editor.database
        self._editor = editor

    async def newest(self) -> int:
        """The number of the newest version; 0 before the first."""
        async with self._database.read() as connection:
            return await newest(connection)

    async def mark(self) -> Mark:
        """Which version is the newest."""
        query = select(_ROW.number, _ROW.created_at).order_by(_ROW.number.desc()).limit(1)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        return Mark(0, 0) if row is None else Mark(*row)

    async def current(self) -> RoutesSection:
        """The newest version as workers should use it; number 0 and no routes before the first.

        All comes from one row, so it belongs together, whatever is edited meanwhile. Raises ConfigError.
        """
        query = select(_ROW.number, _ROW.created_at, _ROW.document).order_by(_ROW.number.desc()).limit(1)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return RoutesSection(0, {})
        whole = _whole(row.number, msgspec.json.decode(row.document))
        return RoutesSection(row.number, whole.routes, row.created_at, whole.key_pool, whole.upstreams)

    async def list(self, after: int | None, limit: int) -> builtins.list[VersionSummary]:
        """At most `limit` versions, newest first, those older than the version `after` only."""
        query = select(*_SUMMARY).order_by(_ROW.number.desc()).limit(limit)
        if after is not None:
            query = query.where(_ROW.number < after)
        async with self._database.read() as connection:
            return [VersionSummary(*row) for row in await connection.execute(query)]

    async def get(self, number: int) -> Version | None:
        if not 0 < number <= NUMBER_MAX:
            return None
        query = select(*_SUMMARY, _ROW.changes, _ROW.document).where(_ROW.number == number)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        changes = msgspec.json.decode(row.changes, type=builtins.list[Change])
        return Version(*row[:4], changes, msgspec.json.decode(row.document))

    async def diff(self, old: int, new: int) -> builtins.list[Change]:
        """What differs between two versions, in either order. Raises NoSuchVersion."""
        return rule.of_documents(await self._document(old), await self._document(new))

    async def roll_back(self, number: int, actor: str) -> int:
        """Restores what was there after the version `number`, as a new version, whose number is returned.

        Raises NoSuchVersion, and ConfigError if this program cannot use it any more.
        """
        whole = _whole(number, await self._document(number))

        async def decide(_connection: AsyncConnection, _before: Whole) -> Whole:
            return whole

        return (await self._editor.edit_whole(actor, f"roll back to version {number}", decide)).version

    async def _document(self, number: int) -> dict[str, Any]:
        version = await self.get(number)
        if version is None:
            raise NoSuchVersion(number)
        return version.document


def _whole(number: int, document: dict[str, Any]) -> Whole:
    try:
        read = msgspec.convert(document, _Document)
        return Whole(read.routes, read.key_pool, read.upstreams)
    except msgspec.ValidationError as error:
        raise ConfigError(f"version {number}", str(error)) from None
