"""Statistics in tables, as tests put them there and look at them."""

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from admin import tables
from admin.database import Database
from admin.rules.deltas import EVERYTHING, Key, rolled_up
from admin.rules.periods import Slot
from admin.services import events
from admin.services.events import Entry, Taken
from admin.services.statistics_intake import ALL_SERIES, StatisticsIntake, unpacked
from admin.services.stream import Stream
from proxy.statistics import RouteCounts, StatisticsDelta
from tests.admin.counted import packed

Stored = dict[tuple[Slot, Key], RouteCounts]


class Intake:
    """An intake, and what it has put into the tables."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now_ms = 5
        self.stream = Stream(lambda: 0.0)
        self.intake = StatisticsIntake(self.stream, lambda: self.now_ms)

    async def take(self, *deltas: StatisticsDelta | bytes) -> Taken:
        """Takes them as one batch, in one transaction."""
        entries = [
            Entry(f"{number}-0", 0.5, one if isinstance(one, bytes) else packed(one))
            for number, one in enumerate(deltas, 1)
        ]

        async def work(connection: AsyncConnection) -> Taken:
            await events.lock(connection)
            return await self.intake.take(connection, entries)

        taken = await self.database.transact(work)
        taken.committed()
        return taken

    async def stored(self) -> Stored:
        names: dict[int, Key] = {ALL_SERIES: EVERYTHING}
        async with self.database.read() as connection:
            for number, prefix, authority in await connection.execute(
                select(
                    tables.statistics_series.c.id,
                    tables.statistics_series.c.prefix,
                    tables.statistics_series.c.authority,
                )
            ):
                names[number] = (prefix, authority)
            rows = (await connection.execute(select(tables.statistics))).all()
        found: Stored = {}
        for one in rows:
            counts = unpacked(one.counts)
            assert (one.requests, one.errors) == (
                sum(each.requests for each in counts.outcomes.values()),
                sum(each.requests for name, each in counts.outcomes.items() if name not in {"2xx", "client_left"}),
            )
            assert one.last_at == int(counts.last_s * 1000)
            found[Slot(one.period_s, one.start_s), names[one.series]] = counts
        return found

    async def sequences(self) -> dict[str, tuple[int, int]]:
        async with self.database.read() as connection:
            rows = await connection.execute(select(tables.statistics_workers))
            return {worker: (sequence, seen_at) for worker, sequence, seen_at in rows}


def expected(*deltas: StatisticsDelta) -> Stored:
    return {(slot, key): found for slot, rows in rolled_up(deltas).items() for key, found in rows.items()}


async def emptied(database: Database) -> None:
    async with database.write() as connection:
        for table in (tables.statistics, tables.statistics_series, tables.statistics_workers):
            await connection.execute(delete(table))
