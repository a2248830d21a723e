"""The least of something, and any of those that have it."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import KeyPool
from proxy.rules.selectors_base import Candidate
from proxy.rules.selectors_least import STALE_MAX, Least, LeastTokenUsed, LeastUsed, MaxRemaining
from proxy.rules.selectors_window import TimeWindow
from tests.candidates import NOW_S, candidate, fits

counts = st.integers(0, 5)
tokens = st.none() | st.integers(0, 10)
figures = st.builds(candidate, requests=counts, tokens_used=tokens, tokens_total=tokens)


def filled(kind: type[Least], candidates: list[Candidate]) -> Least:
    made = kind(KeyPool())
    for one in candidates:
        made.add(one)
    return made


def chosen(selector: Least, seed: int = 1) -> Candidate:
    found = selector.choose(NOW_S, random.Random(seed).random, None)
    assert found is not None
    return found


@given(st.lists(figures, min_size=1), counts)
def test_least_used_has_the_least_requests(candidates: list[Candidate], seed: int) -> None:
    assert chosen(filled(LeastUsed, candidates), seed).requests == min(one.requests for one in candidates)


@given(st.lists(figures, min_size=1), counts)
def test_least_token_used_counts_unknown_as_none(candidates: list[Candidate], seed: int) -> None:
    found = chosen(filled(LeastTokenUsed, candidates), seed)
    assert (found.tokens_used or 0) == min(one.tokens_used or 0 for one in candidates)


@given(st.lists(figures, min_size=1), counts)
def test_max_remaining_prefers_some_to_unknown_and_unknown_to_none(candidates: list[Candidate], seed: int) -> None:
    def rank(one: Candidate) -> tuple[int, int]:
        if one.tokens_total is None:
            return 1, 0
        remaining = one.tokens_total - (one.tokens_used or 0)
        return 2 if remaining > 0 else 0, remaining

    assert rank(chosen(filled(MaxRemaining, candidates), seed)) == max(rank(one) for one in candidates)


@pytest.mark.parametrize("kind", [LeastUsed, LeastTokenUsed, MaxRemaining, TimeWindow])
def test_of_equals_each_has_the_same_chance(kind: type[Least]) -> None:
    candidates = [candidate(str(index)) for index in range(20)]
    selector, source = filled(kind, candidates), random.Random(2)
    found = [selector.choose(NOW_S, source.random, None) for _ in range(4000)]
    assert fits([found.count(one) for one in candidates], [1] * 20)


@pytest.mark.parametrize("kind", [LeastUsed, TimeWindow])
def test_equals_are_all_used_before_one_is_used_again(kind: type[Least]) -> None:
    selector, source = filled(kind, [candidate(str(index)) for index in range(30)]), random.Random(3)
    for _ in range(3):
        found = set()
        for _ in range(30):
            one = selector.choose(NOW_S, source.random, None)
            assert one is not None
            one.last_used_s = NOW_S
            one.requests += 1
            selector.changed(one)
            found.add(one)
        assert len(found) == 30


def test_figures_that_go_up_and_down_leave_nothing_behind() -> None:
    here = [candidate(str(index), tokens_used=index) for index in range(10)]
    selector = filled(LeastTokenUsed, here)
    for step in range(10_000):
        here[5].tokens_used = 100 + step * 7 % 1000
        selector.changed(here[5])
    assert len(selector._buckets.heap) <= 2 * 10 + STALE_MAX
    assert chosen(selector) is here[0]


def test_one_that_is_not_there_does_not_come_by_changing() -> None:
    selector = filled(LeastUsed, [candidate("a", requests=9)])
    gone = candidate("b")
    selector.changed(gone)
    selector.remove(gone)
    assert gone not in selector
    assert chosen(selector).id == "a"
