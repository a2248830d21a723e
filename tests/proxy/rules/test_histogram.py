"""Histograms against the plain list of what was put into them."""

import math
import struct
from bisect import bisect_left

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from proxy.rules.histogram import BOUNDS_S, FIRST_16_BITS_AT, Histogram, buckets_of, upper_edge

# From a nanosecond to 30 years, and what a clock that has not moved gives.
seconds = st.one_of(st.just(0.0), st.floats(1e-9, 1e9), st.sampled_from(BOUNDS_S))
lists = st.lists(seconds, max_size=50)


def of(values: list[float]) -> Histogram:
    histogram = Histogram()
    histogram.record(values)
    return histogram


def sum_of(*histograms: Histogram) -> Histogram:
    total = Histogram()
    for histogram in histograms:
        total.add(histogram)
    return total


@given(lists)
def test_a_value_is_below_the_edge_of_its_bucket_by_a_sixteenth_at_most(values: list[float]) -> None:
    edges = [upper_edge(bucket) for bucket in buckets_of(values)]
    assert len(edges) == len(values)
    for value, edge in zip(values, edges, strict=True):
        assert value < edge
        assert edge <= value * 17 / 16 or value == 0
        assert edge < 1e-300 or value > 0


@given(seconds, seconds)
def test_buckets_are_in_the_order_of_their_values(one: float, other: float) -> None:
    first, second = buckets_of(sorted((one, other)))
    assert first <= second


def test_every_bound_is_an_edge() -> None:
    assert list(BOUNDS_S) == sorted(BOUNDS_S)
    for bound_s, bucket in zip(BOUNDS_S, buckets_of(BOUNDS_S), strict=True):
        assert upper_edge(bucket - 1) == bound_s


@given(lists)
def test_cumulative_counts_are_exact(values: list[float]) -> None:
    ordered = sorted(values)
    below = [bisect_left(ordered, bound_s) for bound_s in BOUNDS_S]
    assert of(values).cumulative() == [*below, len(values)]


@given(lists.filter(bool), st.floats(0, 1))
def test_a_quantile_is_above_the_value_of_its_rank_by_a_sixteenth_at_most(values: list[float], fraction: float) -> None:
    at_rank = sorted(values)[max(1, math.ceil(fraction * len(values))) - 1]
    assert at_rank < of(values).quantile(fraction) <= max(at_rank * 17 / 16, 1e-300)


def test_quantiles_of_the_known_and_of_nothing() -> None:
    hundred = of([each / 100 for each in range(1, 101)])
    assert [hundred.quantile(fraction) for fraction in (0.0, 0.5, 0.99, 1.0)] == [0.01025390625, 0.53125, 1.0, 1.0625]
    assert (hundred.count, hundred.sum_us) == (100, 50_500_000)
    assert (Histogram().quantile(0.5), Histogram().count) == (0.0, 0)
    assert Histogram().cumulative() == [0] * (len(BOUNDS_S) + 1)


@given(lists, lists, lists)
def test_histograms_add_up_in_any_order(first: list[float], second: list[float], third: list[float]) -> None:
    a, b, c = of(first), of(second), of(third)
    whole = sum_of(a, b, c)
    assert sum_of(c, a, b) == whole
    assert sum_of(sum_of(a, b), c) == sum_of(a, sum_of(b, c)) == whole
    at_once = of([*first, *second, *third])
    assert whole.counts == at_once.counts
    assert math.isclose(whole.sum_us, at_once.sum_us, rel_tol=1e-12, abs_tol=2), "each part is rounded"


@given(lists)
def test_a_column_counts_all_but_what_is_none(values: list[float]) -> None:
    rows = memoryview(b"".join(struct.pack("@dd", -1.0, value) for value in values))
    histogram = Histogram()
    histogram.record_column(rows.cast("d")[1::2], rows.cast("H")[(8 + FIRST_16_BITS_AT) // 2 :: 8])
    assert histogram == of([value for value in values if value])


@given(lists, lists)
def test_adding_changes_nothing_but_the_total(first: list[float], second: list[float]) -> None:
    a, b = of(first), of(second)
    a.add(b)
    assert b == of(second)


@given(lists)
def test_a_histogram_survives_the_wire(values: list[float]) -> None:
    histogram = of(values)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(histogram), type=Histogram) == histogram
    assert msgspec.json.decode(msgspec.json.encode(histogram), type=Histogram) == histogram
