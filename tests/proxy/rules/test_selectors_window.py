"""Fewest uses lately: a window that slides in slots."""

import random

from hypothesis import given
from hypothesis import strategies as st

from proxy.config import KeyPool
from proxy.rules.recent_uses import SLOTS
from proxy.rules.selectors_base import Candidate
from proxy.rules.selectors_window import ENDED_MAX, TimeWindow
from tests.candidates import NOW_S, candidate

SETTINGS = KeyPool(window_s=100.0)
START_S = 1_000_000.0


def selector_of(candidates: list[Candidate], settings: KeyPool = SETTINGS) -> TimeWindow:
    made = TimeWindow(settings)
    for one in candidates:
        made.add(one)
    return made


def chosen(selector: TimeWindow, now_s: float) -> Candidate:
    found = selector.choose(now_s, random.Random(1).random, None)
    assert found is not None
    return found


def use(one: Candidate, now_s: float, *selectors: TimeWindow, times: int = 1) -> None:
    one.last_used_s = now_s
    one.requests += times
    for selector in selectors:
        selector.changed(one)


def test_a_use_counts_for_the_window_and_a_slot_longer_at_most() -> None:
    a, b = candidate("a"), candidate("b")
    selector = selector_of([a, b])
    use(a, START_S, selector, times=2)
    use(b, START_S + 105, selector)
    assert chosen(selector, START_S + 105) is b
    assert chosen(selector, START_S + 109.9) is b
    assert chosen(selector, START_S + 110) is a


def test_uses_of_long_ago_count_for_nothing() -> None:
    a, b = candidate("a", requests=1_000_000), candidate("b")
    selector = selector_of([a, b])
    use(b, START_S, selector)
    assert chosen(selector, START_S) is a


def test_one_that_was_put_aside_comes_back_with_its_uses() -> None:
    a, b = candidate("a"), candidate("b")
    selector = selector_of([a, b])
    use(a, START_S, selector, times=5)
    use(b, START_S, selector)
    selector.remove(a)
    assert chosen(selector, START_S + 1) is b
    selector.add(a)
    assert chosen(selector, START_S + 2) is b


def test_what_ended_while_one_was_away_is_over_when_it_is_back() -> None:
    a, b = candidate("a"), candidate("b")
    selector = selector_of([a, b])
    use(a, START_S, selector, times=5)
    selector.remove(a)
    use(b, START_S + 300, selector)
    selector.add(a)
    assert chosen(selector, START_S + 300) is a


def test_two_selectors_count_each_use_once_and_both_know_of_it() -> None:
    a, b = candidate("a"), candidate("b")
    one, other = selector_of([a, b]), selector_of([a, b])
    use(a, START_S, one, other, times=2)
    use(b, START_S, one, other, times=3)
    assert (one.number(a), other.number(b)) == (2, 3)
    assert chosen(one, START_S) is chosen(other, START_S) is a
    use(b, START_S + 150, one, other)
    assert chosen(one, START_S + 150) is chosen(other, START_S + 150) is a


def test_another_window_begins_anew() -> None:
    a, b = candidate("a"), candidate("b")
    use(a, START_S, selector_of([a, b]), times=2)
    selector = selector_of([a, b], KeyPool(window_s=5.0))
    use(b, START_S, selector)
    assert chosen(selector, START_S) is a


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3), st.integers(0, 60)), max_size=60))
def test_the_one_chosen_has_the_fewest_uses_of_a_list_of_all(steps: list[tuple[int, int, int]]) -> None:
    candidates = [candidate(str(index)) for index in range(5)]
    selector = selector_of(candidates)
    log: list[tuple[Candidate, int, int]] = []
    now_s = START_S
    for index, times, later_s in steps:
        use(candidates[index], now_s, selector, times=times)
        log.append((candidates[index], int(now_s // 10), times))
        now_s += later_s
        since = int(now_s // 10) - SLOTS
        uses = {one: sum(n for who, slot, n in log if who is one and slot >= since) for one in candidates}
        assert uses[chosen(selector, now_s)] == min(uses.values())


def test_the_end_of_a_slot_in_which_many_were_used_is_spread_over_choices() -> None:
    candidates = [candidate(str(index)) for index in range(10 * ENDED_MAX)]
    selector = selector_of(candidates)
    for one in candidates:
        use(one, START_S, selector)
    for _ in range(9):
        assert selector.number(chosen(selector, START_S + 200)) == 0
    assert sum(selector.number(one) for one in candidates) == ENDED_MAX
    chosen(selector, START_S + 200)
    assert sum(selector.number(one) for one in candidates) == 0
    assert not selector._by_oldest_slot
    assert all(place.awaits_slot is None for place in selector._buckets.places.values())


def test_what_is_kept_of_a_candidate_is_bounded_where_nobody_chooses() -> None:
    """As in a tier that is never reached, whose figures come from other machines."""
    one = candidate("a", last_used_s=NOW_S)
    selector = selector_of([one])
    for hour in range(1000):
        use(one, START_S + 3600 * hour, selector)
    assert one.recent_uses is not None
    assert len(one.recent_uses.slots()) <= SLOTS + 1
    assert sum(map(len, selector._by_oldest_slot.values())) == 1
