"""What is forgotten: old rows of statistics and balances, workers that are long gone, old versions, tombstones.

Each statement removes a bounded number of rows in a transaction of its own, so that nobody waits for it. All-time rows
stay.
"""

from collections.abc import Callable, Collection
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, Table, delete, func, or_, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from admin import tables
from admin.database import Database
from admin.rules.periods import DAY_S, HOUR_S, MINUTE_S
from admin.services import edits
from proxy.config import Retention as Kept

ROWS_MAX = 10_000
VERSIONS_MAX = 100
"""Versions in a statement: each has the whole configuration in it."""
WORKERS_DAYS = 3650
"""A dead worker's journal may be found on a machine that was off for long: what is forgotten would count twice then."""

GONE_S = DAY_S
"""For how long a removed credential's tombstone stays. A publisher that knows an older version publishes all anew."""

_VERSION = tables.config_versions.c
_GONE = tables.credentials_gone.c
_NUMBERS = tables.credentials_version.c


class Retention:
    """`living` names the workers that run: one that has had no request for long still counts on from where it was.

    `now_s` is the clock (Unix time).
    """

    def __init__(
        self, database: Database, kept: Kept, living: Callable[[], Collection[str]], now_s: Callable[[], float]
    ) -> None:
        self._database = database
        self._kept = kept
        self._living = living
        self._now_s = now_s

    async def forget(self) -> None:
        """Removes what is older than it is kept. Raises DatabaseDown."""
        now_s = int(self._now_s())
        for period_s, kept_s in (
            (MINUTE_S, self._kept.minute_rows_hours * HOUR_S),
            (HOUR_S, self._kept.hour_rows_days * DAY_S),
            (DAY_S, self._kept.day_rows_days * DAY_S),
        ):
            for table, what in ((tables.statistics, "series"), (tables.credential_statistics, "credential")):
                await forget_slots(self._database, table, what, table.c.period_s == period_s, now_s - kept_s - period_s)
        await forget_readings(self._database, self._kept, now_s)
        for table in (tables.statistics_workers, tables.credential_workers):
            while await self._forget_workers(table, (now_s - WORKERS_DAYS * DAY_S) * 1000):
                pass
        while await self._forget_versions():
            pass
        await self._database.transact(lambda connection: _forget_tombstones(connection, (now_s - GONE_S) * 1000))

    async def _forget_workers(self, table: Table, last_ms: int) -> bool:
        """Removes workers that were seen at `last_ms` or before; returns whether there are more."""
        living = self._living()
        if not living:  # or Redis does not tell
            return False
        row = table.c
        old = select(row.worker).where(row.seen_at <= last_ms, row.worker.not_in(living))
        async with self._database.read() as connection:
            names = (await connection.scalars(old.limit(ROWS_MAX))).all()
        gone = delete(table).where(row.worker.in_(names), row.seen_at <= last_ms)
        await self._database.transact(lambda connection: connection.execute(gone))
        return len(names) == ROWS_MAX

    async def _forget_versions(self) -> bool:
        """Removes the oldest of the versions that are too many; returns whether there are more."""
        async with self._database.read() as connection:
            last = await edits.newest(connection) - self._kept.versions
            first = await connection.scalar(select(func.min(_VERSION.number)))
        if first is None or first > last:
            return False
        old = _VERSION.number < min(first + VERSIONS_MAX, last + 1)
        await self._database.transact(lambda connection: connection.execute(delete(tables.config_versions).where(old)))
        return True


async def forget_readings(database: Database, kept: Kept, now_s: float) -> int:
    """Removes the days of balances that are older than days are kept; returns how many rows."""
    last_s = int(now_s) - kept.day_rows_days * DAY_S - DAY_S
    return await forget_slots(database, tables.balance_readings, "credential", true(), last_s)


async def forget_slots(database: Database, table: Table, what: str, of: ColumnElement[bool], last_s: int) -> int:
    """Removes slots that began at `last_s` or before, of the rows that `of` is true of; returns how many rows.

    In the table's order: by `start_s`, then by `what`.
    """
    gone, part = 0, await _forget_some(database, table, what, of, last_s)
    while part:
        gone, part = gone + part, await _forget_some(database, table, what, of, last_s)
    return gone


async def _forget_some(database: Database, table: Table, what: str, of: ColumnElement[bool], last_s: int) -> int:
    row = table.c
    old = of & (row.start_s <= last_s)
    nth = select(row.start_s, row[what]).where(old).order_by(row.start_s, row[what])
    async with database.read() as connection:
        bound = (await connection.execute(nth.offset(ROWS_MAX - 1).limit(1))).one_or_none()
    if bound is not None:
        start_s, last = bound
        old &= or_(row.start_s < start_s, (row.start_s == start_s) & (row[what] <= last))
    removed: CursorResult[Any] = await database.transact(
        lambda connection: connection.execute(delete(table).where(old))
    )
    return removed.rowcount


async def _forget_tombstones(connection: AsyncConnection, last_ms: int) -> None:
    """Notes up to which version there are none any more, in the transaction that removes them."""
    last = await connection.scalar(select(func.max(_GONE.version)).where(_GONE.removed_at <= last_ms))
    if last is not None:
        await connection.execute(update(tables.credentials_version).values(forgotten=last))
        await connection.execute(delete(tables.credentials_gone).where(_GONE.version <= last))
