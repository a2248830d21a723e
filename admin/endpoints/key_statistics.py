"""Statistics of keys, as reference 001 has them. What is counted are attempts: a request may take several."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from litestar import get
from litestar.params import Parameter

from admin.answers import Answer, documented
from admin.context import AdminRequest, key_services_of
from admin.endpoints import pool_groups
from admin.endpoints.key_views import KeyView, view
from admin.endpoints.pool_groups import PoolGroupView
from admin.rules.key_records import UsePoint, percent
from admin.rules.periods import DAY_S, HOUR_S, slot_of, starts

BASE = "/admin/stats"
RANKED = 20

DaysBack = Annotated[
    int, Parameter(ge=1, le=366, description="How many, today among them; they begin at midnight UTC.")
]
Ranked = Annotated[int, Parameter(ge=1, le=500, description="How many of the best keys to show.")]


class PoolStats(msgspec.Struct, frozen=True, kw_only=True):
    """Keys by status, what was asked with them, and the pool groups."""

    total: int
    active: int
    disabled: int
    banned: int
    total_requests: int
    success_requests: int
    error_requests: int
    success_rate: float
    algorithm: str
    pool_groups: list[PoolGroupView] = msgspec.field(name="poolGroups")


class Uses(msgspec.Struct, frozen=True):
    """Attempts with keys; `success_rate` in percent."""

    requests: int
    success: int
    errors: int
    success_rate: float


class StatsSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Of all time and the keys that there are, of today (UTC) and all keys, and the keys that did best."""

    total: Uses
    today: Uses
    ranking: list[KeyView]


class TimedUses(msgspec.Struct, frozen=True):
    """Attempts in an hour or a day that began at `time`."""

    time: str
    requests: int
    success: int
    errors: int
    success_rate: float


class DayStats(msgspec.Struct, frozen=True, kw_only=True):
    """A day (UTC), and each of its hours so far."""

    date: str
    total: Uses
    hours: list[TimedUses]


class StatsAnswer(Answer, frozen=True, kw_only=True):
    data: PoolStats


class SummaryAnswer(Answer, frozen=True, kw_only=True):
    data: StatsSummary


class TodayAnswer(Answer, frozen=True, kw_only=True):
    data: DayStats


class TrendAnswer(Answer, frozen=True, kw_only=True):
    """A day each, oldest first."""

    data: list[TimedUses]


_ERRORS = documented(401, 403, 429, 503)


@get(BASE, responses=_ERRORS)
async def pool_stats(request: AdminRequest) -> StatsAnswer:
    """Shows how many keys there are, and of which status."""
    services = key_services_of(request)
    counts = await services.statistics.counts()
    return StatsAnswer(
        data=PoolStats(
            total=counts.total,
            active=counts.active,
            disabled=counts.disabled,
            banned=counts.banned,
            total_requests=counts.requests,
            success_requests=counts.successes,
            error_requests=counts.errors,
            success_rate=percent(counts.successes, counts.requests),
            algorithm=(await services.pool.current()).algorithm,
            pool_groups=[pool_groups.view(group) for group in await services.groups.list()],
        )
    )


@get(BASE + "/summary", responses=documented(400) | _ERRORS)
async def stats_summary(request: AdminRequest, limit: Ranked = RANKED) -> SummaryAnswer:
    """Shows attempts of all time and of today, and the keys of the best success rate."""
    statistics = key_services_of(request).statistics
    counts = await statistics.counts()
    today = await statistics.uses(period_s=DAY_S, since_s=slot_of(DAY_S, time.time()).start_s)
    return SummaryAnswer(
        data=StatsSummary(
            total=uses([UsePoint(0, counts.requests, counts.successes, counts.errors)]),
            today=uses(today),
            ranking=[view(record) for record in await statistics.ranking(limit=limit)],
        )
    )


@get(BASE + "/today", responses=_ERRORS)
async def stats_today(request: AdminRequest) -> TodayAnswer:
    """Shows the attempts of today, by hour."""
    now_s = time.time()
    midnight_s = slot_of(DAY_S, now_s).start_s
    found = await key_services_of(request).statistics.uses(period_s=HOUR_S, since_s=midnight_s)
    hours = starts(HOUR_S, (int(now_s) - midnight_s) // HOUR_S + 1, now_s)
    return TodayAnswer(data=DayStats(date=_time(midnight_s)[:10], total=uses(found), hours=timed(found, hours)))


@get(BASE + "/trend", responses=documented(400) | _ERRORS)
async def stats_trend(request: AdminRequest, days: DaysBack = 7) -> TrendAnswer:
    """Shows the attempts of the last days."""
    shown = starts(DAY_S, days, time.time())
    found = await key_services_of(request).statistics.uses(period_s=DAY_S, since_s=shown[0])
    return TrendAnswer(data=timed(found, shown))


def uses(points: Sequence[UsePoint]) -> Uses:
    requests, successes = sum(one.requests for one in points), sum(one.successes for one in points)
    return Uses(requests, successes, sum(one.errors for one in points), percent(successes, requests))


def timed(points: Sequence[UsePoint], starts_s: Sequence[int]) -> list[TimedUses]:
    """A figure for each slot, also for those in which nothing was asked."""
    found = {one.start_s: one for one in points}
    slots = [found.get(start_s, UsePoint(start_s, 0, 0, 0)) for start_s in starts_s]
    return [TimedUses(_time(slot.start_s), *msgspec.structs.astuple(uses([slot]))) for slot in slots]


def _time(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


PRIVATE = [pool_stats, stats_summary, stats_today, stats_trend]
