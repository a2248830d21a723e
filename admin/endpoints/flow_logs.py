"""The log of an access token's quota, as reference 002 documents it: each change, and what became of the request."""

from typing import Annotated

import msgspec
from litestar import get
from litestar.params import QueryParameter

from admin.answers import Refusal
from admin.context import AdminRequest, token_services_of
from admin.endpoints.flow_tokens import ONE, PAGE_SIZE, Page, PageSize, TokenName, existing
from admin.flow_answers import FlowAnswer, documented, stamp, text_of
from admin.rules import dates
from admin.rules.token_records import QuotaLog, Span

Begin = Annotated[
    str | None, QueryParameter(max_length=40, description="From then on: `2026-12-31`, or `2026-12-31 18:30:00` (UTC).")
]
End = Annotated[
    str | None, QueryParameter(max_length=40, description="Until then, which is included: to the end of a date's day.")
]


class LogView(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a quota: `sequence` counts them without gaps, amounts are of `unit`.

    `action` is init, consume, settle (the difference to what was used), refund or recharge. `execution_*` tells how the
    request ended, null while it has not, and `usage` what its amount rests on.
    """

    id: int
    sequence: int
    token: str
    ws_id: str
    email: str
    quota_before: int
    quota_after: int
    quota_change: int
    total_after: int
    action: str
    unit: str | None
    request_id: str | None
    execution_success: bool | None
    execution_error_type: str | None
    execution_error_message: str | None
    usage: str | None
    created_at: str


class LogPage(msgspec.Struct, frozen=True):
    logs: list[LogView]
    total: int
    page: int
    page_size: int
    total_pages: int


class Logs(FlowAnswer, frozen=True, kw_only=True):
    """Newest first."""

    data: LogPage


@get(ONE + "/quota/logs", responses=documented(400, 401, 403, 404, 429, 503))
async def list_logs(
    request: AdminRequest,
    token: TokenName,
    start_date: Begin = None,
    end_date: End = None,
    page: Page = 1,
    page_size: PageSize = PAGE_SIZE,
) -> Logs:
    """Lists the changes of an access token's quota, newest first. They are here a few seconds after they were made."""
    span = span_of(start_date, end_date)
    found = await existing(request, token)
    logs = token_services_of(request).logs
    offset = (page - 1) * page_size
    rows = await logs.list(token=found.id, span=span, limit=page_size, offset=offset)
    is_last = len(rows) < page_size and (rows or page == 1)
    total = offset + len(rows) if is_last else await logs.count(token=found.id, span=span)
    shown = [_view(row, found.shown) for row in rows]
    return Logs(data=LogPage(shown, total, page, page_size, -(-total // page_size)), **stamp(request))


def span_of(start_date: str | None, end_date: str | None) -> Span:
    """Raises Refusal."""
    begin_ms = None if start_date is None else dates.begin_ms(start_date)
    end_ms = None if end_date is None else dates.end_ms(end_date)
    for name, text, found in (("start_date", start_date, begin_ms), ("end_date", end_date, end_ms)):
        if text is not None and found is None:
            raise Refusal(400, "bad_request", f"{name}: expected {dates.EXPECTED}", field=name)
    if begin_ms is not None and end_ms is not None and end_ms < begin_ms:
        problem = "end_date: found a time before start_date, expected one behind it"
        raise Refusal(400, "bad_request", problem, field="end_date")
    return Span(begin_ms, end_ms)


def _view(row: QuotaLog, shown: str) -> LogView:
    return LogView(
        id=row.id,
        sequence=row.sequence,
        token=shown,
        ws_id=row.ws_id,
        email=row.email,
        quota_before=row.quota_before,
        quota_after=row.quota_after,
        quota_change=row.quota_change,
        total_after=row.total_after,
        action=row.action,
        unit=row.unit,
        request_id=row.request_id,
        execution_success=row.execution_success,
        execution_error_type=row.execution_error_type,
        execution_error_message=row.execution_error_message,
        usage=row.usage_mark,
        created_at=text_of(row.created_at),
    )


PRIVATE = [list_logs]
