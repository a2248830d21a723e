"""The live log as a stream of server-sent events (HTML Standard, section 9.2), and what went before it."""

from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Annotated, Any

from litestar import get
from litestar.background_tasks import BackgroundTask
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import QueryParameter
from litestar.response import Stream

from admin.answers import Answer, documented, of_failure
from admin.context import AdminRequest, key_services_of
from admin.endpoints.pages import Limit, TextOrNone, plain_or_none
from admin.key_ports import Listener
from admin.rules import live_lines
from admin.rules.live_lines import Asked
from admin.services.failures import TooManyListeners

SSE = "text/event-stream"
FIELDS = {"X-Accel-Buffering": "no"}
"""nginx in front would gather what is to be seen at once."""

LINES = 100
StatusAsked = Annotated[
    str | None, QueryParameter(pattern=r"^[1-5]([0-9]{2}|xx)$", description="One status, or `4xx`.")
]


class LogHistory(Answer, frozen=True, kw_only=True):
    """A line a request: `credential` and `status` are of its last attempt, `time` in milliseconds since 1970."""

    data: list[dict[str, Any]]


@get(
    "/admin/logs/stream",
    media_type=SSE,
    responses={200: ResponseSpec(str, description="An event a line of the live log, in JSON.", media_type=SSE)}
    | documented(400, 401, 403, 429, 503),
)
async def stream_log(
    request: AdminRequest,
    route: TextOrNone = None,
    status: StatusAsked = None,
    key: TextOrNone = None,
    model: TextOrNone = None,
) -> Stream:
    """Streams lines about requests as they end: all, or those of a route, a status, a key (its id) or a model.

    An event `lost` says that lines were left out because whoever listens is too slow. A stream ends after an hour.
    """
    asked = Asked(plain_or_none("route", route), status, plain_or_none("key", key), plain_or_none("model", model))
    stack = ExitStack()
    try:
        listener = stack.enter_context(key_services_of(request).live_log.listen(asked.wants))
    except TooManyListeners as failure:
        refusal = of_failure(failure)
        assert refusal is not None  # noqa: S101 - it is in the table
        raise refusal from None
    # A stream whose client left before its first event never gets as far as to its own end.
    return Stream(
        _events(listener, stack), media_type=SSE, headers=FIELDS, background=BackgroundTask(_async_close, stack)
    )


async def _async_close(stack: ExitStack) -> None:
    stack.close()


async def _events(listener: Listener, stack: ExitStack) -> AsyncIterator[bytes]:
    with stack:
        yield live_lines.KEEP_ALIVE  # the head goes out with it
        while (heard := await listener.next()) is not None:
            lines, lost = heard
            if lost:
                yield live_lines.lost(lost)
            yield b"".join(map(live_lines.event, lines)) or live_lines.KEEP_ALIVE


@get("/admin/logs/history", responses=documented(400, 401, 403, 429, 503))
async def log_history(
    request: AdminRequest,
    limit: Limit = LINES,
    route: TextOrNone = None,
    status: StatusAsked = None,
    key: TextOrNone = None,
    model: TextOrNone = None,
) -> LogHistory:
    """Shows the latest requests that had a key of the pool, newest first: all, or those of a route and so on.

    Each worker remembers 500 of them for this; the model is remembered where more than the first key was needed.
    """
    asked = Asked(plain_or_none("route", route), status, plain_or_none("key", key), plain_or_none("model", model))
    lines = await key_services_of(request).explainer.latest()
    return LogHistory(data=[dict(line) for line in lines if asked.wants(line)][:limit])


PRIVATE = [stream_log, log_history]
