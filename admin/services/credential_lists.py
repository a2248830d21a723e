"""Credentials as lists: pages by key or by number, and how many there are. In the order in which they were added."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from admin.services.credential_rows import COLUMNS, Status, StoredCredential, has_status, stored
from admin.tables import credentials

_ROW = credentials.c


class Filter(NamedTuple):
    """Which credentials are meant; None and the empty text stand for all. `q` is in notes, id or what is shown."""

    status: Status | None = None
    group: str | None = None
    provider: str | None = None
    q: str = ""


class Page(NamedTuple):
    """Some credentials, and behind which the next page begins: None at the end. `total` only where it was asked for."""

    items: Sequence[StoredCredential]
    after: str | None = None
    total: int | None = None


class GroupCounts(NamedTuple):
    """How many credentials a group has, by status."""

    group: str
    active: int
    disabled: int
    banned: int

    @property
    def total(self) -> int:
        return self.active + self.disabled + self.banned


async def behind(connection: AsyncConnection, wanted: Filter, after: str | None, limit: int, now_ms: int) -> Page:
    """At most `limit` behind a place that an earlier page gave; from the first on where it makes no sense."""
    chosen = _conditions(wanted, now_ms)
    if (place := _place(after)) is not None:
        chosen.append(tuple_(_ROW.created_at, _ROW.id) > place)
    query = select(*COLUMNS).where(*chosen).order_by(_ROW.created_at, _ROW.id).limit(limit)
    items = [stored(row, now_ms) for row in await connection.execute(query)]
    more = len(items) == limit and items
    return Page(items, f"{items[-1].created_at}-{items[-1].id}" if more else None)


async def numbered(connection: AsyncConnection, wanted: Filter, page: int, limit: int, now_ms: int) -> Page:
    """Page `page`, from 1, of `limit` each, and how many there are in all."""
    chosen = _conditions(wanted, now_ms)
    total = await connection.scalar(select(func.count()).select_from(credentials).where(*chosen))
    # Rows that are passed over are not read, only their places in an index.
    ids = select(_ROW.id).where(*chosen).order_by(_ROW.created_at, _ROW.id).offset((page - 1) * limit).limit(limit)
    shown = ids.subquery()
    query = select(*COLUMNS).join(shown, shown.c.id == _ROW.id).order_by(_ROW.created_at, _ROW.id)
    return Page([stored(row, now_ms) for row in await connection.execute(query)], None, total or 0)


async def counts(connection: AsyncConnection, now_ms: int) -> list[GroupCounts]:
    """By group, of which those without credentials are not told."""
    banned = (_ROW.banned_until > now_ms).label("banned")
    query = select(_ROW.pool_group, _ROW.status, banned, func.count()).group_by(_ROW.pool_group, _ROW.status, banned)
    found: dict[str, dict[Status, int]] = {}
    for group, status, is_banned, count in await connection.execute(query):
        shown = Status.BANNED if is_banned and status == Status.ACTIVE else Status(status)
        of_group = found.setdefault(group, dict.fromkeys(Status, 0))
        of_group[shown] += count
    return [
        GroupCounts(group, of[Status.ACTIVE], of[Status.DISABLED], of[Status.BANNED])
        for group, of in sorted(found.items())
    ]


def _conditions(wanted: Filter, now_ms: int) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.status is not None:
        found.append(has_status(wanted.status, now_ms))
    if wanted.group is not None:
        found.append(_ROW.pool_group == wanted.group)
    if wanted.provider is not None:
        found.append(_ROW.provider == wanted.provider)
    if wanted.q:
        found.append(_ROW.search.contains(wanted.q.lower(), autoescape=True))
    return found


def _place(after: str | None) -> tuple[int, str] | None:
    at, dash, name = (after or "").partition("-")
    return (int(at), name) if dash and at.isdecimal() and len(at) < 19 else None
