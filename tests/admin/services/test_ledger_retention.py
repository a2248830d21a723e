"""Old rows go, and what they left is carried."""

import pytest
from sqlalchemy import select

from admin import tables
from admin.database import Database
from admin.services import ledger_retention as module
from admin.services.ledger_retention import DAY_MS, Cleaned, LedgerRetention
from tests.admin.ledgers import AT_MS, Ledger, consume, consumed
from tests.sql_servers import with_database


async def carried(database: Database) -> dict[str, tuple[int, int, int]]:
    async with database.read() as connection:
        rows = await connection.execute(select(tables.token_quota_carried))
        return {token: (sequence, balance, total) for token, sequence, balance, total in rows}


def test_the_oldest_go_and_what_they_left_is_carried(database_url: str) -> None:
    async def story(database: Database) -> None:
        ledger = Ledger(database)
        await ledger.add("a", "b")
        await ledger.take(*consumed("a", 2, 9), *consumed("b", 2, 3))
        now_ms = AT_MS + 180 * DAY_MS - 1
        retention = LedgerRetention(database, 180, lambda: now_ms)
        assert await retention.cleaned() == Cleaned()
        assert await retention.forget() == 0
        assert (await carried(database), await retention.cleaned()) == ({}, Cleaned(now_ms, 0, 0))
        now_ms = AT_MS + 180 * DAY_MS + 5
        assert await retention.forget() == 2 + 4
        assert await carried(database) == {"a": (5, 96, 100), "b": (1, 100, 100)}
        assert [row[0] for row in await ledger.balances("a")] == [6, 7, 8, 9]
        assert [row[0] for row in await ledger.balances("b")] == [2, 3], "they came behind one that is to stay"
        now_ms += 10 * DAY_MS
        assert await retention.forget() == 6
        assert await carried(database) == {"a": (9, 92, 100), "b": (3, 98, 100)}
        assert await retention.cleaned() == Cleaned(now_ms, 6, 12)
        await ledger.take(consume("a", 10, 92))
        assert await ledger.balances("a") == [(10, 92, 91)]

    with_database(database_url, story)


def test_many_go_in_batches(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS_MAX", 3)

    async def story(database: Database) -> None:
        ledger = Ledger(database)
        await ledger.add("a")
        await ledger.take(*consumed("a", 2, 10))
        retention = LedgerRetention(database, 1, lambda: AT_MS + DAY_MS + 9)
        assert await retention.forget() == 9
        assert (await retention.cleaned()).rows == 9
        assert await ledger.balances("a") == [(10, 92, 91)]

    with_database(database_url, story)
