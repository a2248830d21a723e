"""When a member is full, what its latency is taken to be, and how busy its report makes it."""

from math import exp, inf, isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.rules.balancing_base import LATENCY_MIN_S, Member, observe, util_of
from tests.members import member


@pytest.mark.parametrize(
    ("connections_max", "running", "elsewhere", "sharers", "most"),
    [
        (2, 0, 0, 1, 2),
        (2, 2, 0, 1, 2),
        (10, 0, 4, 2, 6),  # what the others leave
        (10, 6, 4, 2, 6),
        (10, 7, 4, 2, 5),  # together too many: down to the even share
        (10, 1, 10, 2, 1),  # no more, where somebody else has more than that
        (10, 0, 10, 2, 1),  # one in any case
        (1, 1, 1, 2, 1),
        (3, 2, 2, 2, 1),
        (1000, 999, 0, 1, 1000),
        (0, 10**6, 10**6, 2, inf),
        (-1, 10**6, 0, 1, inf),
    ],
)
def test_how_many_requests_this_worker_may_give(
    connections_max: int, running: int, elsewhere: int, sharers: int, most: float
) -> None:
    one = Member("a", connections_max=connections_max)
    one.running = running
    one.use_elsewhere(elsewhere, sharers)
    assert one.most == most
    assert one.full is (running >= most)


def test_workers_that_take_what_is_free_at_once_settle_at_their_shares() -> None:
    """Each always has more requests than it may give, which all last shorter than it takes to tell."""
    workers = [Member("a", connections_max=10) for _ in range(3)]
    told: list[list[int]] = [[]]
    for _ in range(10):
        for one in workers:
            one.running = int(one.most)
        told.append([one.running for one in workers])
        total = sum(told[-1])
        for one in workers:
            one.use_elsewhere(total - one.running, len(workers))
    assert told[1] == [10, 10, 10]
    assert told[2:] == [[3, 3, 3], [4, 4, 4]] * 4 + [[3, 3, 3]]


@pytest.mark.parametrize(
    ("cpu_usage", "memory_usage", "load_avg_1", "util"),
    [
        (0.0, 0.0, 0.0, 0.0),
        (100.0, 0.0, 0.0, 0.4),
        (0.0, 100.0, 0.0, 0.4),
        (0.0, 0.0, 1.0, 0.2),
        (50.0, 25.0, 0.5, 0.4),
        (45.2, 67.8, 2.1, 0.872),
        (100.0, 100.0, 1.0, 1.0),
        (100.0, 100.0, 64.0, 1.0),
        (0.0, 0.0, 5.0, 1.0),
        (-1.0, -1.0, -1.0, 0.0),
        (800.0, 0.0, 0.0, 1.0),
    ],
)
def test_util_by_the_formula(cpu_usage: float, memory_usage: float, load_avg_1: float, util: float) -> None:
    assert isclose(util_of(cpu_usage, memory_usage, load_avg_1), util, abs_tol=1e-12)


def test_a_first_latency_is_taken_as_it_is() -> None:
    one = member()
    observe(one, 0.25, 100.0)
    assert (one.latency_s, one.latency_at_s, one.latency_tried_s) == (0.25, 100.0, 100.0)


def test_after_ten_seconds_the_old_latency_counts_a_third() -> None:
    one = member()
    observe(one, 1.0, 100.0)
    observe(one, 0.0, 110.0)
    assert isclose(one.latency_s, exp(-1), rel_tol=1e-5)


def test_a_long_silence_leaves_nothing_of_the_old_one() -> None:
    one = member()
    observe(one, 60.0, 100.0)
    observe(one, 0.01, 300.0)
    assert isclose(one.latency_s, 0.01, rel_tol=1e-4)


@given(st.integers(1, 2000))
def test_it_makes_no_difference_how_many_requests_tell_the_same(a_second: int) -> None:
    one = member()
    observe(one, 1.0, 0.0)
    for number in range(1, a_second + 1):
        observe(one, 0.2, number / a_second)
    assert isclose(one.latency_s, 0.2 + 0.8 * exp(-0.1), rel_tol=1e-9)


def test_a_known_latency_is_never_0_which_is_not_known() -> None:
    one = member()
    observe(one, 0.0, 1.0)
    assert one.latency_s == LATENCY_MIN_S


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 60)), min_size=1))
def test_the_average_lies_between_what_was_observed(observed: list[tuple[float, float]]) -> None:
    one, now_s = member(), 0.0
    for latency_s, later_s in observed:
        now_s += later_s
        observe(one, latency_s, now_s)
    latencies = [max(latency_s, LATENCY_MIN_S) for latency_s, _ in observed]
    assert min(latencies) * (1 - 1e-9) <= one.latency_s <= max(latencies) * (1 + 1e-9)
