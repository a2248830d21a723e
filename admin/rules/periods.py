"""The periods that statistics are added up over, and which of their slots a range of time is made of. Pure.

A slot is a period that began at a certain time: this hour, that day. Times are Unix time in whole seconds, so hours and
days are those of UTC.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from proxy.config import Retention

MINUTE_S = 60
HOUR_S = 3600
DAY_S = 86_400
ALL_TIME_S = 0
"""The period that has one slot, which began at 0 and does not end."""

PERIODS_S = (MINUTE_S, HOUR_S, DAY_S, ALL_TIME_S)


class Slot(NamedTuple):
    period_s: int
    start_s: int


ALL_TIME = Slot(ALL_TIME_S, 0)


class Range(StrEnum):
    """How far back one looks."""

    DAY = "24h"
    WEEK = "7d"
    MONTH = "30d"
    ALL = "all"


SECONDS = {Range.DAY: DAY_S, Range.WEEK: 7 * DAY_S, Range.MONTH: 30 * DAY_S}


class Span(NamedTuple):
    """Consecutive slots of one period; `end_s` is when the last one ends."""

    period_s: int
    since_s: int
    end_s: int


def slot_of(period_s: int, time_s: float) -> Slot:
    """Returns the slot of a period that a time lies in."""
    return Slot(period_s, int(time_s // period_s) * period_s if period_s else 0)


def starts(period_s: int, count: int, now_s: float) -> list[int]:
    """Returns where the latest slots of a period begin, oldest first; the last is the running one."""
    latest = slot_of(period_s, now_s).start_s
    return [latest - period_s * back for back in reversed(range(count))]


def graph(shown: Range, first_s: int, now_s: float) -> tuple[int, list[int]]:
    """Returns the period of a graph's points and where they begin: hours up to a week, else days.

    `first_s` is when the oldest day that is kept began: all there is begins there.
    """
    if shown is Range.ALL:
        return DAY_S, list(range(first_s, int(now_s) + 1, DAY_S))
    period_s = DAY_S if shown is Range.MONTH else HOUR_S
    return period_s, starts(period_s, SECONDS[shown] // period_s, now_s)


def widened(since_s: int, until_s: int, now_s: float, kept: Retention) -> tuple[int, int]:
    """Returns the range with each end moved outward to where a slot begins, of the shortest period kept there.

    What leads up to the end are the hours of its day and then the minutes of its hour: all of these must be kept.
    """
    low, high = finest_s(since_s, now_s, kept), finest_s(until_s // DAY_S * DAY_S, now_s, kept)
    if high == HOUR_S:
        high = finest_s(until_s // HOUR_S * HOUR_S, now_s, kept)
    return since_s // low * low, -(-until_s // high) * high


def spans(since_s: int, until_s: int) -> Iterator[Span]:
    """Yields what makes up a range between two whole minutes: days as far as they go, then hours, then minutes."""
    position_s = since_s
    while position_s < until_s:
        for period_s, longer_s in ((DAY_S, 0), (HOUR_S, DAY_S), (MINUTE_S, HOUR_S)):
            end_s = until_s // period_s * period_s
            if longer_s:
                end_s = min(end_s, (position_s // longer_s + 1) * longer_s)
            if position_s % period_s == 0 and position_s < end_s:
                yield Span(period_s, position_s, end_s)
                position_s = end_s
                break


def finest_s(time_s: int, now_s: float, kept: Retention) -> int:
    """Returns the shortest period of which slots of that time are still kept, and of all longer ones too."""
    age_s = now_s - time_s
    if age_s >= kept.hour_rows_days * DAY_S:
        return DAY_S
    return MINUTE_S if age_s < kept.minute_rows_hours * HOUR_S else HOUR_S
