"""Turns by weight: exact, even in between, and so however the usable members change."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.rules.balancing_base import Member
from proxy.rules.balancing_turns import WeightedTurns
from tests.candidates import fits
from tests.members import ADDRESS, counts, member

WEIGHTS = st.lists(st.sampled_from([1, 2, 5, 10, 100, 1000]), min_size=1, max_size=8)


def of(*weights: int) -> list[Member]:
    return [member("abcdefgh"[index], weight=weight) for index, weight in enumerate(weights)]


def nginx(weights: tuple[int, ...], choices: int) -> str:
    """Its order, counted in weights as it does."""
    credit_of = [0] * len(weights)
    found = []
    for _ in range(choices):
        credit_of = [credit + weight for credit, weight in zip(credit_of, weights, strict=True)]
        found.append(credit_of.index(max(credit_of)))
        credit_of[found[-1]] -= sum(weights)
    return "".join("abcdefgh"[index] for index in found)


@pytest.mark.parametrize("weights", [(2, 1, 1), (5, 2, 1), (3, 1), (1, 3, 3, 1), (9, 4, 2, 1), (7,)])
def test_the_order_is_that_of_nginx(weights: tuple[int, ...]) -> None:
    """Where the weights add up to a power of two, so that a float has their parts exactly."""
    members = of(*weights)
    made = WeightedTurns(members, lambda: 0.0)
    assert "".join(made.choose(members, ADDRESS).id for _ in range(40)) == nginx(weights, 40)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_equal_ones_take_turns_in_a_fixed_order(count: int) -> None:
    members = of(*[100] * count)
    made = WeightedTurns(members, random.Random(1).random)
    found = [made.choose(members, ADDRESS) for _ in range(1000 * count)]
    assert set(found[:count]) == set(members)
    assert found == found[:count] * 1000


def test_five_one_one_is_smooth() -> None:
    members = of(5, 1, 1)
    made = WeightedTurns(members, random.Random(1).random)
    found = "".join(made.choose(members, ADDRESS).id for _ in range(700))
    assert all(
        found[at : at + 7].count(name) == had for at in range(693) for name, had in zip("abc", (5, 1, 1), strict=True)
    )


@given(WEIGHTS, st.integers(0, 10**6))
def test_nobody_is_ever_more_than_two_choices_from_its_share(weights: list[int], seed: int) -> None:
    members = of(*weights)
    made = WeightedTurns(members, random.Random(seed).random)
    had = dict.fromkeys(members, 0)
    for number in range(1, 200):
        had[made.choose(members, ADDRESS)] += 1
        assert all(abs(had[one] - number * one.weight / sum(weights)) < 2 for one in members)


@given(WEIGHTS, st.integers(0, 10**6), st.sampled_from([1, 2, 30]))
def test_nor_is_anybody_when_those_usable_change(weights: list[int], seed: int, lasts: int) -> None:
    """A share is then the sum of its parts in each choice, none where it was not usable."""
    members, source = of(*weights), random.Random(seed)
    made = WeightedTurns(members, source.random)
    had, due = dict.fromkeys(members, 0), dict.fromkeys(members, 0.0)
    usable = members
    for number in range(150):
        if number % lasts == 0:
            picked = source.sample(members, source.randint(1, len(members)))
            usable = [one for one in members if one in picked]
        had[made.choose(usable, ADDRESS)] += 1
        all_weights = sum(one.weight for one in usable)
        for one in usable:
            due[one] += one.weight / all_weights
        assert all(abs(had[one] - due[one]) < 2.5 for one in members)


def test_who_comes_back_gets_no_more_than_its_share_for_the_time_it_was_away() -> None:
    members = of(1, 1, 1)
    made = WeightedTurns(members, lambda: 0.0)
    counts(made, members, 3)
    assert counts(made, members[:2], 1000) == [500, 500]
    assert counts(made, members, 30) == [10, 10, 10]


def test_a_light_one_owes_nothing_to_what_happened_among_heavy_ones() -> None:
    """In the units of the weights, b would have credit for hundreds of choices here."""
    members = of(1000, 1, 1)
    made = WeightedTurns(members, lambda: 0.0)
    counts(made, members[:2], 500)
    first, second = counts(made, members[1:], 20)
    assert abs(first - second) <= 2


def test_the_share_of_one_that_slowly_starts_counts() -> None:
    members = of(100, 100)
    members[0].share = 0.25
    assert counts(WeightedTurns(members, lambda: 0.0), members, 100) == [20, 80]


def test_workers_begin_at_different_members() -> None:
    source = random.Random(1)
    members = of(3, 3, 3, 3)
    first = [WeightedTurns(members, source.random).choose(members, ADDRESS) for _ in range(4000)]
    assert fits([first.count(one) for one in members], [1, 1, 1, 1])


def test_two_over_the_same_members_take_turns_of_their_own() -> None:
    members = of(1, 1)
    one, other = WeightedTurns(members, lambda: 0.0), WeightedTurns(members, lambda: 0.0)
    assert [each.choose(members, ADDRESS).id for each in (one, other, one, other)] == ["a", "a", "b", "b"]
