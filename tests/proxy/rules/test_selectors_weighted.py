"""Odds are exactly what the rules say, also while time passes and figures change."""

import random
from itertools import count
from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import KeyPool
from proxy.rules.selectors_base import Candidate
from proxy.rules.selectors_weighted import QuotaAware, Weighted, WeightedScore, WeightedUsage
from tests.candidates import NOW_S, candidate, fits

HOUR_S = 3600.0
tokens = st.none() | st.integers(0, 1000)
figures = st.builds(
    candidate,
    requests=st.integers(0, 2000),
    successes=st.integers(0, 2000),
    last_used_s=st.just(0.0) | st.floats(NOW_S - 40 * HOUR_S, NOW_S + HOUR_S),
    tokens_used=tokens,
    tokens_total=tokens,
)


def success(one: Candidate) -> float:
    return min(100.0, 100 * one.successes / one.requests) if one.requests else 100.0


def remaining(one: Candidate) -> float:
    if one.tokens_total is None:
        return 100.0
    return max(0.0, 100 * (1 - (one.tokens_used or 0) / one.tokens_total)) if one.tokens_total else 0.0


@given(figures)
def test_a_score_is_success_freshness_and_use(one: Candidate) -> None:
    hours = max(0.0, (NOW_S - one.last_used_s) / HOUR_S) if one.last_used_s else 0.0
    score = 0.6 * success(one) + 0.3 * max(0.0, 100 - 4 * hours) + 0.1 * min(100.0, one.requests / 10)
    assert isclose(WeightedScore(KeyPool()).weight(one, NOW_S), score, abs_tol=1e-9)


@given(figures)
def test_usage_is_what_remains_what_is_not_used_and_success(one: Candidate) -> None:
    used_ratio = 1 - remaining(one) / 100
    usage = 0.4 * remaining(one) + 0.3 * (1 - used_ratio) * 100 + 0.3 * success(one)
    assert isclose(WeightedUsage(KeyPool()).weight(one, NOW_S), usage, abs_tol=1e-9)


@given(figures)
def test_quota_is_what_remains(one: Candidate) -> None:
    assert isclose(QuotaAware(KeyPool()).weight(one, NOW_S), remaining(one), abs_tol=1e-9)


@pytest.mark.parametrize("kind", [WeightedScore, WeightedUsage, QuotaAware])
@given(one=figures, later_s=st.floats(0, 60 * HOUR_S))
def test_no_weight_rises_with_time(kind: type[Weighted], one: Candidate, later_s: float) -> None:
    selector = kind(KeyPool())
    assert 0 <= selector.weight(one, NOW_S + later_s) <= selector.weight(one, NOW_S) <= 100.000_001


def many() -> list[Candidate]:
    """Of all sorts, some with weights that are tiny, or none."""
    source = random.Random(4)
    return [
        candidate(
            str(index),
            requests=(requests := source.choice((0, 10, 1000))),
            successes=source.randrange(requests + 1),
            last_used_s=NOW_S - source.choice((0, 1, 10, 24, 30)) * HOUR_S if requests else 0.0,
            tokens_used=source.choice((0, 500, 900, 990, 1000, 2000)),
            tokens_total=source.choice((None, 1000, 1000, 1000)),
        )
        for index in range(40)
    ]


@pytest.mark.parametrize("kind", [WeightedScore, WeightedUsage, QuotaAware])
def test_each_is_chosen_in_proportion_to_its_weight(kind: type[Weighted]) -> None:
    selector, candidates, source = kind(KeyPool()), many(), random.Random(5)
    for one in candidates:
        selector.add(one)
    found = [selector.choose(NOW_S, source.random, None) for _ in range(20_000)]
    odds = [selector.weight(one, NOW_S) for one in candidates]
    assert fits([found.count(one) for one in candidates], odds)


