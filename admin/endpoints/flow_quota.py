"""The ledger as a whole: its way into the database, its cleaning, and it as CSV, in the shapes of reference 002."""

import msgspec
from litestar import get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.response import Stream

from admin.context import AdminRequest, recorded, token_services_of
from admin.endpoints.flow_logs import Begin, End, span_of
from admin.endpoints.flow_tokens import ONE, TokenName, existing
from admin.flow_answers import BASE, FlowAnswer, documented, stamp, text_or_none

CLEANUP = BASE + "/quota/cleanup"
CSV = "text/csv"


class CleanupView(msgspec.Struct, frozen=True, kw_only=True):
    """What was removed of the ledger by all control planes, and when this one does so next. Intervals are as `24h0m0s`.

    What removed rows amount to is carried, so the ledger still adds up. `next_cleanup_time` is null where it is off.
    """

    enabled: bool
    retention_days: int
    cleanup_interval: str
    batch_size: int
    last_cleanup_time: str | None
    last_cleanup_count: int
    total_cleaned_count: int
    next_cleanup_time: str | None
    running: bool


class Cleanup(FlowAnswer, frozen=True, kw_only=True):
    data: CleanupView


class QueueView(msgspec.Struct, frozen=True, kw_only=True):
    """Counters and log go one way, so both queues are the same: entries of the stream that are not in the database yet.

    Nothing is dropped when they are many, so there is no capacity: null. `lag_seconds` is how long the oldest entry has
    waited. Lengths and lag are null while Redis does not answer.
    """

    sync_queue_len: int | None
    sync_queue_cap: None
    log_queue_len: int | None
    log_queue_cap: None
    sync_interval: str
    sync_batch_size: int
    lag_seconds: float | None


class Queue(FlowAnswer, frozen=True, kw_only=True):
    data: QueueView


_ERRORS = documented(401, 403, 429, 503)


@get(CLEANUP + "/stats", responses=_ERRORS)
async def cleanup_stats(request: AdminRequest) -> Cleanup:
    """Shows when old rows of the ledger are removed, and how many were."""
    return Cleanup(data=await _standing(request), **stamp(request))


@post(CLEANUP + "/trigger", status_code=200, responses=_ERRORS)
async def trigger_cleanup(request: AdminRequest) -> Cleanup:
    """Begins to remove old rows of the ledger, also where that is not done by itself. It goes on after the answer."""
    async with recorded(request, "quota.cleanup", "ledger"):
        begun = token_services_of(request).cleanup.trigger()
        standing = await _standing(request)
    return Cleanup(data=standing, message="Begun." if begun else "It runs already.", **stamp(request))


@get(BASE + "/cache-write-pool/stats", responses=_ERRORS)
async def queue_stats(request: AdminRequest) -> Queue:
    """Shows how far the database is behind Redis with counters and log."""
    ledger = token_services_of(request).ledger
    waiting, lag_s = ledger.stream.lag() or (None, None)
    return Queue(
        data=QueueView(
            sync_queue_len=waiting,
            sync_queue_cap=None,
            log_queue_len=waiting,
            log_queue_cap=None,
            sync_interval=f"{ledger.poll_s:g}s",
            sync_batch_size=ledger.entries_max,
            lag_seconds=None if lag_s is None else round(lag_s, 3),
        ),
        **stamp(request),
    )


@get(
    ONE + "/quota/logs.csv",
    media_type=CSV,
    responses={200: ResponseSpec(str, description="The rows, oldest first.", media_type=CSV)}
    | documented(400, 401, 403, 404, 429, 503),
)
async def export_logs(
    request: AdminRequest, token: TokenName, start_date: Begin = None, end_date: End = None
) -> Stream:
    """Returns all changes of an access token's quota as CSV. Times are as RFC 3339 has them."""
    span = span_of(start_date, end_date)
    found = await existing(request, token)
    lines = token_services_of(request).export.csv(token=found.id, span=span)
    fields = {"content-disposition": f'attachment; filename="{found.id}.csv"'}
    return Stream(lines, media_type=CSV, headers=fields)


async def _standing(request: AdminRequest) -> CleanupView:
    standing = await token_services_of(request).cleanup.standing()
    return CleanupView(
        enabled=standing.enabled,
        retention_days=standing.retention_days,
        cleanup_interval=f"{standing.interval_hours}h0m0s",
        batch_size=standing.batch_rows,
        last_cleanup_time=text_or_none(standing.last_at_ms),
        last_cleanup_count=standing.last_rows,
        total_cleaned_count=standing.total_rows,
        next_cleanup_time=text_or_none(standing.next_at_ms),
        running=standing.is_running,
    )


PRIVATE = [cleanup_stats, trigger_cleanup, queue_stats, export_logs]
