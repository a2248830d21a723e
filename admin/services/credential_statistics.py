"""What was asked with keys: in all, by hour and day, and which did best."""

from collections.abc import Callable, Sequence

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from admin.database import Database
from admin.rules.key_records import Status, StatusCounts, UsePoint
from admin.services import credential_lists
from admin.services.credential_rows import COLUMNS, IS_KEY, StoredCredential, stored
from admin.tables import credential_statistics, credentials

ALL = ""
"""Stands in the place of a credential for all of them together, those that are gone too."""

_ROW = credentials.c
_SLOT = credential_statistics.c


class CredentialStatistics:
    """`now_ms` is the clock, in milliseconds since 1970."""

    def __init__(self, database: Database, now_ms: Callable[[], int]) -> None:
        self._database = database
        self._now_ms = now_ms

    async def counts(self) -> StatusCounts:
        """Keys by status, and what was asked with those that are there."""
        sums = select(*(func.coalesce(func.sum(one), 0) for one in (_ROW.requests, _ROW.successes, _ROW.errors)))
        async with self._database.read() as connection:
            groups = await credential_lists.counts(connection, self._now_ms())
            used = (await connection.execute(sums.where(IS_KEY, _ROW.requests > 0))).one()
        of = {status: sum(counts[status] for counts in groups.values()) for status in Status}
        numbers = (of[Status.ACTIVE], of[Status.DISABLED], of[Status.BANNED])
        return StatusCounts(sum(numbers), *numbers, *map(int, used))

    async def ranking(self, *, limit: int) -> Sequence[StoredCredential]:
        """Keys that were used, best first: by success rate, then by requests."""
        async with self._database.read() as connection:
            return await _best(connection, limit, self._now_ms())

    async def uses(self, *, period_s: int, since_s: int, id: str = ALL) -> Sequence[UsePoint]:  # noqa: A002 - the word
        """Attempts by hour or day, oldest first, with all credentials or one; slots without any are missing."""
        query = select(_SLOT.start_s, _SLOT.requests, _SLOT.successes, _SLOT.errors)
        chosen = (_SLOT.period_s == period_s, _SLOT.start_s >= since_s, _SLOT.credential == id)
        async with self._database.read() as connection:
            rows = await connection.execute(query.where(*chosen).order_by(_SLOT.start_s))
            return [UsePoint(*row) for row in rows]


async def _best(connection: AsyncConnection, limit: int, now_ms: int) -> list[StoredCredential]:
    rate = _ROW.successes * 1.0 / _ROW.requests
    ids = select(_ROW.id).where(IS_KEY, _ROW.requests > 0).order_by(rate.desc(), _ROW.requests.desc(), _ROW.id)
    shown = [str(name) for name in await connection.scalars(ids.limit(limit))]
    rows = await connection.execute(select(*COLUMNS).where(_ROW.id.in_(shown)))
    found = {one.id: one for one in (stored(row, now_ms) for row in rows)}
    return [found[name] for name in shown if name in found]
