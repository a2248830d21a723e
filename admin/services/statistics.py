"""Statistics, read: totals, graphs, and all that is known of a range of time.

Rows are decoded and added up in a thread, so that they do not hold up the event loop, which publishes too.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence

from sqlalchemy import ColumnElement, Row, case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from admin import tables
from admin.database import Database, DatabaseDown
from admin.rules import periods
from admin.rules.figures import Counters, Detail, Overview, Point, PrefixFigures, Totals
from admin.rules.periods import ALL_TIME_S, DAY_S, MINUTE_S, Range
from admin.services import edits, events
from admin.services.statistics_intake import ALL_SERIES, ROWS_MAX, unpacked
from proxy.config import Retention
from proxy.statistics import RouteCounts

RECENT_MINUTES = 5
COUNTERS_S = 5.0
"""Prometheus waits for 10 s."""

_ROW = tables.statistics.c
_SERIES = tables.statistics_series.c


class Statistics:
    """`now_s` is the clock (Unix time)."""

    def __init__(self, database: Database, kept: Retention, now_s: Callable[[], float]) -> None:
        self._database = database
        self._kept = kept
        self._now_s = now_s
        self._counters: Counters | None = None

    async def totals(self) -> Totals:
        """What all routes had, of all time and in the last RECENT_MINUTES, the running one among them."""
        async with self._database.read() as connection:
            return await self._totals(connection)

    async def overview(self, shown: Range, prefix: str | None) -> Overview:
        """Totals, figures of each prefix, and a graph: of one prefix, or of all where that is None."""
        async with self._database.read() as connection:
            totals = await self._totals(connection)
            figures = await _prefixes(connection, self._now_s())
            return Overview(totals, figures, await self._graph(connection, shown, prefix))

    async def detail(self, range_s: tuple[int, int] | None) -> Detail:
        """All that was counted in a range (Unix time), or ever.

        The range is widened to whole minutes, and to hours or days where minutes or hours are not kept any more; what
        is returned says to which.
        """
        async with self._database.read() as connection:
            names = await _names(connection)
            if range_s is None:
                found = await _sum(connection, [_ROW.period_s == ALL_TIME_S])
                return Detail(None, _named(names, found))
            now_s = self._now_s()
            last_s = periods.slot_of(DAY_S, now_s).start_s + DAY_S
            first_s = last_s - self._kept.day_rows_days * DAY_S
            since_s, until_s = periods.widened(
                min(max(range_s[0], first_s), last_s), min(max(range_s[1], first_s), last_s), now_s, self._kept
            )
            found = await _sum(connection, _slots(since_s, until_s, len(names)))
            return Detail((since_s, until_s), _named(names, found))

    async def counters(self) -> tuple[Counters | None, bool]:
        """All counts of all time, the oldest series first, with what else counters are made of.

        Where the database is down, or slow, these are the last that were read (None: none ever were), and False.
        """
        try:
            async with asyncio.timeout(COUNTERS_S):
                self._counters = await self._read_counters()
        except (DatabaseDown, TimeoutError):
            return self._counters, False
        return self._counters, True

    async def _read_counters(self) -> Counters:
        async with self._database.read() as connection:
            query = select(_SERIES.prefix, _SERIES.authority, _ROW.counts).order_by(_ROW.series)
            query = query.join(tables.statistics, _ROW.series == _SERIES.id).where(_ROW.period_s == ALL_TIME_S)
            rows = (await connection.execute(query)).all()
            found = await asyncio.to_thread(
                lambda: [_with_names(prefix, authority, unpacked(data)) for prefix, authority, data in rows]
            )
            return Counters(found, await events.dropped(connection), await edits.newest(connection))

    async def _totals(self, connection: AsyncConnection) -> Totals:
        everything = _ROW.series == ALL_SERIES
        minutes = periods.starts(MINUTE_S, RECENT_MINUTES, self._now_s())
        all_time = await _sum(connection, [everything & (_ROW.period_s == ALL_TIME_S)])
        recent = await _sum(connection, [everything & (_ROW.period_s == MINUTE_S) & _ROW.start_s.in_(minutes)])
        nothing = RouteCounts("", "")
        return Totals(
            all_time.get(ALL_SERIES, nothing), recent.get(ALL_SERIES, nothing), await events.dropped(connection)
        )

    async def _graph(self, connection: AsyncConnection, shown: Range, prefix: str | None) -> list[Point]:
        now_s = self._now_s()
        days = periods.starts(DAY_S, self._kept.day_rows_days, now_s)
        first_s = await _first_of(connection, days) if shown is Range.ALL else 0
        period_s, starts = periods.graph(shown, first_s, now_s)
        series: Iterable[int] = [ALL_SERIES]
        if prefix is not None:
            series = (await connection.scalars(select(_SERIES.id).where(_SERIES.prefix == prefix))).all()
        query = (
            select(_ROW.start_s, func.sum(_ROW.requests), func.sum(_ROW.errors))
            .where(_ROW.period_s == period_s, _ROW.start_s.in_(starts), _ROW.series.in_(series))
            .group_by(_ROW.start_s)
        )
        found = {start_s: (int(requests), int(errors)) for start_s, requests, errors in await connection.execute(query)}
        return [Point(start_s, *found.get(start_s, (0, 0))) for start_s in starts]


async def _prefixes(connection: AsyncConnection, now_s: float) -> list[PrefixFigures]:
    """Figures by prefix; a prefix that has led to several targets has one line."""
    today, week, month = (periods.starts(DAY_S, days, now_s)[0] for days in (1, 7, 30))
    days = (
        select(
            _ROW.series,
            func.sum(case((_ROW.start_s >= today, _ROW.requests), else_=0)).label("today"),
            func.sum(case((_ROW.start_s >= week, _ROW.requests), else_=0)).label("week"),
            func.sum(_ROW.requests).label("month"),
        )
        .where(_ROW.period_s == DAY_S, _ROW.start_s >= month)
        .group_by(_ROW.series)
        .subquery()
    )
    query = (
        select(
            _SERIES.prefix,
            *(func.sum(column) for column in (_ROW.requests, _ROW.errors)),
            func.max(_ROW.last_at),
            *(func.coalesce(func.sum(column), 0) for column in (days.c.today, days.c.week, days.c.month)),
        )
        .join(tables.statistics, (_ROW.series == _SERIES.id) & (_ROW.period_s == ALL_TIME_S))
        .outerjoin(days, days.c.series == _SERIES.id)
        .group_by(_SERIES.prefix)
        .order_by(_SERIES.prefix)
    )
    return [PrefixFigures(prefix, *map(int, numbers)) for prefix, *numbers in await connection.execute(query)]


async def _first_of(connection: AsyncConnection, days: Sequence[int]) -> int:
    """Which of these days, by their starts, is the first that there is anything of; the last one where none is."""
    kept = (_ROW.period_s == DAY_S) & (_ROW.start_s >= days[0]) & (_ROW.start_s <= days[-1])
    first = await connection.scalar(select(func.min(_ROW.start_s)).where(kept))
    return days[-1] if first is None else int(first)


async def _names(connection: AsyncConnection) -> dict[int, tuple[str, str]]:
    rows = await connection.execute(select(_SERIES.id, _SERIES.prefix, _SERIES.authority))
    return {number: (prefix, authority) for number, prefix, authority in rows}


async def _sum(connection: AsyncConnection, wheres: Iterable[ColumnElement[bool]]) -> dict[int, RouteCounts]:
    """Adds up the rows of each series, which are read in parts."""
    found: dict[int, RouteCounts] = {}
    for where in wheres:
        rows = await connection.execute(select(_ROW.series, _ROW.counts).where(where))
        await asyncio.to_thread(_add_up, rows.all(), found)
    return found


def _add_up(rows: Iterable[Row[int, bytes]], found: dict[int, RouteCounts]) -> None:
    for series, data in rows:
        row = unpacked(data)
        if series in found:
            found[series].add(row)
        else:
            found[series] = row


def _slots(since_s: int, until_s: int, series: int) -> Iterator[ColumnElement[bool]]:
    """Yields what names the rows of a range, about ROWS_MAX at a time."""
    slots = max(1, ROWS_MAX // max(1, series))
    for period_s, first_s, end_s in periods.spans(since_s, until_s):
        for start_s in range(first_s, end_s, slots * period_s):
            stop_s = min(end_s, start_s + slots * period_s)
            yield (_ROW.period_s == period_s) & (_ROW.start_s >= start_s) & (_ROW.start_s < stop_s)


def _named(names: dict[int, tuple[str, str]], found: dict[int, RouteCounts]) -> list[RouteCounts]:
    rows = [_with_names(*names[series], row) for series, row in found.items() if series in names]
    return sorted(rows, key=lambda row: (row.prefix, row.authority))


def _with_names(prefix: str, authority: str, row: RouteCounts) -> RouteCounts:
    row.prefix, row.authority = prefix, authority
    return row
