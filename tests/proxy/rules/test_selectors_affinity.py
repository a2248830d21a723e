"""The same key meets the same candidate; who comes or goes takes or leaves its own share alone."""

import random

from hypothesis import given
from hypothesis import strategies as st

from proxy.config import KeyPool
from proxy.rules.selectors_affinity import CIRCLE, PROBES, RUN_MAX, CacheAffinity, Circle
from proxy.rules.selectors_base import Candidate
from tests.candidates import NOW_S, candidate

KEYS = [f"conversation {number}".encode() for number in range(3000)]


def selector_of(candidates: list[Candidate]) -> CacheAffinity:
    made = CacheAffinity(KeyPool())
    for one in candidates:
        made.add(one)
    return made


def where(selector: CacheAffinity, keys: list[bytes] = KEYS) -> list[Candidate | None]:
    return [selector.choose(NOW_S, lambda: 0.0, key) for key in keys]


def hundred() -> list[Candidate]:
    return [candidate(f"key-{number}") for number in range(100)]


def test_a_key_meets_the_same_one_each_time() -> None:
    selector = selector_of(hundred())
    assert where(selector) == where(selector)


def test_without_a_key_it_is_round_robin_and_keys_take_no_turn() -> None:
    candidates = hundred()
    selector = selector_of(candidates)
    for one in candidates + candidates:
        where(selector, KEYS[:3])
        assert selector.choose(NOW_S, lambda: 0.0, None) is one


def test_who_leaves_gives_up_its_own_keys_alone_to_several_others_and_has_them_again_when_it_returns() -> None:
    candidates = hundred()
    selector = selector_of(candidates)
    before = where(selector)
    gone = max(candidates, key=before.count)
    selector.remove(gone)
    after = where(selector)
    moved = [new for old, new in zip(before, after, strict=True) if old is not new]
    assert len(moved) == before.count(gone) > 0
    assert gone not in moved
    assert len(set(moved)) > 5
    selector.add(gone)
    assert where(selector) == before


def test_who_comes_takes_its_share_and_nobody_elses_keys_move() -> None:
    selector = selector_of(hundred())
    before = where(selector)
    new = candidate("new")
    selector.add(new)
    moved = [now for old, now in zip(before, where(selector), strict=True) if old is not now]
    assert set(moved) == {new}
    assert len(moved) < 2 * len(KEYS) / 101


def test_nobody_gets_much_more_than_an_equal_share() -> None:
    candidates = [candidate(f"key-{number}") for number in range(50)]
    keys = [f"conversation {number}".encode() for number in range(20_000)]
    found = where(selector_of(candidates), keys)
    shares = sorted(found.count(one) * 50 / len(keys) for one in candidates)
    assert shares[-1] < PROBES / (PROBES - 1) * 1.15, "the rest is chance"
    assert shares[10] > 0.4, "one in nine has less, says the law of gaps"


names = st.lists(st.integers(0, 30).map(str), unique=True, min_size=1)


@given(names, st.randoms(use_true_random=False), st.lists(st.integers(0, 30).map(str), unique=True))
def test_all_workers_agree_whatever_came_and_went_in_each(
    here: list[str], source: random.Random, passing: list[str]
) -> None:
    one = selector_of([candidate(name) for name in here])
    shuffled = sorted(here, key=lambda _: source.random())
    guests = [candidate(f"guest {name}") for name in passing]
    other = selector_of(guests)
    for name in shuffled:
        other.add(candidate(name))
    for guest in guests:
        other.remove(guest)
    assert [found and found.id for found in where(one, KEYS[:50])] == [
        found and found.id for found in where(other, KEYS[:50])
    ]


def test_two_of_one_id_are_two_places() -> None:
    old, new = candidate("same"), candidate("same")
    selector = selector_of([old, new])
    assert len(selector) == 2
    selector.remove(old)
    assert set(where(selector, KEYS[:10])) == {new}
    selector.remove(new)
    assert where(selector, KEYS[:1]) == [None]


def closest(points: list[int], probes: tuple[int, ...]) -> int:
    """The same, point by point."""
    return min(points, key=lambda point: min((point - probe) % CIRCLE for probe in probes))


@given(st.sets(st.integers(0, CIRCLE - 1), min_size=1), st.lists(st.integers(0, CIRCLE - 1), min_size=1))
def test_the_closest_is_that_of_all_points(points: set[int], probes: list[int]) -> None:
    circle = Circle()
    for point in points:
        circle.add(point)
    assert circle.closest(tuple(probes)) == closest(sorted(points), tuple(probes))


def test_runs_are_split_emptied_and_stay_sorted() -> None:
    circle, source = Circle(), random.Random(1)
    here: list[int] = []
    for step in range(12_000):
        if here and source.random() < (0.2 if step < 6_000 else 0.8):
            circle.remove(here.pop(source.randrange(len(here))))
        else:
            here.append(source.randrange(CIRCLE))
            circle.add(here[-1])
        if step % 500 == 0 and here:
            probes = tuple(source.randrange(CIRCLE) for _ in range(PROBES))
            assert circle.closest(probes) == closest(here, probes)
            assert [point for run in circle._runs for point in run] == sorted(here)
            assert all(0 < len(run) <= RUN_MAX for run in circle._runs)
            assert circle._lasts == [run[-1] for run in circle._runs]
