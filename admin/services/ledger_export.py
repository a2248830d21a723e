"""The ledger as CSV, a thousand rows at a time: of one token, or of all."""

import csv
import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, select

from admin.database import Database
from admin.rules.token_records import Span
from admin.tables import token_quota_logs

ROWS_MAX = 1000

_ROW = token_quota_logs.c
COLUMNS = (
    *("token", "sequence", "created_at", "action", "quota_before", "quota_after", "quota_change", "total_after"),
    *("unit", "ws_id", "email", "request_id", "execution_success", "execution_error_type"),
    *("execution_error_message", "usage_mark"),
)
_CREATED_AT = COLUMNS.index("created_at")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a text begins that spreadsheets compute; they take it for text behind an apostrophe. Clients choose the ids of
their requests."""


class LedgerExport:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def csv(self, *, token: str | None, span: Span) -> AsyncIterator[str]:
        """A header, and the rows of a token (its id), oldest first; or of all, in the order in which they came.

        Times are as RFC 3339 has them. Raises DatabaseDown.
        """
        yield _lines([COLUMNS])
        after = 0
        while True:
            async with self._database.read() as connection:
                rows = (await connection.execute(_behind(after, token, span))).all()
            if rows:
                yield _lines([_cells(row) for row in rows])
            if len(rows) < ROWS_MAX:
                return
            after = rows[-1][-1]


def _behind(after: int, token: str | None, span: Span) -> Select[Any]:
    """Rows of a token have their numbers in the order of their ids, which is that of all."""
    query = select(*(_ROW[name] for name in COLUMNS), _ROW.id if token is None else _ROW.sequence.label("place"))
    if token is None:
        query = query.where(_ROW.id > after).order_by(_ROW.id)
    else:
        query = query.where(_ROW.token == token, _ROW.sequence > after).order_by(_ROW.sequence)
    if span.begin_ms is not None:
        query = query.where(_ROW.created_at >= span.begin_ms)
    if span.end_ms is not None:
        query = query.where(_ROW.created_at < span.end_ms)
    return query.limit(ROWS_MAX)


def _cells(row: Any) -> list[object]:
    cells: list[Any] = ["'" + cell if isinstance(cell, str) and cell.startswith(FORMULA) else cell for cell in row[:-1]]
    at = datetime.fromtimestamp(cells[_CREATED_AT] / 1000, UTC)
    cells[_CREATED_AT] = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return cells


def _lines(rows: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()
