"""Keys as lists: some of them, and how many there are. In the order in which they were added."""

from typing import TypeVar

from sqlalchemy import ColumnElement, case, func, null, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from admin.rules import credential_marks
from admin.rules.key_records import Position, Status, Wanted
from admin.services.credential_rows import COLUMNS, IS_KEY, StoredCredential, has_status, stored
from admin.tables import credentials

T = TypeVar("T")

_ROW = credentials.c

GroupCounts = dict[str, dict[Status, int]]
"""How many keys each group has, by status. Groups without any are not told."""


async def some(
    connection: AsyncConnection, wanted: Wanted, limit: int, after: Position | None, offset: int, now_ms: int
) -> list[StoredCredential]:
    """At most `limit` behind a place, without the first `offset`."""
    chosen = _conditions(wanted, now_ms)
    if after is not None:
        chosen.append(tuple_(_ROW.created_at, _ROW.id) > (after.created_at, after.id))
    # Of rows that are passed over, only their places in an index are read.
    ids = select(_ROW.id).where(*chosen).order_by(_ROW.created_at, _ROW.id).offset(offset).limit(limit)
    shown = ids.subquery()
    query = select(*COLUMNS).join(shown, shown.c.id == _ROW.id).order_by(_ROW.created_at, _ROW.id)
    return [stored(row, now_ms) for row in await connection.execute(query)]


async def count(connection: AsyncConnection, wanted: Wanted, now_ms: int) -> int:
    query = select(func.count()).select_from(credentials).where(*_conditions(wanted, now_ms))
    return int((await connection.execute(query)).scalar_one())


async def counts(connection: AsyncConnection, now_ms: int) -> GroupCounts:
    """Grouped by what an index is in the order of, and by nothing else, which would have to be sorted."""
    disabled, banned = (
        func.sum(case((has_status(status, now_ms), 1), else_=0)) for status in (Status.DISABLED, Status.BANNED)
    )
    query = select(_ROW.pool_group, func.count(), disabled, banned).where(IS_KEY).group_by(_ROW.pool_group)
    return {
        group: {
            Status.ACTIVE: total - int(of_disabled) - int(of_banned),
            Status.DISABLED: int(of_disabled),
            Status.BANNED: int(of_banned),
        }
        for group, total, of_disabled, of_banned in await connection.execute(query)
    }


def _conditions(wanted: Wanted, now_ms: int) -> list[ColumnElement[bool]]:
    # SQLite asks in this order, and most rows are not what is searched for.
    found: list[ColumnElement[bool]] = [_is_found(wanted.q), IS_KEY] if wanted.q else [IS_KEY]
    column = _read_through if wanted.q else _as_it_is
    if wanted.status is not None:
        found.append(has_status(wanted.status, now_ms, column(_ROW.status), column(_ROW.banned_until)))
    if wanted.group is not None:
        found.append(column(_ROW.pool_group) == wanted.group)
    if wanted.provider is not None:
        found.append(column(_ROW.provider) == wanted.provider)
    return found


def _is_found(q: str) -> ColumnElement[bool]:
    """By a part of what may be seen, or by the whole key, which is looked up once."""
    whole = select(_ROW.id).where(_ROW.digest == credential_marks.digest(q.strip())).scalar_subquery()
    return or_(_ROW.search.contains(q.lower(), autoescape=True), _ROW.id == whole)


def _as_it_is(column: ColumnElement[T]) -> ColumnElement[T]:
    return column


def _read_through(column: ColumnElement[T]) -> ColumnElement[T]:
    """The same column as an expression: no index of it is taken then, so SQLite reads the one of searches."""
    return func.coalesce(column, null())
