"""How much of its allowance each key has used, at the paths of reference 001: figures, sums, days, and the sync.

Figures are what providers say, in tokens or whatever they count in; null is not known. Times are milliseconds since
1970.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
from litestar import delete, get, post

from admin import answers
from admin.answers import Answer, documented
from admin.context import AdminRequest, key_services_of, recorded
from admin.endpoints.key_statistics import DaysBack
from admin.endpoints.keys import After, Limit, OfStatus, Page, Pagination, page_of
from admin.endpoints.pages import KeyId, Text, TextOrNone
from admin.key_ports import KeyRecord, SyncProgress
from admin.rules.balances import Day, remaining
from admin.rules.key_records import Shown, percent
from admin.rules.periods import DAY_S, starts

BASE = "/admin/token"
USAGE = BASE + "/usage"
SYNC = BASE + "/sync"
HISTORY = BASE + "/history"
DAYS = 30


class UsageView(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider said of a key at `last_sync`, in a period from `period_begin` to `period_end`.

    `percentage` is of `limit`. `error` says in a word why it said nothing at `error_at`, if that was later.
    """

    id: str
    key: str
    provider: str
    pool_group: str = msgspec.field(name="poolGroup")
    status: str
    used: int | None
    limit: int | None
    remaining: int | None
    percentage: float | None
    period_begin: int | None
    period_end: int | None
    last_sync: int | None
    error: str | None
    error_at: int | None


class UsagePage(msgspec.Struct, frozen=True):
    keys: list[UsageView]
    pagination: Pagination


class UsageList(Answer, frozen=True, kw_only=True):
    """Oldest key first."""

    data: UsagePage


class OneUsage(Answer, frozen=True, kw_only=True):
    data: UsageView


class UsageSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Sums of what is known. `known_keys` have figures; `failed_keys` could not be asked about the last time.

    `oldest_sync` is when the oldest of the figures were read, `last_sync` the newest.
    """

    total_keys: int
    known_keys: int
    failed_keys: int
    total_used: int
    total_limit: int
    total_remaining: int
    percentage: float
    oldest_sync: int | None
    last_sync: int | None


class SummaryAnswer(Answer, frozen=True, kw_only=True):
    data: UsageSummary


class UsageDay(msgspec.Struct, frozen=True, kw_only=True):
    """A day (UTC): its last figures, and `spent`, what was used between its readings."""

    date: str
    used: int | None
    limit: int | None
    remaining: int | None
    spent: int | None


class HistoryAnswer(Answer, frozen=True, kw_only=True):
    """A day each, oldest first; of a day without a reading all is null."""

    data: list[UsageDay]


class SyncView(msgspec.Struct, frozen=True, kw_only=True):
    """`state` is `idle`, `running`, `done`, `cancelled` or `failed`. Keys that no query is for are `skipped`."""

    state: str
    total: int
    success: int
    failed: int
    skipped: int
    started_at: int | None
    ended_at: int | None


class SyncAnswer(Answer, frozen=True, kw_only=True):
    message: str
    data: SyncView


class Forgotten(msgspec.Struct, frozen=True):
    deleted: int


class ForgottenAnswer(Answer, frozen=True, kw_only=True):
    message: str
    data: Forgotten


_ERRORS = documented(401, 403, 429, 503)


@get(USAGE, responses=documented(400) | _ERRORS)
async def list_usage(
    request: AdminRequest,
    status: OfStatus = Shown.ALL,
    page: Page = 1,
    limit: Limit = 10,
    after: After = None,
    group: TextOrNone = None,
    provider: TextOrNone = None,
    q: Text = "",
) -> UsageList:
    """Lists what keys have used, a page at a time, as keys are listed."""
    found, pagination = await page_of(request, status, page, limit, after, group, provider, q)
    return UsageList(data=UsagePage([usage(record) for record in found], pagination))


@get(USAGE + "/{key_id:str}", responses=documented(400, 404) | _ERRORS)
async def get_usage(request: AdminRequest, key_id: KeyId) -> OneUsage:
    """Shows what a key has used."""
    return OneUsage(data=usage(await _existing(request, key_id)))


@get(BASE + "/summary", responses=_ERRORS)
async def usage_summary(request: AdminRequest) -> SummaryAnswer:
    """Shows what all keys have used, disabled ones too."""
    totals = await key_services_of(request).balances.totals()
    return SummaryAnswer(
        data=UsageSummary(
            total_keys=totals.keys,
            known_keys=totals.known,
            failed_keys=totals.failing,
            total_used=totals.used,
            total_limit=totals.total,
            total_remaining=totals.remaining,
            percentage=percent(totals.total - totals.remaining, totals.total),
            oldest_sync=totals.oldest_at,
            last_sync=totals.newest_at,
        )
    )


@get(HISTORY, responses=documented(400) | _ERRORS)
async def usage_history(request: AdminRequest, days: DaysBack = DAYS) -> HistoryAnswer:
    """Shows day by day what all keys have used, those that are gone too."""
    shown = starts(DAY_S, days, time.time())
    found = await key_services_of(request).balances.history(since_s=shown[0])
    return HistoryAnswer(data=_by_day(found, shown))


@get(HISTORY + "/{key_id:str}", responses=documented(400, 404) | _ERRORS)
async def key_history(request: AdminRequest, key_id: KeyId, days: DaysBack = DAYS) -> HistoryAnswer:
    """Shows day by day what a key has used."""
    await _existing(request, key_id)
    shown = starts(DAY_S, days, time.time())
    found = await key_services_of(request).balances.history(since_s=shown[0], id=key_id)
    return HistoryAnswer(data=_by_day(found, shown))


@post(SYNC, status_code=202, responses=documented(409) | _ERRORS)
async def start_sync(request: AdminRequest) -> SyncAnswer:
    """Begins to ask providers about all keys but disabled ones, `performance.concurrentLimit` of them at once.

    A key whose provider does not answer keeps its figures.
    """
    async with recorded(request, "balances.sync", "all keys"):
        progress = await key_services_of(request).sync.start()
    return _told("Begun.", progress)


@get(SYNC, responses=_ERRORS)
async def show_sync(request: AdminRequest) -> SyncAnswer:
    """Shows how far the sync is, or how the last one of this control plane ended."""
    progress = key_services_of(request).sync.progress()
    done = progress.success + progress.failed + progress.skipped
    return _told(f"{done} of {progress.total} done.", progress)


@delete(SYNC, status_code=200, responses=_ERRORS)
async def cancel_sync(request: AdminRequest) -> SyncAnswer:
    """Ends the sync; what has been read is kept."""
    async with recorded(request, "balances.sync.cancel", "all keys"):
        progress = await key_services_of(request).sync.cancel()
    return _told("Cancelled." if progress.state == "cancelled" else "No sync is running.", progress)


@post(BASE + "/cleanup", status_code=200, responses=_ERRORS)
async def clean_up(request: AdminRequest) -> ForgottenAnswer:
    """Removes days of history that are older than `retention.day_rows_days`, as is done once an hour anyway."""
    async with recorded(request, "balances.cleanup", "history"):
        deleted = await key_services_of(request).balances.forget()
    return ForgottenAnswer(message=f"{deleted} removed.", data=Forgotten(deleted))


def usage(record: KeyRecord) -> UsageView:
    used, limit = record.tokens_used, record.tokens_total
    left = remaining(used, limit)
    return UsageView(
        id=record.id,
        key=record.masked,
        provider=record.provider,
        pool_group=record.group,
        status=record.status,
        used=used,
        limit=limit,
        remaining=left,
        percentage=None if used is None or not limit else percent(used, limit),
        period_begin=record.tokens_begin,
        period_end=record.tokens_end,
        last_sync=record.tokens_at,
        error=record.tokens_error,
        error_at=record.tokens_error_at,
    )


async def _existing(request: AdminRequest, key_id: str) -> KeyRecord:
    record = await key_services_of(request).keys.get(id=key_id)
    if record is None:
        raise answers.no_key()
    return record


def _by_day(days: Sequence[Day], starts_s: Sequence[int]) -> list[UsageDay]:
    found = {one.start_s: one for one in days}
    return [_day(start_s, found.get(start_s)) for start_s in starts_s]


def _day(start_s: int, day: Day | None) -> UsageDay:
    date = datetime.fromtimestamp(start_s, UTC).strftime("%Y-%m-%d")
    if day is None:
        return UsageDay(date=date, used=None, limit=None, remaining=None, spent=None)
    left = remaining(day.used, day.total)
    return UsageDay(date=date, used=day.used, limit=day.total, remaining=left, spent=day.spent)


def _told(message: str, progress: SyncProgress) -> SyncAnswer:
    return SyncAnswer(
        message=message,
        data=SyncView(
            state=progress.state,
            total=progress.total,
            success=progress.success,
            failed=progress.failed,
            skipped=progress.skipped,
            started_at=progress.started_at,
            ended_at=progress.ended_at,
        ),
    )


PRIVATE = [
    list_usage,
    get_usage,
    usage_summary,
    usage_history,
    key_history,
    start_sync,
    show_sync,
    cancel_sync,
    clean_up,
]
