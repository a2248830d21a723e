"""The proof in SQL: beside a control plane that writes, and the first token that differs is named."""

from typing import Any

import pytest
from sqlalchemy import delete, update

from admin import tables
from admin.database import Database
from admin.services import ledger_proof as module
from admin.services.ledger_proof import LedgerProof, Proved
from admin.services.ledger_retention import DAY_MS, LedgerRetention
from tests.admin.ledgers import AT_MS, Ledger, consume, consumed
from tests.sql_servers import with_database

_ROW = tables.token_quota_logs.c


def test_what_adds_up_does_so_in_pages_and_after_a_cleaning(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOKENS_MAX", 2)
    monkeypatch.setattr(module, "ROWS_MAX", 3)

    async def story(database: Database) -> None:
        ledger, proof = Ledger(database), LedgerProof(database)
        assert await proof.prove() == Proved(0, 0)
        await ledger.add("a", "b", "c", "d", "e")
        await ledger.add("timed", total=None)
        await ledger.take(*consumed("a", 2, 8), *consumed("b", 2, 3), *consumed("e", 2, 2), *consumed("gone", 4, 6))
        assert await proof.prove() == Proved(6, 5 + 7 + 2 + 1 + 3)
        await LedgerRetention(database, 1, lambda: AT_MS + DAY_MS + 5).forget()
        assert await proof.prove() == Proved(6, 9)
        await ledger.take(*consumed("a", 9, 9), *consumed("b", 4, 4))
        assert (await proof.prove()).problem == ""
        assert await proof.left_by("a", 9) == 92
        assert (await proof.left_by("c", 1), await proof.left_by("c", 2)) == (100, None), "it is carried"

    with_database(database_url, story)


@pytest.mark.parametrize(
    ("where", "values", "problem"),
    [
        ((_ROW.token == "b", _ROW.sequence == 3), None, "row 3 is missing, 4 is there"),
        ((_ROW.token == "b", _ROW.sequence == 5), None, "its rows end with number 4, and 5 are counted"),
        ((_ROW.token == "b", _ROW.sequence == 1), None, "row 1 is missing, 2 is there"),
        ((_ROW.token == "b", _ROW.sequence == 2), {"quota_change": -2}, "row 2 makes 99 of 100 by a change of -2"),
    ],
)
def test_the_first_token_that_differs_is_named(
    database_url: str, where: tuple[Any, ...], values: dict[str, int] | None, problem: str
) -> None:
    async def story(database: Database) -> None:
        ledger = Ledger(database)
        await ledger.add("a", "b", "c")
        await ledger.take(*(one for name in "abc" for one in consumed(name, 2, 5)))
        async with database.write() as connection:
            rows = tables.token_quota_logs
            wrong = delete(rows) if values is None else update(rows).values(values)
            await connection.execute(wrong.where(*where))
            await connection.execute(delete(rows).where(_ROW.token == "c"))
        proved = await LedgerProof(database).prove()
        assert (proved.token, proved.problem) == ("b", problem)

    with_database(database_url, story)


def test_what_is_written_meanwhile_is_no_difference(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows come between the token and its rows are read, so the token is looked at once more, alone."""

    async def story(database: Database) -> None:
        ledger, proof = Ledger(database), LedgerProof(database)
        await ledger.add("a")

        async def seen(_names: Any) -> tuple[list[str], int]:
            await ledger.take(consume("a", 2, 100))
            return ["a"], 1

        monkeypatch.setattr(proof, "_beside_others", seen)
        assert (await proof.prove()).problem == ""

    with_database(database_url, story)


def test_rows_of_a_token_that_is_gone_follow_each_other_too(database_url: str) -> None:
    async def story(database: Database) -> None:
        await Ledger(database).take(*consumed("gone", 4, 5), *consumed("gone", 7, 7))
        proved = await LedgerProof(database).prove()
        assert (proved.token, proved.problem) == ("gone", "row 6 is missing, 7 is there")

    with_database(database_url, story)
