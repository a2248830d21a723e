"""What is forgotten: old rows of statistics, workers that are long gone, old versions of the configuration.

Each statement removes a bounded number of rows in a transaction of its own, so that nobody waits for it. All-time rows
stay.
"""

from collections.abc import Callable, Collection

from sqlalchemy import delete, func, or_, select

from admin import tables
from admin.database import Database
from admin.rules.periods import DAY_S, HOUR_S, MINUTE_S
from admin.services import edits
from proxy.config import Retention as Kept

ROWS_MAX = 10_000
VERSIONS_MAX = 100
"""Versions in a statement: each has the whole configuration in it."""
WORKERS_DAYS = 3650
"""A dead worker's journal may be found on a machine that was off for long: what is forgotten would count twice then."""

_ROW = tables.statistics.c
_WORKER = tables.statistics_workers.c
_VERSION = tables.config_versions.c


class Retention:
    """`living` names the workers that run: one that has had no request for long still counts on from where it was.

    `now_s` is the clock (Unix time).
    """

    def __init__(
        self, database: Database, kept: Kept, living: Callable[[], Collection[str]], now_s: Callable[[], float]
    ) -> None:
        self._database = database
        self._kept = kept
        self._living = living
        self._now_s = now_s

    async def forget(self) -> None:
        """Removes what is older than it is kept. Raises DatabaseDown."""
        now_s = int(self._now_s())
        for period_s, kept_s in (
            (MINUTE_S, self._kept.minute_rows_hours * HOUR_S),
            (HOUR_S, self._kept.hour_rows_days * DAY_S),
            (DAY_S, self._kept.day_rows_days * DAY_S),
        ):
            while await self._forget_rows(period_s, now_s - kept_s - period_s):
                pass
        while await self._forget_workers((now_s - WORKERS_DAYS * DAY_S) * 1000):
            pass
        while await self._forget_versions():
            pass

    async def _forget_rows(self, period_s: int, last_s: int) -> bool:
        """Removes slots that began at `last_s` or before; returns whether there are more."""
        old = (_ROW.period_s == period_s) & (_ROW.start_s <= last_s)
        nth = select(_ROW.start_s, _ROW.series).where(old).order_by(_ROW.start_s, _ROW.series)
        async with self._database.read() as connection:
            bound = (await connection.execute(nth.offset(ROWS_MAX - 1).limit(1))).one_or_none()
        if bound is not None:
            old &= or_(_ROW.start_s < bound.start_s, (_ROW.start_s == bound.start_s) & (_ROW.series <= bound.series))
        await self._database.transact(lambda connection: connection.execute(delete(tables.statistics).where(old)))
        return bound is not None

    async def _forget_workers(self, last_ms: int) -> bool:
        """Removes workers that were seen at `last_ms` or before; returns whether there are more."""
        living = self._living()
        if not living:  # or Redis does not tell
            return False
        old = select(_WORKER.worker).where(_WORKER.seen_at <= last_ms, _WORKER.worker.not_in(living))
        async with self._database.read() as connection:
            names = (await connection.scalars(old.limit(ROWS_MAX))).all()
        gone = delete(tables.statistics_workers).where(_WORKER.worker.in_(names), _WORKER.seen_at <= last_ms)
        await self._database.transact(lambda connection: connection.execute(gone))
        return len(names) == ROWS_MAX

    async def _forget_versions(self) -> bool:
        """Removes the oldest of the versions that are too many; returns whether there are more."""
        async with self._database.read() as connection:
            last = await edits.newest(connection) - self._kept.versions
            first = await connection.scalar(select(func.min(_VERSION.number)))
        if first is None or first > last:
            return False
        old = _VERSION.number < min(first + VERSIONS_MAX, last + 1)
        await self._database.transact(lambda connection: connection.execute(delete(tables.config_versions).where(old)))
        return True
