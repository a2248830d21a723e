"""Which deltas count, and into which slots: the same requests give the same rows, however they come."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.rules.deltas import EVERYTHING, NUMBER_MAX, TIME_MAX_S, fresh, read, rolled_up
from admin.rules.periods import ALL_TIME, DAY_S, HOUR_S, MINUTE_S, Slot
from proxy.rules.histogram import Histogram
from proxy.statistics import Counts, RouteCounts, StatisticsDelta
from tests.admin import counted
from tests.admin.counted import NOW_S, delta, packed, row


def test_a_delta_comes_as_it_was_sent() -> None:
    sent = delta(row(s2xx=3), row("/b", s5xx=1, closed=2))
    assert read(packed(sent)) == sent


@pytest.mark.parametrize(
    "wrong",
    [
        delta(worker=""),
        delta(worker="w" * 65),
        delta(worker="w\0"),
        delta(sequence=0),
        delta(sequence=NUMBER_MAX + 1),
        delta(at_s=-1.0),
        delta(at_s=float("nan")),
        delta(at_s=float("inf")),
        delta(at_s=TIME_MAX_S * 2.0),
        delta(row("/a\0", s2xx=1)),
        delta(row("/a", EVERYTHING[1], s2xx=1)),
        delta(row(at_s=float("nan"), s2xx=1)),
        delta(RouteCounts("/a", "", {"2xx": Counts(-1)})),
        delta(RouteCounts("/a", "", {"2xx": Counts(1, NUMBER_MAX + 1)})),
        delta(RouteCounts("/a", "", {"2" * 65: Counts(1)})),
        delta(RouteCounts("/a", "", {}, Histogram({0x7FEF: 1}))),
        delta(RouteCounts("/a", "", {}, Histogram({-1: 1}))),
        delta(RouteCounts("/a", "", {}, Histogram(), Histogram({1: 0}))),
        delta(RouteCounts("/a", "", {}, Histogram(), Histogram(), Histogram({1: 1}, -1))),
        delta(RouteCounts("/a", "", {}, Histogram(), Histogram(), Histogram(), Histogram({1: NUMBER_MAX + 1}))),
    ],
)
def test_what_no_table_takes_is_refused(wrong: StatisticsDelta) -> None:
    assert read(packed(wrong)) is None


@pytest.mark.parametrize("data", [b"", b"\xc1", b"nothing", msgspec.msgpack.encode({"worker": "w"})])
def test_what_is_no_delta_is_refused(data: bytes) -> None:
    assert read(data) is None


def test_text_that_is_not_utf8_is_refused() -> None:
    assert read(packed(delta(worker="abc")).replace(b"abc", b"\xed\xa0\x80")) is None


@given(st.binary(max_size=64), st.integers(0, 63))
def test_bytes_that_fell_over_are_refused_or_read_but_never_raise(noise: bytes, place: int) -> None:
    data = packed(delta(row(s2xx=1)))
    read(noise)
    read(data[:place] + noise + data[place + len(noise) :])


def test_each_counts_once_and_what_never_came_is_told() -> None:
    one, two, four = (delta(sequence=number) for number in (1, 2, 4))
    other = delta(worker="x", sequence=3)
    assert fresh([one, two], {}) == ([one, two], {"w": 2}, 0)
    assert fresh([one, two], {"w": 1}) == ([two], {"w": 2}, 0)
    assert fresh([one, two, one, two], {"w": 2}) == ([], {}, 0)
    assert fresh([one, one, four, other, two], {}) == ([one, four, other], {"w": 4, "x": 3}, 4)


def test_a_request_is_in_its_minute_its_hour_its_day_and_all_time() -> None:
    first, later = delta(row(s2xx=1)), delta(row(s5xx=2), row("/b", "b.example", s2xx=4), at_s=NOW_S + HOUR_S + 61)
    slots = rolled_up([first, later])
    assert {slot: {key: found.outcomes for key, found in rows.items()} for slot, rows in slots.items()} == {
        slot: {
            key: {outcome: Counts(number, 10 * number, 100 * number) for outcome, number in expected.items()}
            for key, expected in rows.items()
        }
        for slot, rows in {
            Slot(MINUTE_S, int(NOW_S)): {A: {"2xx": 1}, EVERYTHING: {"2xx": 1}},
            Slot(HOUR_S, int(NOW_S)): {A: {"2xx": 1}, EVERYTHING: {"2xx": 1}},
            Slot(MINUTE_S, int(NOW_S) + HOUR_S + 60): {A: {"5xx": 2}, B: {"2xx": 4}, EVERYTHING: {"5xx": 2, "2xx": 4}},
            Slot(HOUR_S, int(NOW_S) + HOUR_S): {A: {"5xx": 2}, B: {"2xx": 4}, EVERYTHING: {"5xx": 2, "2xx": 4}},
            Slot(DAY_S, int(NOW_S) - 8 * HOUR_S): WHOLE,
            ALL_TIME: WHOLE,
        }.items()
    }
    assert slots[ALL_TIME][EVERYTHING].durations.count == 7


A, B = ("/a", "a.example"), ("/b", "b.example")
WHOLE = {A: {"2xx": 1, "5xx": 2}, B: {"2xx": 4}, EVERYTHING: {"2xx": 5, "5xx": 2}}


@given(st.lists(st.tuples(counted.seconds, counted.rows), max_size=8))
def test_order_and_cuts_make_no_difference(requests: list[tuple[float, RouteCounts]]) -> None:
    single = [delta(one, at_s=at_s) for at_s, one in requests]
    by_time: dict[float, list[RouteCounts]] = {}
    for at_s, one in requests:
        by_time.setdefault(at_s, []).append(one)
    together = [delta(*rows, at_s=at_s) for at_s, rows in by_time.items()]
    before = msgspec.msgpack.encode(single)
    assert rolled_up(single) == rolled_up(together) == rolled_up(single[::-1])
    assert msgspec.msgpack.encode(single) == before, "what came is left as it is"
