"""Prometheus' text format: read back as Prometheus reads it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.rules.exposition import Family, Sample, histogram, labels, text
from proxy.rules.histogram import BOUNDS_S
from tests.admin.counted import histogram as histogram_of
from tests.admin.prometheus import parse


def test_a_family_is_a_help_a_type_and_its_samples() -> None:
    samples = [Sample("", 1), Sample(labels({"a": "x", "b": "y"}), 2.5)]
    assert text([Family("n_total", "counter", "What it is.", samples)]) == (
        '# HELP n_total What it is.\n# TYPE n_total counter\nn_total 1\nn_total{a="x",b="y"} 2.5\n'
    )


@pytest.mark.parametrize(
    "value", ["", "/a b", 'a"b', "a\\b", "a\nb", "\\n", '\\"', "ä{}=,#", 'a\\\n"', "\r\t\x0b\x85\u2028"]
)
def test_any_label_comes_back(value: str) -> None:
    (family,) = parse(text([Family("n", "gauge", "h", [Sample(labels({"l": value}), 0)])]))
    assert family.samples == [("n", {"l": value}, 0.0)]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_whatever_a_label_is(value: str) -> None:
    (family,) = parse(text([Family("n", "gauge", "h", [Sample(labels({"l": value, "m": value}), 1.5)])]))
    assert family.samples == [("n", {"l": value, "m": value}, 1.5)]


def test_a_histogram_has_its_buckets_its_sum_and_its_count() -> None:
    (family,) = parse(text([Family("n", "histogram", "h", histogram('r="x"', histogram_of(0.3, 0.3, 500.0)))]))
    buckets = {labels["le"]: value for name, labels, value in family.samples if name == "n_bucket"}
    assert list(map(float, buckets)) == [*BOUNDS_S, math.inf]
    assert (buckets["0.25"], buckets["0.5"], buckets["320.0"], buckets["+Inf"]) == (0, 2, 2, 3)
    assert family.samples[-2:] == [("n_sum", {"r": "x"}, 500.6), ("n_count", {"r": "x"}, 3)]
