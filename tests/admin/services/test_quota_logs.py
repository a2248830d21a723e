"""The ledger of a token's quota as lists: newest first, in pages, of a span of time."""

from typing import Any

from sqlalchemy import insert

from admin.database import Database
from admin.rules.token_records import QuotaLog, Span
from admin.services.quota_logs import QuotaLogs
from admin.tables import token_quota_logs
from tests.sql_servers import with_database

NOW_MS = 1_763_700_000_000
EVERY = Span()


def change(token: str, sequence: int, **fields: Any) -> dict[str, Any]:
    row = {
        "token": token,
        "sequence": sequence,
        "ws_id": "w",
        "email": "e@x.test",
        "quota_before": 11 - sequence,
        "quota_after": 10 - sequence,
        "quota_change": -1,
        "total_after": 10,
        "action": "consume",
        "unit": "requests",
        "request_id": f"r{sequence}",
        "created_at": NOW_MS + sequence,
        "execution_success": None,
        "execution_error_type": None,
        "execution_error_message": None,
        "usage_mark": None,
    }
    return row | fields


async def put(database: Database, *rows: dict[str, Any]) -> QuotaLogs:
    async with database.write() as connection:
        await connection.execute(insert(token_quota_logs), list(rows))
    return QuotaLogs(database)


def test_a_row_is_told_as_it_is(database_url: str) -> None:
    async def story(database: Database) -> None:
        outcome = {"execution_success": 0, "execution_error_type": "timeout", "execution_error_message": "too late"}
        logs = await put(
            database,
            change("t", 1, request_id=None, action="init"),
            change("t", 2, execution_success=1, usage_mark="exact"),
            change("t", 3, **outcome),
            change("t", 4, request_id="", ws_id="", email="", execution_error_type=""),
        )
        found = await logs.list(token="t", span=EVERY, limit=10)
        assert [one.sequence for one in found] == [4, 3, 2, 1]
        assert found[1] == QuotaLog(
            id=3,
            sequence=3,
            ws_id="w",
            email="e@x.test",
            quota_before=8,
            quota_after=7,
            quota_change=-1,
            total_after=10,
            action="consume",
            unit="requests",
            request_id="r3",
            execution_success=False,
            execution_error_type="timeout",
            execution_error_message="too late",
            usage_mark=None,
            created_at=NOW_MS + 3,
        )
        assert [one.execution_success for one in found] == [None, False, True, None]
        assert [one.usage_mark for one in found] == [None, None, "exact", None]
        assert (found[0].request_id, found[0].ws_id, found[0].email, found[0].execution_error_type) == (
            None,
            "",
            "",
            None,
        )
        assert found[3].request_id is None

    with_database(database_url, story)


def test_pages_and_spans_of_one_token(database_url: str) -> None:
    async def story(database: Database) -> None:
        rows = [change("t", sequence) for sequence in range(1, 8)]
        logs = await put(database, *rows, change("other", 1), change("other", 2))

        async def listed(span: Span, limit: int = 10, offset: int = 0) -> list[int]:
            found = await logs.list(token="t", span=span, limit=limit, offset=offset)
            return [one.sequence for one in found]

        assert [await listed(EVERY, 3, offset) for offset in (0, 3, 6, 9)] == [[7, 6, 5], [4, 3, 2], [1], []]
        for span, expected in (
            (EVERY, [7, 6, 5, 4, 3, 2, 1]),
            (Span(NOW_MS + 3), [7, 6, 5, 4, 3]),
            (Span(None, NOW_MS + 3), [2, 1]),
            (Span(NOW_MS + 3, NOW_MS + 5), [4, 3]),
            (Span(NOW_MS + 8), []),
        ):
            assert await listed(span) == expected
            assert await logs.count(token="t", span=span) == len(expected)
        assert await logs.list(token="none", span=EVERY, limit=5) == []

    with_database(database_url, story)


def test_changes_of_one_moment_are_in_their_order(database_url: str) -> None:
    async def story(database: Database) -> None:
        logs = await put(database, *(change("t", sequence, created_at=NOW_MS) for sequence in (3, 1, 4, 2)))
        for span in (EVERY, Span(NOW_MS), Span(None, NOW_MS + 1)):
            found = [await logs.list(token="t", span=span, limit=3, offset=offset) for offset in (0, 3)]
            assert [[one.sequence for one in page] for page in found] == [[4, 3, 2], [1]]

    with_database(database_url, story)
