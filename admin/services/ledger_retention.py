"""What is forgotten of the ledger: its oldest rows. What they left is carried, so that each token still adds up.

Rows go in the order in which they came, up to the first that is to stay; so of each token those that go are its first.
Each statement removes a bounded number of them, in a transaction of its own.
"""

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from admin import tables
from admin.database import Database
from admin.services import events
from admin.services.settings import read, write

ROWS_MAX = 10_000
DAY_MS = 24 * 3600 * 1000
CLEANED = "quota_cleanup"
"""The setting that keeps what was removed."""

_ROW = tables.token_quota_logs.c
_CARRIED = tables.token_quota_carried.c


class Cleaned(msgspec.Struct, frozen=True):
    """When rows were last removed (milliseconds since 1970; None: never), how many then, and how many ever."""

    at_ms: int | None = None
    rows: int = 0
    total: int = 0


class _Batch(NamedTuple):
    rows: int
    is_last: bool


class LedgerRetention:
    """`kept_days` is how long rows are kept; `now_ms` is the clock, in milliseconds since 1970."""

    def __init__(self, database: Database, kept_days: int, now_ms: Callable[[], int]) -> None:
        self._database = database
        self._kept_days = kept_days
        self._now_ms = now_ms

    async def cleaned(self) -> Cleaned:
        """What all control planes have removed. Raises DatabaseDown."""
        async with self._database.read() as connection:
            return await _cleaned(connection)

    async def forget(self) -> int:
        """Removes what is older than it is kept; returns how many rows. Raises DatabaseDown."""
        now_ms = self._now_ms()
        removed, is_last = 0, False
        while not is_last:
            batch = await self._database.transact(
                lambda connection, before=removed: self._forget_some(connection, now_ms, before)  # type: ignore[misc]
            )
            removed, is_last = removed + batch.rows, batch.is_last
        return removed

    async def _forget_some(self, connection: AsyncConnection, now_ms: int, before: int) -> _Batch:
        """Removes the oldest, notes what they left, and counts them to the `before` that this run has removed."""
        await events.lock(connection, "ledger")
        last_ms = now_ms - self._kept_days * DAY_MS
        columns = (_ROW.id, _ROW.token, _ROW.sequence, _ROW.quota_after, _ROW.total_after, _ROW.created_at)
        rows = (await connection.execute(select(*columns).order_by(_ROW.id).limit(ROWS_MAX))).all()
        old = [*takewhile(lambda row: row.created_at <= last_ms, rows)]
        if old:
            await _carry(connection, old)
            await connection.execute(delete(tables.token_quota_logs).where(_ROW.id <= old[-1].id))
        known = await _cleaned(connection)
        cleaned = Cleaned(now_ms, before + len(old), known.total + len(old))
        await write(connection, CLEANED, msgspec.json.encode(cleaned).decode())
        return _Batch(len(old), len(old) < ROWS_MAX)


async def _carry(connection: AsyncConnection, old: Sequence[Any]) -> None:
    ends = {
        row.token: {"token": row.token, "sequence": row.sequence, "balance": row.quota_after, "total": row.total_after}
        for row in old
    }
    await connection.execute(delete(tables.token_quota_carried).where(_CARRIED.token.in_(ends)))
    await connection.execute(insert(tables.token_quota_carried), [*ends.values()])


async def _cleaned(connection: AsyncConnection) -> Cleaned:
    kept = await read(connection, CLEANED)
    return Cleaned() if kept is None else msgspec.json.decode(kept, type=Cleaned)
