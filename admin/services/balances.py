"""Balances of keys: what providers said of each last, by day, and of all together. Workers are told what changed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import and_, bindparam, case, delete, func, insert, null, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from admin import tables
from admin.database import Database
from admin.rules.balances import Day, Reading, Told, Totals, spent
from admin.rules.periods import DAY_S, slot_of
from admin.services import credential_version
from admin.services.credential_rows import IS_KEY
from admin.services.credential_statistics import ALL
from admin.services.retention import forget_readings
from proxy.config import Retention

_ROW = tables.credentials.c
_DAY = tables.balance_readings.c
_FIGURES = (_ROW.version, _ROW.tokens_used, _ROW.tokens_total, _ROW.tokens_begin, _ROW.tokens_end)
_READ = (
    update(tables.credentials)
    .where(_ROW.id == bindparam("of_id"))
    .values(
        version=bindparam("of_version"),
        tokens_used=bindparam("used"),
        tokens_total=bindparam("total"),
        tokens_at=bindparam("at"),
        tokens_begin=bindparam("begins_at"),
        tokens_end=bindparam("ends_at"),
        tokens_error=null(),
        tokens_error_at=null(),
    )
)
_FAIL = (
    update(tables.credentials)
    .where(_ROW.id == bindparam("of_id"))
    .values(tokens_error=bindparam("problem"), tokens_error_at=bindparam("at"))
)


class Balances:
    """`kept` says how long days are kept; `now_ms` is the clock, in milliseconds since 1970."""

    def __init__(self, database: Database, kept: Retention, now_ms: Callable[[], int]) -> None:
        self._database = database
        self._kept = kept
        self._now_ms = now_ms
        self.notify: Callable[[], object] = lambda: None
        """Called after each change that is to be published."""

    async def record(self, told: Sequence[Told]) -> None:
        """Notes what came of asking, each key once. Where that failed, the figures stay what they were."""
        readings = {one.id: (one.at, one.reading) for one in told if one.reading is not None}
        failed = [{"of_id": one.id, "problem": one.problem, "at": one.at} for one in told if one.reading is None]

        async def work(connection: AsyncConnection) -> None:
            if readings:
                await _record(connection, readings)
            if failed:
                await connection.execute(_FAIL, sorted(failed, key=lambda row: str(row["of_id"])))

        await self._database.transact(work)
        if readings:
            self.notify()

    async def record_totals(self) -> None:
        """Notes the sums of all keys as those of today, if anything was read today."""
        totals = await self.totals()
        now_ms = self._now_ms()
        today = and_(_DAY.start_s == _day_of(now_ms), _DAY.credential == ALL)
        change = update(tables.balance_readings).where(today)
        await self._database.transact(
            lambda connection: connection.execute(change.values(at=now_ms, used=totals.used, total=totals.total))
        )

    async def totals(self) -> Totals:
        left = case((_ROW.tokens_total.is_(None), 0), else_=_ROW.tokens_total - func.coalesce(_ROW.tokens_used, 0))
        query = select(
            func.count(),
            func.count(_ROW.tokens_at),
            func.count(_ROW.tokens_error),
            *(func.coalesce(func.sum(one), 0) for one in (_ROW.tokens_used, _ROW.tokens_total, left)),
            func.min(_ROW.tokens_at),
            func.max(_ROW.tokens_at),
        ).where(IS_KEY)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one()
        return Totals(*(None if one is None else int(one) for one in row))  # type: ignore[arg-type]  # PostgreSQL sums to Decimal

    async def history(self, *, since_s: int, id: str = ALL) -> Sequence[Day]:  # noqa: A002 - the word for it
        """Days from `since_s` on, oldest first, of one key or all; those without a reading are missing."""
        query = select(_DAY.start_s, _DAY.used, _DAY.total, _DAY.spent)
        chosen = (_DAY.credential == id, _DAY.start_s >= since_s)
        async with self._database.read() as connection:
            return [Day(*row) for row in await connection.execute(query.where(*chosen).order_by(_DAY.start_s))]

    async def forget(self) -> int:
        """Removes the days that are not to be kept any longer; returns how many rows."""
        return await forget_readings(self._database, self._kept, self._now_ms() / 1000)


async def _record(connection: AsyncConnection, readings: Mapping[str, tuple[int, Reading]]) -> None:
    """Writes the figures, as a new version where they are others, and adds to the days."""
    version = await credential_version.next_version(connection)
    query = select(_ROW.id, *_FIGURES).where(_ROW.id.in_(readings))
    rows: list[dict[str, Any]] = []
    days: dict[int, list[dict[str, Any]]] = {}
    for name, known, *before in sorted(map(tuple, await connection.execute(query))):
        at, reading = readings[name]
        is_new = (reading.used, reading.total) != tuple(before[:2])
        rows.append({"of_id": name, "of_version": version if is_new else known, "at": at, **reading._asdict()})
        more = spent(Reading(*before), reading)
        day = {"credential": name, "at": at, "used": reading.used, "total": reading.total, "spent": more}
        days.setdefault(_day_of(at), []).append(day)
    if rows:
        await connection.execute(_READ, rows)
    for start_s, found in days.items():
        await _add(connection, start_s, found)


async def _add(connection: AsyncConnection, start_s: int, found: Sequence[dict[str, Any]]) -> None:
    """The rows of a day are read, added to and replaced. Nobody comes between: the caller holds the version's row."""
    spent_by_all, last_at = sum(row["spent"] for row in found), max(row["at"] for row in found)
    of_all = {"credential": ALL, "at": last_at, "used": None, "total": None, "spent": spent_by_all}
    after = {row["credential"]: {"start_s": start_s, **row} for row in (*found, of_all)}
    here = and_(_DAY.start_s == start_s, _DAY.credential.in_(after))
    before = (await connection.execute(select(_DAY.credential, _DAY.used, _DAY.total, _DAY.spent).where(here))).all()
    for row in before:
        after[row.credential]["spent"] += row.spent
        if row.credential == ALL:  # its sums are taken at the end
            after[ALL] |= {"used": row.used, "total": row.total}
    if before:
        await connection.execute(delete(tables.balance_readings).where(here))
    await connection.execute(insert(tables.balance_readings), list(after.values()))


def _day_of(at_ms: int) -> int:
    return slot_of(DAY_S, at_ms / 1000).start_s
