"""Rows of the ledger, in tables: each once, without gaps, and with how the requests ended."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from sqlalchemy import event, insert
from sqlalchemy.engine import Engine

from admin import tables
from admin.database import Database
from admin.migrations import migrate
from proxy.rules.access_tokens import Action
from proxy.shared_state.ledger import Change
from tests.admin.ledgers import AT_MS, Ledger, consume, consumed, outcome
from tests.sql_servers import with_database

ENDED = ("execution_success", "execution_error_type", "execution_error_message", "usage_mark")
OPEN = (None, None, None, None)


def play(url: str, story: Callable[[Ledger], Coroutine[Any, Any, None]]) -> None:
    async def main(database: Database) -> None:
        await story(Ledger(database))

    with_database(url, main)


def test_changes_are_rows_and_their_tokens_follow(database_url: str) -> None:
    async def story(ledger: Ledger) -> None:
        await ledger.add("a", "b")
        ledger.now_ms += 5000
        refund = Change("a", 4, Action.REFUND, 98, 99, 100, "a-3", AT_MS + 9)
        taken = await ledger.take(*consumed("a", 2, 3), consume("b", 2, 100, cost=7), refund)
        assert taken[:2] == ([], 0)
        assert await ledger.balances("a") == [(1, 0, 100), (2, 100, 99), (3, 99, 98), (4, 98, 99)]
        assert await ledger.standing("a") == (4, 99, 100, AT_MS + 5000)
        assert await ledger.standing("b") == (2, 93, 100, AT_MS + 5000)
        columns = ("ws_id", "email", "unit", "action", "quota_change", "total_after", "request_id", "created_at")
        assert await ledger.rows("a", *columns) == [
            ("ws-a", "a@example.org", "requests", "init", 100, 100, None, AT_MS),
            ("ws-a", "a@example.org", "requests", "consume", -1, 100, "a-2", AT_MS + 2),
            ("ws-a", "a@example.org", "requests", "consume", -1, 100, "a-3", AT_MS + 3),
            ("ws-a", "a@example.org", "requests", "refund", 1, 100, "a-3", AT_MS + 9),
        ]

    play(database_url, story)


def test_outcomes_complete_their_rows_in_the_same_batch_and_later(database_url: str) -> None:
    async def story(ledger: Ledger) -> None:
        await ledger.add("a")
        await ledger.take(*consumed("a", 2, 5), outcome("a", "a-2", usage="exact"))
        assert await ledger.rows("a", *ENDED) == [OPEN, (1, None, None, "exact"), OPEN, OPEN, OPEN]
        failed = outcome("a", "a-4", "connect_refused", "no\0body")
        await ledger.take(outcome("a", "a-3"), failed, outcome("b", "a-5"), outcome("a", "of nobody"))
        after = [OPEN, (1, None, None, "exact"), (1, None, None, None), (0, "connect_refused", "nobody", None), OPEN]
        assert await ledger.rows("a", *ENDED) == after
        await ledger.take(failed, outcome("a", "a-2", "timeout"))
        assert await ledger.rows("a", *ENDED) == after, "an outcome is told once"

    play(database_url, story)


def test_requests_of_one_id_are_completed_one_by_one(database_url: str) -> None:
    async def story(ledger: Ledger) -> None:
        await ledger.add("a")
        await ledger.take(consume("a", 2, 100, "same"), consume("a", 3, 99, "same"), outcome("a", "same"))
        await ledger.take(outcome("a", "same", "timeout"))
        assert await ledger.rows("a", "execution_success") == [(None,), (1,), (0,)]

    play(database_url, story)


def test_rows_that_come_twice_are_there_once(database_url: str) -> None:
    async def story(ledger: Ledger) -> None:
        await ledger.add("a")
        rows = [*consumed("a", 2, 4), outcome("a", "a-2")]
        await ledger.take(*rows)
        await ledger.take(*rows, *consumed("a", 5, 6))
        assert await ledger.balances("a") == [(1, 0, 100), *((n, 102 - n, 101 - n) for n in range(2, 7))]
        assert ledger.forks == 0

    play(database_url, story)


def test_an_admission_of_the_id_and_the_time_of_others_that_come_twice_is_none_of_them(database_url: str) -> None:
    """Clients choose the ids of their requests, and a batch is decided in one millisecond."""

    async def story(ledger: Ledger) -> None:
        await ledger.add("a")
        rows = [Change("a", n, Action.CONSUME, 102 - n, 101 - n, 100, "same", AT_MS) for n in range(2, 6)]
        await ledger.take(*rows[:3])
        taken = await ledger.take(*rows)
        assert (taken.missing, ledger.forks) == (0, 0)
        assert [row[0] for row in await ledger.balances("a")] == [1, 2, 3, 4, 5]
        assert (await ledger.standing("a"))[:2] == (5, 96)

    play(database_url, story)


def test_outcomes_of_an_id_that_many_requests_had_look_at_the_open_ones_alone(tmp_path: Path) -> None:
    looks: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        if statement.startswith("SELECT") and "execution_success IS NULL" in statement:
            looks.append((statement, parameters))

    async def story(ledger: Ledger) -> None:
        await migrate(ledger.database)
        await ledger.add("a")
        await ledger.take(consume("a", 2, 100, "same"))
        event.listen(Engine, "before_cursor_execute", note)
        try:
            await ledger.take(outcome("a", "same"))
        finally:
            event.remove(Engine, "before_cursor_execute", note)
        ((statement, parameters),) = looks
        async with ledger.database.read() as connection:
            plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            steps = " ".join(str(row[-1]) for row in plan)
        assert "(request_id=? AND action=? AND execution_success=?)" in steps

    play(f"sqlite:///{tmp_path}/r.db", story)


def test_two_who_take_the_same_rows_at_once_write_them_once(database_url: str) -> None:
    async def story(ledger: Ledger) -> None:
        other = Ledger(ledger.database)
        await ledger.add("a", "b")
        rows = [*consumed("a", 2, 20), *consumed("b", 2, 20), outcome("a", "a-2")]
        await asyncio.gather(ledger.take(*rows), other.take(*rows), other.take(*rows, *consumed("a", 21, 30)))
        assert [row[0] for row in await ledger.balances("a")] == [*range(1, 31)]
        assert [row[0] for row in await ledger.balances("b")] == [*range(1, 21)]
        assert (await ledger.standing("a"))[:2] == (30, 71)
        assert ledger.forks == other.forks == 0

    play(database_url, story)


def test_a_gap_is_told_and_what_follows_is_kept(database_url: str) -> None:
    async def story(ledger: Ledger) -> None:
        await ledger.add("a")
        taken = await ledger.take(*consumed("a", 2, 3), *consumed("a", 6, 7))
        assert taken.missing == 2
        assert [row[0] for row in await ledger.balances("a")] == [1, 2, 3, 6, 7]

    play(database_url, story)


def test_a_fork_is_put_behind_and_told_and_comes_once(database_url: str) -> None:
    """Redis had said 2 to 5, lost 4 and 5, and admitted two others since."""

    async def story(ledger: Ledger) -> None:
        await ledger.add("a")
        await ledger.take(*consumed("a", 2, 5))
        forks = [consume("a", 4, 98, "other-1"), consume("a", 5, 97, "other-2"), consume("a", 6, 96, "other-3")]
        await ledger.take(*forks)
        assert (await ledger.balances("a"))[-3:] == [(6, 96, 95), (7, 95, 94), (8, 94, 93)]
        assert [row[0] for row in await ledger.rows("a", "request_id")][-3:] == ["other-1", "other-2", "other-3"]
        assert (await ledger.standing("a"))[:3] == (8, 93, 100)
        assert ledger.forks == 1
        await ledger.take(*forks)
        assert len(await ledger.balances("a")) == 8
        assert ledger.forks == 1

    play(database_url, story)


def test_a_recharge_that_forked_gives_its_quota_and_its_difference(database_url: str) -> None:
    async def story(ledger: Ledger) -> None:
        await ledger.add("a")
        await ledger.take(*consumed("a", 2, 3))
        await ledger.take(Change("a", 2, Action.RECHARGE, 100, 150, 150, "", AT_MS + 50))
        assert (await ledger.standing("a"))[:3] == (4, 148, 150)

    play(database_url, story)


def test_what_was_sent_anew_by_an_edit_meanwhile_is_not_overwritten(database_url: str) -> None:
    async def story(ledger: Ledger) -> None:
        await ledger.add("a")
        await ledger.take(*consumed("a", 2, 3))
        await ledger.change("a", sequence=9, remaining=5)
        await ledger.take(*consumed("a", 2, 3))
        assert (await ledger.standing("a"))[:2] == (9, 5)

    play(database_url, story)


def test_rows_of_unknown_tokens_are_kept(database_url: str) -> None:
    async def story(ledger: Ledger) -> None:
        taken = await ledger.take(*consumed("x", 5, 6))
        assert taken.missing == 0
        taken = await ledger.take(*consumed("x", 5, 7), *consumed("x", 9, 9))
        assert taken.missing == 1
        assert await ledger.rows("x", "sequence", "ws_id", "email", "unit") == [(n, "", "", None) for n in (5, 6, 7, 9)]
        async with ledger.database.write() as connection:
            row = {"token": "y", "sequence": 4, "balance": 50, "total": 60}
            await connection.execute(insert(tables.token_quota_carried), [row])
        await ledger.take(consume("y", 4, 90, "fork"))
        assert await ledger.balances("y") == [(5, 50, 49)]

    play(database_url, story)


def test_poison_does_not_keep_others_out(database_url: str) -> None:
    async def story(ledger: Ledger) -> None:
        await ledger.add("a")
        taken = await ledger.take(b"\xc1", *consumed("a", 2, 2))
        assert [entry.id for entry in taken.undecodable] == ["1-0"]
        assert len(await ledger.balances("a")) == 2
        long = outcome("a", "a-2", "x" * 100, "y" * 5000, "z" * 100)
        await ledger.take(long, consume("a", 3, 99, "r" * 500))
        assert [len(text) for text in (await ledger.rows("a", *ENDED[1:]))[1]] == [64, 1000, 16]
        await ledger.take(outcome("a", "r" * 500))
        assert await ledger.rows("a", "execution_success") == [(None,), (0,), (1,)]

    play(database_url, story)
