"""Statistics: at `/stats` in the shape of reference 003, at `/api/statistics` whole."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from litestar import get
from litestar.params import Parameter, QueryParameter

from admin import answers
from admin.answers import Answer, documented
from admin.context import AdminRequest, Services, services_of
from admin.endpoints.pages import NUMBER_MAX, TextOrNone, plain_or_none
from admin.rules import outcomes
from admin.rules.figures import PrefixFigures, Totals
from admin.rules.metrics import UNMATCHED
from admin.rules.periods import SECONDS, Range
from proxy.rules.histogram import Histogram
from proxy.shared_state.worker_state import WorkerState
from proxy.statistics import Counts, RouteCounts

MIB = 1024 * 1024

Shown = Annotated[Range, QueryParameter(description="How far back: by the hour up to a week, else by day.")]
Back = Annotated[Range | None, QueryParameter(description="How far back, instead of `since` and `until`.")]
Since = Annotated[int | None, Parameter(ge=0, le=NUMBER_MAX, description="Milliseconds since 1970.")]
Until = Annotated[int | None, Parameter(ge=0, le=NUMBER_MAX, description="Milliseconds since 1970; without it: now.")]


class Performance(msgspec.Struct, frozen=True):
    """How it goes just now.

    Requests a second are those of the last ten seconds; response times and the rate of errors (percent) those of the
    last five minutes. Memory is that of all workers together.
    """

    requests_per_sec: float
    avg_response_time_ms: float
    p50_response_time_ms: float
    p95_response_time_ms: float
    p99_response_time_ms: float
    error_rate: float
    memory_usage_mb: float
    in_flight: int
    workers: int


class Summary(msgspec.Struct, frozen=True):
    """Of all time: requests, how many were errors, how many reports were lost, and the mean response time in ms."""

    total: int
    errors: int
    dropped_events: int
    avg_response: float
    performance: Performance


class EndpointFigures(msgspec.Struct, frozen=True):
    """Requests of a prefix: of all time, since midnight UTC, in the last 7 and the last 30 days, today among them."""

    count: int
    error_count: int
    last_request: str
    today: int
    week: int
    month: int


class PointView(msgspec.Struct, frozen=True):
    """An hour or a day that began at `time`."""

    time: str
    count: int
    errors: int


class Stats(Summary, frozen=True):
    """The figures of reference 003. `unmatched` among the endpoints is what no route was found for."""

    today: int
    week: int
    month: int
    endpoints: dict[str, EndpointFigures]
    requests: list[PointView]


class Latency(msgspec.Struct, frozen=True):
    """How long something took, in milliseconds. Quantiles are at most a sixteenth too high."""

    count: int
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


class OutcomeView(msgspec.Struct, frozen=True):
    """Requests with one outcome: a class of statuses, a cause's word, or `client_left`. Bytes are those of bodies."""

    requests: int
    request_bytes: int
    response_bytes: int
    retries: int
    truncated: int


class SeriesView(msgspec.Struct, frozen=True):
    """What was counted for a route; `last_at`, in milliseconds since 1970, is when its last request was reported.

    `duration` lasts from a request's arrival to its end, `head` to the upstream's response head, `overhead` until the
    request went out to the upstream, `upstream_duration` from then to the end.
    """

    route: str
    upstream: str
    last_at: int
    requests: int
    errors: int
    outcomes: dict[str, OutcomeView]
    duration: Latency
    head: Latency
    overhead: Latency
    upstream_duration: Latency


class StatisticsView(Answer, frozen=True, kw_only=True):
    """`since` and `until`, in milliseconds since 1970, are what the figures are of: null of all time."""

    since: int | None
    until: int | None
    live: Summary
    routes: list[SeriesView]


_ERRORS = documented(400, 401, 403, 429, 503)


@get("/stats", responses=_ERRORS)
async def stats(
    request: AdminRequest,
    range: Shown = Range.DAY,  # noqa: A002 - the name that a refusal tells
    endpoint: TextOrNone = None,
) -> Stats:
    """Shows the figures of all prefixes, and a graph of all requests or of one prefix (`endpoint`).

    Today began at midnight UTC; a week is 7 such days and a month 30, today among them.
    """
    services = services_of(request)
    prefix = plain_or_none("endpoint", endpoint)
    overview = await services.statistics.overview(range, "" if prefix == UNMATCHED else prefix)
    short = summary(services, overview.totals)
    return Stats(
        # One answer adds up: the sum of its endpoints, not what was counted a moment earlier.
        total=sum(one.requests for one in overview.prefixes),
        errors=sum(one.errors for one in overview.prefixes),
        dropped_events=short.dropped_events,
        avg_response=short.avg_response,
        performance=short.performance,
        today=sum(one.today for one in overview.prefixes),
        week=sum(one.week for one in overview.prefixes),
        month=sum(one.month for one in overview.prefixes),
        endpoints={one.prefix or UNMATCHED: _endpoint(one) for one in overview.prefixes},
        requests=[PointView(_time(point.start_s), point.requests, point.errors) for point in overview.graph],
    )


