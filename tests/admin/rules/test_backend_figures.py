"""Whose requests were counted, and what a report may say."""

import math
from typing import Any

import pytest

from admin.rules.backend_figures import by_backend, reported
from admin.rules.outcomes import requests
from proxy.config import Backend, ConfigError, Route, Upstream
from tests.admin.counted import row

UPSTREAMS = {
    "u": Upstream(backends=(Backend(url="http://a:1", id="a"), Backend(url="http://b:1", id="b"))),
    "other": Upstream(backends=(Backend(url="http://a:1", id="x"),)),
}
ROUTES = {
    "/one": Route(upstream="u"),
    "/two": Route(upstream="u"),
    "/other": Route(upstream="other"),
    "/target": Route(target="http://a:1"),
}


def test_a_backend_has_what_routes_to_its_upstream_had_at_its_address() -> None:
    rows = [
        row("/one", "a:1", s2xx=3, s5xx=1),
        row("/two", "a:1", s2xx=2),
        row("/one", "gone:1", s2xx=50),
        row("/other", "a:1", s2xx=7),
        row("/target", "a:1", s2xx=100),
        row("/removed", "b:1", s2xx=100),
        row("", "", no_route=100),
    ]
    found = by_backend(rows, UPSTREAMS, ROUTES)
    assert {name: requests(counts) for name, counts in found.items()} == {("u", "a"): 6, ("other", "x"): 7}
    assert found["u", "a"].outcomes["5xx"].requests == 1
    assert found["u", "a"].upstreams.count == 6
    assert requests(rows[0]) == 4, "rows stay as they are"


def test_the_documented_report() -> None:
    given = {"cpu_usage": 45.2, "memory_usage": 67.8, "load_avg_1": 2.1}
    assert reported(given) == given


def test_figures_that_are_not_given_are_zero_and_those_that_do_not_count_are_passed_over() -> None:
    assert reported({"cpu_usage": 100, "load_avg_5": "x"}) == {
        "cpu_usage": 100.0,
        "memory_usage": 0.0,
        "load_avg_1": 0.0,
    }


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "performance: expected an object with one of cpu_usage, memory_usage, load_avg_1 at least"),
        ({"cpu": 1}, "performance: expected an object"),
        (None, "performance: expected an object"),
        ({"cpu_usage": 100.1}, "performance.cpu_usage: found 100.1, expected a number from 0 to 100"),
        ({"memory_usage": -0.1}, "performance.memory_usage: found -0.1, expected a number from 0 to 100"),
        ({"load_avg_1": 1e9}, "performance.load_avg_1: found 1000000000.0, expected a number from 0 to 1000000"),
        ({"cpu_usage": True}, "performance.cpu_usage: found true, expected a number"),
        ({"cpu_usage": "5"}, "performance.cpu_usage: found '5', expected a number"),
        ({"cpu_usage": math.nan}, "performance.cpu_usage: found nan, expected a number"),
        ({"cpu_usage": 10**400}, "performance.cpu_usage: found 1000"),
    ],
)
def test_figures_out_of_range_are_named(given: Any, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        reported(given)
    assert str(caught.value).startswith(says)
