"""Balances in SQL: the figures beside each key, those of each day, sums, and what workers are told."""

import pytest
from sqlalchemy import func, select

from admin.database import Database
from admin.rules.balances import NUMBER_MAX, Day, Reading, Told, Totals
from admin.rules.key_records import Status
from admin.rules.periods import DAY_S
from admin.services import retention
from admin.services.balances import Balances
from admin.services.credential_feed import CredentialFeed
from admin.tables import balance_readings
from proxy.config import Retention
from proxy.rules.credentials import Kind
from tests.admin.pool import NOW_MS, Pool
from tests.sql_servers import with_database

TODAY_S = NOW_MS // 1000 // DAY_S * DAY_S
DAY_MS = DAY_S * 1000


class Bench:
    """A pool, its balances, and how often they told that there is something to publish."""

    def __init__(self, database: Database) -> None:
        self.pool = Pool(database)
        self.balances = Balances(database, Retention(day_rows_days=31), lambda: self.pool.now_ms)
        self.balances.notify = self.tell
        self.told = 0

    def tell(self) -> None:
        self.told += 1

    async def read(self, *told: tuple[str, Reading | str]) -> None:
        """Notes readings, or in a word why there is none, of just now."""
        await self.balances.record([told_of(name, self.pool.now_ms, what) for name, what in told])


def told_of(name: str, at: int, what: Reading | str) -> Told:
    return Told(name, at, what) if isinstance(what, Reading) else Told(name, at, None, what)


def test_a_reading_stands_beside_its_key_and_is_published(database_url: str) -> None:
    async def story(database: Database) -> None:
        bench = Bench(database)
        one, two = await bench.pool.added("sk-one-0123456789", "sk-two-0123456789")
        feed = CredentialFeed(database)
        known = await feed.mark()
        await bench.read((one, Reading(5, 20, 1, 2)))
        found = await bench.pool.credentials.existing(id=one)
        figures = (found.tokens_used, found.tokens_total, found.tokens_at, found.tokens_begin, found.tokens_end)
        assert figures == (5, 20, NOW_MS, 1, 2)
        changes = await feed.since(known)
        assert [(each.id, each.tokens_used, each.tokens_total) for each in changes.changed] == [(one, 5, 20)]
        assert bench.told == 1
        assert (await bench.pool.credentials.existing(id=two)).tokens_at is None

    with_database(database_url, story)


def test_the_same_figures_again_are_no_news_for_workers(database_url: str) -> None:
    async def story(database: Database) -> None:
        bench = Bench(database)
        (one,) = await bench.pool.added("sk-one-0123456789")
        await bench.read((one, Reading(5, 20)))
        known = await CredentialFeed(database).mark()
        bench.pool.now_ms += 1000
        await bench.read((one, Reading(5, 20, 7, 8)))
        assert (await CredentialFeed(database).since(known)).changed == []
        found = await bench.pool.credentials.existing(id=one)
        assert (found.tokens_at, found.tokens_begin) == (NOW_MS + 1000, 7)

    with_database(database_url, story)


def test_a_failure_keeps_the_figures_and_a_reading_ends_it(database_url: str) -> None:
    async def story(database: Database) -> None:
        bench = Bench(database)
        one, two = await bench.pool.added("sk-one-0123456789", "sk-two-0123456789")
        await bench.read((one, Reading(5, 20)))
        bench.pool.now_ms += 1000
        bench.told = 0
        await bench.read((one, "http_500"), (two, "timeout"))
        assert bench.told == 0
        found = await bench.pool.credentials.existing(id=one)
        assert (found.tokens_used, found.tokens_at) == (5, NOW_MS)
        assert (found.tokens_error, found.tokens_error_at) == ("http_500", NOW_MS + 1000)
        assert await bench.balances.totals() == Totals(2, 1, 2, 5, 20, 15, NOW_MS, NOW_MS)
        await bench.read((one, Reading(6, 20)))
        found = await bench.pool.credentials.existing(id=one)
        assert (found.tokens_error, found.tokens_error_at) == (None, None)

    with_database(database_url, story)


