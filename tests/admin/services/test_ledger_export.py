"""The ledger as CSV: all of it, in pages that nobody sees."""

import csv
import io

import pytest

from admin.database import Database
from admin.rules.token_records import Span
from admin.services import ledger_export as module
from admin.services.ledger_export import COLUMNS, LedgerExport
from tests.admin.ledgers import AT_MS, Ledger, consume, consumed, outcome
from tests.sql_servers import with_database


async def read(database: Database, token: str | None = None, span: Span | None = None) -> list[dict[str, str]]:
    text = "".join([part async for part in LedgerExport(database).csv(token=token, span=span or Span())])
    assert text.splitlines()[0] == ",".join(COLUMNS)
    return list(csv.DictReader(io.StringIO(text)))


def test_rows_of_one_and_of_all(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS_MAX", 2)

    async def story(database: Database) -> None:
        ledger = Ledger(database)
        await ledger.add("a", "b")
        await ledger.take(*consumed("a", 2, 4), outcome("a", "a-2", "timeout", 'said "no", twice', "exact"))
        await ledger.take(*consumed("b", 2, 2))
        found = await read(database, "a")
        assert found[1] == {
            "token": "a",
            "sequence": "2",
            "created_at": "2025-11-21T04:40:00.002Z",
            "action": "consume",
            "quota_before": "100",
            "quota_after": "99",
            "quota_change": "-1",
            "total_after": "100",
            "unit": "requests",
            "ws_id": "ws-a",
            "email": "a@example.org",
            "request_id": "a-2",
            "execution_success": "0",
            "execution_error_type": "timeout",
            "execution_error_message": 'said "no", twice',
            "usage_mark": "exact",
        }
        assert [row["sequence"] for row in found] == ["1", "2", "3", "4"]
        assert [row["token"] for row in await read(database)] == ["a", "b", "a", "a", "a", "b"]
        some = await read(database, "a", Span(AT_MS + 2, AT_MS + 4))
        assert [row["sequence"] for row in some] == ["2", "3"]
        assert await read(database, "c") == []

    with_database(database_url, story)


def test_what_a_spreadsheet_would_take_for_a_formula_is_text(database_url: str) -> None:
    """Clients choose the ids of their requests; numbers stay numbers."""

    async def story(database: Database) -> None:
        ledger = Ledger(database)
        await ledger.add("a", ws_id="=1+1", email="@SUM(A1)@b", remaining=0)
        ids = ["+calc|a!A0", "-2", "a=1"]
        await ledger.take(*(consume("a", n, 102 - n, name) for n, name in enumerate(ids, 2)))
        await ledger.take(outcome("a", "-2", "=x", "\t=1", ""))
        found = (await read(database, "a"))[1:]
        assert [row["request_id"] for row in found] == ["'+calc|a!A0", "'-2", "a=1"]
        assert {(row["ws_id"], row["email"]) for row in found} == {("'=1+1", "'@SUM(A1)@b")}
        assert [row["quota_change"] for row in found] == ["-1"] * 3
        assert (found[1]["execution_error_type"], found[1]["execution_error_message"]) == ("'=x", "'\t=1")

    with_database(database_url, story)