@get("/api/statistics", responses=_ERRORS)
async def statistics(
    request: AdminRequest,
    range: Back = None,  # noqa: A002 - the name that a refusal tells
    since: Since = None,
    until: Until = None,
) -> StatisticsView:
    """Shows all that was counted, by route, upstream and outcome: of all time, or of a range.

    A range is widened to whole minutes, or to the hours or days that are still kept.
    """
    services = services_of(request)
    detail = await services.statistics.detail(_range_s(time.time(), range, since, until))
    since_s, until_s = detail.range_s or (None, None)
    return StatisticsView(
        since=None if since_s is None else since_s * 1000,
        until=None if until_s is None else until_s * 1000,
        live=summary(services, await services.statistics.totals()),
        routes=[_series(row) for row in detail.rows],
    )


def summary(services: Services, totals: Totals) -> Summary:
    """Returns the small form of the figures, which workers may show too."""
    row = totals.all_time
    return Summary(
        outcomes.requests(row),
        outcomes.errors(row),
        sum(one.events for one in totals.dropped),
        _mean_ms(row.durations),
        performance(totals.recent, services.stream.requests_per_second(), services.workers.living()),
    )


def performance(recent: RouteCounts, per_second: float, workers: Sequence[WorkerState]) -> Performance:
    return Performance(
        round(per_second, 2),
        *(_mean_ms(recent.durations), *_quantiles_ms(recent.durations)),
        outcomes.percent(outcomes.errors(recent), outcomes.requests(recent)),
        round(sum(worker.memory_bytes for worker in workers) / MIB, 2),
        sum(worker.in_flight for worker in workers),
        len(workers),
    )


def _range_s(now_s: float, back: Range | None, since: int | None, until: int | None) -> tuple[int, int] | None:
    """Returns the range that is asked for in Unix time, the end rounded up; None for all time."""
    if back is not None:
        if since is not None or until is not None:
            raise answers.bad_request("range: found together with since or until, expected either")
        return None if back is Range.ALL else (int(now_s) - SECONDS[back], int(now_s) + 1)
    if since is None and until is None:
        return None
    since_s, until_s = (since or 0) // 1000, int(now_s) + 1 if until is None else -(-until // 1000)
    if until_s < since_s:
        raise answers.bad_request("until: found a time before since, expected one behind it")
    return since_s, until_s


def _endpoint(one: PrefixFigures) -> EndpointFigures:
    return EndpointFigures(one.requests, one.errors, _time(one.last_at / 1000), one.today, one.week, one.month)


def _series(row: RouteCounts) -> SeriesView:
    return SeriesView(
        row.prefix or UNMATCHED,
        row.authority,
        int(row.last_s * 1000),
        outcomes.requests(row),
        outcomes.errors(row),
        {outcome: _outcome(counts) for outcome, counts in sorted(row.outcomes.items())},
        *map(latency, (row.durations, row.heads, row.overheads, row.upstreams)),
    )


def _outcome(counts: Counts) -> OutcomeView:
    return OutcomeView(*msgspec.structs.astuple(counts))


def latency(histogram: Histogram) -> Latency:
    """Returns what a histogram says in short."""
    return Latency(histogram.count, _mean_ms(histogram), *_quantiles_ms(histogram))


def _mean_ms(histogram: Histogram) -> float:
    return round(histogram.sum_us / 1000 / histogram.count, 3) if histogram.counts else 0.0


def _quantiles_ms(histogram: Histogram) -> tuple[float, float, float]:
    p50, p95, p99 = (round(histogram.quantile(fraction) * 1000, 3) for fraction in (0.5, 0.95, 0.99))
    return p50, p95, p99


def _time(time_s: float) -> str:
    return datetime.fromtimestamp(int(time_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


PRIVATE = [stats, statistics]
