"""Slots of time, and the ranges that are made of them."""

from hypothesis import example, given
from hypothesis import strategies as st

from admin.rules.periods import (
    ALL_TIME,
    ALL_TIME_S,
    DAY_S,
    HOUR_S,
    MINUTE_S,
    PERIODS_S,
    Range,
    Slot,
    Span,
    finest_s,
    graph,
    slot_of,
    spans,
    starts,
    widened,
)
from proxy.config import Retention

MIDNIGHT_S = 20_833 * DAY_S
NOON_S = MIDNIGHT_S + 12 * HOUR_S
KEPT = Retention()


def test_a_time_lies_in_one_slot_of_each_period() -> None:
    time_s = NOON_S + 90.5
    assert [slot_of(period_s, time_s) for period_s in PERIODS_S] == [
        Slot(MINUTE_S, NOON_S + 60),
        Slot(HOUR_S, NOON_S),
        Slot(DAY_S, MIDNIGHT_S),
        ALL_TIME,
    ]
    assert slot_of(DAY_S, MIDNIGHT_S) == Slot(DAY_S, MIDNIGHT_S)
    assert slot_of(ALL_TIME_S, 0.0) == ALL_TIME


def test_the_latest_slots_end_with_the_running_one() -> None:
    assert starts(HOUR_S, 3, NOON_S + 59.0) == [NOON_S - 2 * HOUR_S, NOON_S - HOUR_S, NOON_S]


def test_graphs_go_by_the_hour_up_to_a_week_and_then_by_the_day() -> None:
    points = {shown: graph(shown, MIDNIGHT_S - 40 * DAY_S, NOON_S) for shown in Range}
    assert [(period_s, len(found), found[-1]) for period_s, found in points.values()] == [
        (HOUR_S, 24, NOON_S),
        (HOUR_S, 168, NOON_S),
        (DAY_S, 30, MIDNIGHT_S),
        (DAY_S, 41, MIDNIGHT_S),
    ]


def test_a_range_is_made_of_the_longest_slots_that_fit() -> None:
    since_s, until_s = MIDNIGHT_S - HOUR_S - 60, MIDNIGHT_S + 2 * DAY_S + HOUR_S + 120
    assert list(spans(since_s, until_s)) == [
        Span(MINUTE_S, since_s, since_s + 60),
        Span(HOUR_S, MIDNIGHT_S - HOUR_S, MIDNIGHT_S),
        Span(DAY_S, MIDNIGHT_S, MIDNIGHT_S + 2 * DAY_S),
        Span(HOUR_S, MIDNIGHT_S + 2 * DAY_S, MIDNIGHT_S + 2 * DAY_S + HOUR_S),
        Span(MINUTE_S, MIDNIGHT_S + 2 * DAY_S + HOUR_S, until_s),
    ]
    assert list(spans(NOON_S, NOON_S)) == []


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_spans_follow_each_other_from_end_to_end(first: int, count: int) -> None:
    since_s, until_s = first * MINUTE_S, (first + count) * MINUTE_S
    position_s = since_s
    found = list(spans(since_s, until_s))
    for period_s, start_s, end_s in found:
        assert start_s == position_s < end_s
        assert start_s % period_s == end_s % period_s == 0
        position_s = end_s
    assert position_s == until_s
    assert sum((end_s - start_s) // period_s for period_s, start_s, end_s in found if period_s < DAY_S) <= 2 * 82


def test_what_is_old_is_known_by_the_hour_and_then_by_the_day() -> None:
    assert finest_s(NOON_S - 47 * HOUR_S, NOON_S, KEPT) == MINUTE_S
    assert finest_s(NOON_S - 48 * HOUR_S, NOON_S, KEPT) == HOUR_S
    assert finest_s(NOON_S - 90 * DAY_S, NOON_S, KEPT) == DAY_S
    assert finest_s(NOON_S + DAY_S, NOON_S, KEPT) == MINUTE_S


def test_a_range_is_widened_to_what_is_kept() -> None:
    assert widened(NOON_S - 61, NOON_S + 1, NOON_S, KEPT) == (NOON_S - 120, NOON_S + 60)
    assert widened(NOON_S - 120, NOON_S, NOON_S, KEPT) == (NOON_S - 120, NOON_S)
    old_s = MIDNIGHT_S - 10 * DAY_S
    assert widened(old_s + 61, old_s + 62, NOON_S, KEPT) == (old_s, old_s + HOUR_S)
    older_s = MIDNIGHT_S - 100 * DAY_S
    assert widened(older_s + 61, older_s + 62, NOON_S, KEPT) == (older_s, older_s + DAY_S)


def test_an_end_that_is_only_just_kept_is_widened_too() -> None:
    """The minutes of its hour, or the hours of its day, go before it does."""
    now_s = NOON_S + 30 * MINUTE_S
    assert widened(0, now_s - 48 * HOUR_S + 60, now_s, KEPT) == (0, NOON_S - 47 * HOUR_S)
    assert widened(0, now_s - 90 * DAY_S + 60, now_s, KEPT) == (0, MIDNIGHT_S - 89 * DAY_S)


ages = st.integers(0, 120 * DAY_S)


@given(ages, ages, st.integers(0, DAY_S), st.integers(1, 4000), st.integers(31, 100))
@example(DAY_S, 47 * HOUR_S + 1, 1800, 48, 31)
@example(100 * DAY_S + 90, 0, 1800, 4000, 31)
def test_a_range_is_made_of_slots_that_are_kept(one: int, other: int, time_s: int, hours: int, days: int) -> None:
    now_s, kept = MIDNIGHT_S + time_s, Retention(minute_rows_hours=hours, hour_rows_days=days)
    kept_s = {MINUTE_S: hours * HOUR_S, HOUR_S: days * DAY_S}
    for period_s, first_s, _ in spans(*widened(now_s - max(one, other), now_s - min(one, other), now_s, kept)):
        assert period_s == DAY_S or first_s > now_s - kept_s[period_s] - period_s, "services/retention.py removes it"
