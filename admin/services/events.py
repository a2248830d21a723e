"""Events of the stream as their handlers see them, and the count of those that will never be in SQL."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from admin.rules.figures import Dropped
from admin.tables import events_dropped, locks

UNDECODABLE = "undecodable"
"""Came, and no handler can use it."""
MISSING = "missing"
"""Never came, as those behind it say."""

_ROW = events_dropped.c


class Entry(NamedTuple):
    """What lies in the stream: its id there, how long it has, and its data."""

    id: str
    age_s: float
    data: bytes


class Taken(NamedTuple):
    """What a handler did with its entries.

    `undecodable` are those that it cannot use, `missing` is how many events are known to have been lost before them;
    `committed` is called once the transaction is.
    """

    undecodable: Sequence[Entry] = ()
    missing: int = 0
    committed: Callable[[], object] = lambda: None


class Handler(Protocol):
    """Takes the entries of one kind."""

    async def take(self, connection: AsyncConnection, entries: Sequence[Entry]) -> Taken:
        """Writes what is not written yet, in the order of the stream. May be called again with the same entries."""


async def lock(connection: AsyncConnection, name: str = "events") -> None:
    """Holds the lock of whoever takes events, or rows of the `ledger`, until the transaction ends."""
    await connection.execute(select(locks.c.name).where(locks.c.name == name).with_for_update())


async def dropped(connection: AsyncConnection) -> list[Dropped]:
    """All that was ever dropped, by kind and reason."""
    rows = await connection.execute(select(_ROW.kind, _ROW.reason, _ROW.events).order_by(_ROW.kind, _ROW.reason))
    return [Dropped(*row) for row in rows]


async def drop_missing(connection: AsyncConnection, kind: str, events: int) -> None:
    """Counts events that are lost. The caller holds the lock."""
    await _drop(connection, kind, MISSING, events, "")


async def drop_undecodable(connection: AsyncConnection, kind: str, entries: Sequence[Entry]) -> list[Entry]:
    """Counts entries as dropped, and returns those that were not counted before. The caller holds the lock."""
    last = await connection.scalar(select(_ROW.last_id).where(_ROW.kind == kind, _ROW.reason == UNDECODABLE))
    fresh = [entry for entry in entries if position(entry.id) > position(last or "0-0")]
    if fresh:
        await _drop(connection, kind, UNDECODABLE, len(fresh), fresh[-1].id)
    return fresh


def position(entry_id: str) -> tuple[int, int]:
    """Returns the milliseconds since 1970 and the number that make an entry's id."""
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number)


async def _drop(connection: AsyncConnection, kind: str, reason: str, events: int, last_id: str) -> None:
    more = update(events_dropped).where(_ROW.kind == kind, _ROW.reason == reason)
    changed = await connection.execute(more.values(events=_ROW.events + events, last_id=last_id))
    if changed.rowcount == 0:
        row = {"kind": kind, "reason": reason, "events": events, "last_id": last_id}
        await connection.execute(insert(events_dropped).values(row))
