"""The ledger of an access token's quota as lists: what changed it, and what became of the request."""

import builtins
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, func, select

from admin.database import Database
from admin.rules.token_records import QuotaLog, Span
from admin.tables import token_quota_logs

_ROW = token_quota_logs.c


_COLUMNS = tuple(_ROW[name] for name in QuotaLog.__struct_fields__)


class QuotaLogs:
    """The ledger, read only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, *, token: str, span: Span, limit: int, offset: int = 0) -> Sequence[QuotaLog]:
        """At most `limit` of a token (its id), newest first, without the first `offset`."""
        # By what an index is in the order of: to look through a whole ledger for a span takes long.
        order = [_ROW.sequence.desc()] if span == Span() else [_ROW.created_at.desc(), _ROW.sequence.desc()]
        # Of rows that are passed over, only their places in an index are read.
        ids = select(_ROW.id).where(*_conditions(token, span)).order_by(*order)
        shown = ids.offset(offset).limit(limit).subquery()
        query = select(*_COLUMNS).join(shown, shown.c.id == _ROW.id).order_by(*order)
        async with self._database.read() as connection:
            return [_log(row) for row in await connection.execute(query)]

    async def count(self, *, token: str, span: Span) -> int:
        query = select(func.count()).select_from(token_quota_logs).where(*_conditions(token, span))
        async with self._database.read() as connection:
            return int((await connection.execute(query)).scalar_one())


def _conditions(token: str, span: Span) -> builtins.list[ColumnElement[bool]]:
    found: builtins.list[ColumnElement[bool]] = [_ROW.token == token]
    if span.begin_ms is not None:
        found.append(_ROW.created_at >= span.begin_ms)
    if span.end_ms is not None:
        found.append(_ROW.created_at < span.end_ms)
    return found


def _log(row: Row[Any]) -> QuotaLog:
    """Texts that say nothing are none."""
    fields = {name: None if value == "" else value for name, value in row._asdict().items()}
    success = fields["execution_success"]
    return QuotaLog(
        **fields
        | {
            "ws_id": fields["ws_id"] or "",
            "email": fields["email"] or "",
            "execution_success": None if success is None else bool(success),
        }
    )