def test_a_key_that_is_gone_is_passed_over(database_url: str) -> None:
    async def story(database: Database) -> None:
        bench = Bench(database)
        (one,) = await bench.pool.added("sk-one-0123456789")
        await bench.read(("key_gone", Reading(5, 20)), ("key_lost", "timeout"))
        assert await bench.balances.history(since_s=0) == []
        await bench.read(("key_gone", Reading(5, 20)), (one, Reading(1, 2)))
        assert await bench.balances.history(since_s=0, id="key_gone") == []
        assert await bench.balances.history(since_s=0, id=one) == [Day(TODAY_S, 1, 2, 0)]

    with_database(database_url, story)


def test_days_add_up_what_was_spent_by_each_and_by_all(database_url: str) -> None:
    async def story(database: Database) -> None:
        bench = Bench(database)
        one, two = await bench.pool.added("sk-one-0123456789", "sk-two-0123456789")
        await bench.read((one, Reading(5, 20)), (two, Reading(100, 200)))
        await bench.read((one, Reading(8, 20)))
        await bench.read((one, Reading(9, 20)), (two, Reading(110, 200)))
        await bench.balances.record_totals()
        bench.pool.now_ms += DAY_MS
        await bench.balances.record_totals()
        assert len(await bench.balances.history(since_s=0)) == 1, "nothing was read that day"
        await bench.read((one, Reading(2, 20)))
        tomorrow_s = TODAY_S + DAY_S
        assert await bench.balances.history(since_s=0, id=one) == [Day(TODAY_S, 9, 20, 4), Day(tomorrow_s, 2, 20, 2)]
        assert await bench.balances.history(since_s=tomorrow_s, id=two) == []
        assert await bench.balances.history(since_s=0) == [Day(TODAY_S, 119, 220, 14), Day(tomorrow_s, None, None, 2)]
        await bench.pool.credentials.delete(id=two)
        await bench.balances.record_totals()
        assert (await bench.balances.history(since_s=tomorrow_s)) == [Day(tomorrow_s, 2, 20, 2)]

    with_database(database_url, story)


def test_sums_are_those_of_what_is_known(database_url: str) -> None:
    async def story(database: Database) -> None:
        bench = Bench(database)
        assert await bench.balances.totals() == Totals(0, 0, 0, 0, 0, 0, None, None)
        ids = await bench.pool.added(*(f"sk-{number}-0123456789" for number in range(5)))
        await bench.pool.credentials.put(id="oauth", secret="token-0123456789", kind=Kind.OAUTH)
        await bench.read((ids[0], Reading(5, 20)), (ids[1], Reading(7, None)))
        bench.pool.now_ms += 1
        await bench.read((ids[2], Reading(None, 30)), (ids[3], Reading(NUMBER_MAX, NUMBER_MAX)))
        await bench.pool.credentials.update(id=ids[0], status=Status.DISABLED)
        expected = Totals(5, 4, 0, 12 + NUMBER_MAX, 50 + NUMBER_MAX, 45, NOW_MS, NOW_MS + 1)
        assert await bench.balances.totals() == expected

    with_database(database_url, story)


def test_old_days_are_forgotten_and_counted(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "ROWS_MAX", 2)

    async def story(database: Database) -> None:
        bench = Bench(database)
        ids = await bench.pool.added(*(f"sk-{number}-0123456789" for number in range(3)))
        for days in (40, 33, 32, 31, 0):
            bench.pool.now_ms = NOW_MS - days * DAY_MS
            await bench.read(*((one, Reading(5, 20)) for one in ids))
        assert await bench.balances.forget() == 3 * 4
        assert await bench.balances.forget() == 0
        async with database.read() as connection:
            left = select(balance_readings.c.start_s, func.count()).group_by(balance_readings.c.start_s)
            rows = sorted(map(tuple, await connection.execute(left)))
        assert rows == [(TODAY_S - 31 * DAY_S, 4), (TODAY_S, 4)]

    with_database(database_url, story)
