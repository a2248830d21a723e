"""Round-robin keeps its order through every change; random is uniform."""

import random

from hypothesis import given
from hypothesis import strategies as st

from proxy.config import KeyPool
from proxy.rules.selectors_base import Candidate, Selector
from proxy.rules.selectors_order import Random, RoundRobin
from tests.candidates import NOW_S, candidate, fits

candidates = [candidate(str(index)) for index in range(6)]


def chosen(selector: Selector) -> str:
    found = selector.choose(NOW_S, lambda: 0.0, None)
    return "nobody" if found is None else found.id


def round_robin(names: range) -> RoundRobin:
    made = RoundRobin(KeyPool())
    for index in names:
        made.add(candidates[index])
    return made


def test_one_after_the_other_in_the_order_they_came() -> None:
    assert "".join(chosen(selector) for selector in [round_robin(range(3))] for _ in range(7)) == "0120120"


def test_nobody_is_chosen_where_there_is_nobody() -> None:
    assert chosen(round_robin(range(0))) == "nobody"
    assert chosen(Random(KeyPool())) == "nobody"


def test_a_new_one_waits_for_a_round_and_one_that_goes_is_passed_over() -> None:
    selector = round_robin(range(3))
    assert chosen(selector) == "0"
    selector.add(candidates[3])
    selector.remove(candidates[1])
    assert [chosen(selector) for _ in range(5)] == ["2", "0", "3", "2", "0"]


def test_adding_one_that_is_there_changes_nothing() -> None:
    selector = round_robin(range(3))
    selector.add(candidates[0])
    assert [chosen(selector) for _ in range(4)] == ["0", "1", "2", "0"]


@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "choose"]), st.integers(0, 5)), max_size=60))
def test_between_two_turns_of_one_each_other_that_stayed_has_exactly_one(steps: list[tuple[str, int]]) -> None:
    selector = round_robin(range(0))
    here: set[Candidate] = set()
    since: dict[Candidate, list[Candidate]] = {}
    stayed: dict[Candidate, set[Candidate]] = {}
    for step, index in steps:
        one = candidates[index]
        if step == "add":
            selector.add(one)
            here.add(one)
        elif step == "remove":
            selector.remove(one)
            here.discard(one)
            stayed.pop(one, None)
            for others in stayed.values():
                others.discard(one)
        else:
            found = selector.choose(NOW_S, lambda: 0.0, None)
            assert (found in here) if here else (found is None)
            if found is None:
                continue
            for other in stayed.get(found, ()):
                assert since[found].count(other) == 1
            for turns in since.values():
                turns.append(found)
            since[found], stayed[found] = [], here - {found}


def test_random_is_uniform_after_changes_too() -> None:
    selector, source = Random(KeyPool()), random.Random(1)
    for one in candidates:
        selector.add(one)
    selector.remove(candidates[2])
    selector.remove(candidates[5])
    selector.add(candidates[2])
    found = [selector.choose(NOW_S, source.random, None) for _ in range(5000)]
    assert fits([found.count(one) for one in candidates], [1, 1, 1, 1, 1, 0])
