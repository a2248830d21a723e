"""The least load by each rule, row by row, and any of those that have it."""

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.rules.balancing_base import Chooser, Member
from proxy.rules.balancing_least import LeastConnections, LeastConnectionsWeight, Performance
from tests.candidates import fits
from tests.members import ADDRESS, counts, many, member

KINDS = [LeastConnections, LeastConnectionsWeight, Performance]
Kind = Callable[[Sequence[Member], Callable[[], float]], Chooser]


def load(kind: Kind, one: Member) -> float:
    """The rule, as the table of balancers has it."""
    active = one.running + one.elsewhere
    if kind is LeastConnections:
        return active
    if kind is LeastConnectionsWeight:
        return active / one.weight
    return 0.7 * (active / one.weight) + 0.3 * 100 * one.util


def chosen(kind: Kind, members: list[Member]) -> set[str]:
    """All that are ever chosen."""
    made = kind(members, random.Random(1).random)
    return {made.choose(members, ADDRESS).id for _ in range(100)}


@pytest.mark.parametrize(
    ("kind", "members", "expected"),
    [
        (LeastConnections, [member("a", running=2), member("b", running=1), member("c", running=3)], "b"),
        (LeastConnections, [member("a", running=1, elsewhere=4), member("b", running=3)], "b"),
        (LeastConnections, [member("a", weight=1000, running=1), member("b", weight=1)], "b"),
        (LeastConnections, [member("a", running=1), member("b"), member("c")], "bc"),
        (LeastConnections, [member("a", running=2, share=0.5), member("b", running=3)], "b"),
        (LeastConnectionsWeight, [member("a", weight=200, running=3), member("b", weight=100, running=2)], "a"),
        (LeastConnectionsWeight, [member("a", weight=200, running=5), member("b", weight=100, running=2)], "b"),
        (LeastConnectionsWeight, [member("a", weight=300, running=3), member("b", weight=100, running=1)], "ab"),
        (LeastConnectionsWeight, [member("a", weight=100, elsewhere=2), member("b", weight=10)], "b"),
        (LeastConnectionsWeight, [member("a", running=1, share=0.1), member("b", running=9)], "b"),
        # 0.7 * 50 / 100 + 30 * 0.1 = 3.35 and 0.7 * 100 / 100 + 30 * 0.08 = 3.1
        (Performance, [member("a", running=50, util=0.1), member("b", running=100, util=0.08)], "b"),
        # 0.7 * 42 / 100 = 0.294 and 0.7 * 43 / 100 = 0.301, where a per cent of util is 0.3
        (Performance, [member("a", running=42), member("b", util=0.01)], "a"),
        (Performance, [member("a", running=43), member("b", util=0.01)], "b"),
        (Performance, [member("a", weight=1, running=1), member("b", weight=100, running=69)], "b"),
        (Performance, [member("a", weight=1, running=1), member("b", weight=100, running=101)], "a"),
        (Performance, [member("a", weight=300, running=3), member("b", weight=100, running=1)], "ab"),
        (Performance, [member("a", util=1.0), member("b", util=0.999)], "b"),
    ],
)
def test_the_rule_row_by_row(kind: Kind, members: list[Member], expected: str) -> None:
    assert chosen(kind, members) == set(expected)


figures = st.builds(
    member,
    weight=st.sampled_from([1, 3, 100, 300]),
    running=st.integers(0, 5),
    elsewhere=st.integers(0, 5),
    util=st.sampled_from([0.0, 0.001, 0.5, 1.0]),
)


@pytest.mark.parametrize("kind", KINDS)
@given(members=st.lists(figures, min_size=1, max_size=8), source=st.randoms(use_true_random=False))
def test_whoever_is_chosen_nobody_has_less(kind: Kind, members: list[Member], source: random.Random) -> None:
    found = kind(members, source.random).choose(members, ADDRESS)
    assert load(kind, found) == min(load(kind, one) for one in members)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("busier", [0, 1, 3])
def test_any_of_equals_is_chosen_with_equal_odds(kind: Kind, busier: int) -> None:
    """Wherever those stand that have more."""
    members = [member(str(number)) for number in range(6)]
    for one in members[1 : 1 + busier]:
        one.running = 7
    odds = [0.0 if one.running else 1.0 for one in members]
    assert fits(counts(kind(members, random.Random(2).random), members, 6000), odds)


@pytest.mark.parametrize("kind", KINDS)
def test_requests_that_stay_are_spread_as_the_rule_has_it(kind: Kind) -> None:
    members = many(5)
    for one in members:
        one.running = one.elsewhere = 0
        one.util = 0.0
    made = kind(members, random.Random(3).random)
    for _ in range(1000):
        made.choose(members, ADDRESS).running += 1
    parts = [1.0 if kind is LeastConnections else one.weight for one in members]
    for one, part in zip(members, parts, strict=True):
        assert abs(one.running - 1000 * part / sum(parts)) <= 2
