"""When old rows of the ledger are removed: a minute after the start, each so many hours, and when somebody asks."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from admin.database import DatabaseDown
from admin.rules.token_records import CleanupStanding
from admin.services.ledger_retention import ROWS_MAX, LedgerRetention
from proxy.config import QuotaCleanup as Kept

log = logging.getLogger("relaygate")

FIRST_MS = 60_000
"""Also from a failure to the next try."""
HOUR_MS = 3_600_000


class QuotaCleanup:
    """`now_ms` is the clock, in milliseconds since 1970."""

    def __init__(self, kept: Kept, retention: LedgerRetention, now_ms: Callable[[], int]) -> None:
        self._kept = kept
        self._retention = retention
        self._now_ms = now_ms
        self._wanted = asyncio.Event()
        self._next_ms = now_ms() + FIRST_MS if kept.enabled else None
        self._is_running = False

    def trigger(self) -> bool:
        """Has it begun, and returns True; False where it runs already, or is about to."""
        if self._is_running or self._wanted.is_set():
            return False
        self._wanted.set()
        return True

    async def standing(self) -> CleanupStanding:
        """Raises DatabaseDown."""
        cleaned = await self._retention.cleaned()
        return CleanupStanding(
            enabled=self._kept.enabled,
            retention_days=self._kept.retention_days,
            interval_hours=self._kept.interval_hours,
            batch_rows=ROWS_MAX,
            last_at_ms=cleaned.at_ms,
            last_rows=cleaned.rows,
            total_rows=cleaned.total,
            next_at_ms=self._next_ms,
            is_running=self._is_running or self._wanted.is_set(),
        )

    async def run(self) -> None:
        """Cleans when it is time, or asked for, until it is cancelled."""
        while True:
            await self._wait()
            self._is_running = True
            self._wanted.clear()
            interval_ms = FIRST_MS
            try:
                await self._retention.forget()
                interval_ms = self._kept.interval_hours * HOUR_MS
            except DatabaseDown:  # its state is told where it changes
                pass
            except Exception as error:
                log.error("the cleaning of the ledger failed: %s", type(error).__name__)  # noqa: TRY400 - a line
            finally:
                self._is_running = False
            if self._kept.enabled:
                self._next_ms = self._now_ms() + interval_ms

    async def _wait(self) -> None:
        wait_s = None if self._next_ms is None else max(0.0, (self._next_ms - self._now_ms()) / 1000)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._wanted.wait()