def test_odds_are_those_of_the_moment_though_nobody_said_that_time_passed() -> None:
    """Hours change most scores; each choice is of selectors that heard of none."""
    selector, candidates, source = WeightedScore(KeyPool()), many(), random.Random(6)
    for one in candidates:
        selector.add(one)
    for later_s in (0.0, 12 * HOUR_S, 48 * HOUR_S):
        found = [selector.choose(NOW_S + later_s, source.random, None) for _ in range(10_000)]
        odds = [selector.weight(one, NOW_S + later_s) for one in candidates]
        assert fits([found.count(one) for one in candidates], odds)


def test_the_first_choice_after_long_idleness_has_the_right_odds_too() -> None:
    """What was filed by an old score is drawn more often than it is accepted, and moved when it is found out."""
    source = random.Random(7)
    counts = {"fresh": 0, "stale": 0, "poor": 0}
    for _ in range(3000):
        selector = WeightedScore(KeyPool())
        selector.add(candidate("fresh", requests=10, successes=10, last_used_s=NOW_S))
        selector.add(candidate("stale", requests=10, successes=5, last_used_s=NOW_S - 30 * HOUR_S))
        selector.add(candidate("poor", requests=600, successes=0, last_used_s=NOW_S - 30 * HOUR_S))
        found = selector.choose(NOW_S, source.random, None)
        assert found is not None
        counts[found.id] += 1
    assert fits(list(counts.values()), [60 + 30 + 0.1, 30 + 0.1, 6])


def test_odds_follow_figures_that_changed() -> None:
    selector, source = QuotaAware(KeyPool()), random.Random(8)
    candidates = [candidate(str(index), tokens_used=0, tokens_total=100) for index in range(4)]
    for one in candidates:
        selector.add(one)
    for one, used in zip(candidates, (99, 50, 100, 0), strict=True):
        one.tokens_used = used
        selector.changed(one)
    found = [selector.choose(NOW_S, source.random, None) for _ in range(5000)]
    assert fits([found.count(one) for one in candidates], [1, 50, 0, 100])


@pytest.mark.parametrize("kind", [WeightedScore, WeightedUsage, QuotaAware])
def test_where_nobody_has_any_weight_anybody_is_chosen(kind: type[Weighted]) -> None:
    selector, source = kind(KeyPool()), random.Random(9)
    candidates = [
        candidate(str(index), requests=1, last_used_s=1.0, tokens_used=5, tokens_total=5) for index in range(10)
    ]
    for one in candidates:
        one.requests = 10**9 if kind is not WeightedScore else 0
        selector.add(one)
    found = [selector.choose(NOW_S, source.random, None) for _ in range(2000)]
    assert fits([found.count(one) for one in candidates], [1] * 10)


def test_scores_that_sink_to_nothing_end_in_a_choice_all_the_same() -> None:
    """Filed while they were fresh, all have been idle for days, never succeeded, and were hardly used."""
    selector, source = WeightedScore(KeyPool()), random.Random(10)
    tiny = [candidate(str(index), requests=1, last_used_s=NOW_S - 90 * HOUR_S) for index in range(1000)]
    for one in tiny:
        selector.add(one)
    draws = count()
    assert selector.choose(NOW_S, lambda: (next(draws), source.random())[1], None) in tiny
    first = next(draws)
    for _ in range(100):
        selector.choose(NOW_S, lambda: (next(draws), source.random())[1], None)
    assert next(draws) - first < first, "moved once, they are found at once"


def test_the_least_shares_are_told_apart() -> None:
    """A billionth of a quota is little, and all that there is."""
    selector, source = QuotaAware(KeyPool()), random.Random(11)
    candidates = [candidate(str(left), tokens_used=10**12 - left, tokens_total=10**12) for left in (1, 2, 5)]
    for one in candidates:
        selector.add(one)
    found = [selector.choose(NOW_S, source.random, None) for _ in range(3000)]
    assert fits([found.count(one) for one in candidates], [1, 2, 5])
