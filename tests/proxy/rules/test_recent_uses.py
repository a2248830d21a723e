"""Uses are counted once each, by slots, and never more slots than a window has."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.rules.recent_uses import SLOTS, RecentUses


def test_what_was_used_before_does_not_count() -> None:
    assert RecentUses(slot_s=1.0, requests=1000).count == 0


def test_a_use_counts_once_however_often_it_is_told() -> None:
    uses = RecentUses(slot_s=1.0, requests=7)
    uses.count_up_to(9, at_s=100.5)
    uses.count_up_to(9, at_s=100.6)
    assert (uses.count, uses.slots()) == (2, [(100, 2)])


def test_uses_of_one_slot_lie_together_and_older_ones_that_come_late_go_to_the_newest() -> None:
    uses = RecentUses(slot_s=10.0, requests=0)
    for requests, at_s in ((1, 100.0), (2, 109.9), (4, 110.0), (5, 90.0)):
        uses.count_up_to(requests, at_s)
    assert uses.slots() == [(10, 2), (11, 3)]


def test_fewer_requests_than_before_are_no_uses_and_a_new_beginning() -> None:
    uses = RecentUses(slot_s=1.0, requests=50)
    uses.count_up_to(10, at_s=5.0)
    assert uses.count == 0
    uses.count_up_to(12, at_s=5.0)
    assert uses.count == 2


def test_what_is_forgotten_is_no_longer_in_the_sum() -> None:
    uses = RecentUses(slot_s=1.0, requests=0)
    for slot in range(5):
        uses.count_up_to(uses.requests + slot + 1, at_s=slot)
    uses.forget_up_to(2)
    assert (uses.count, uses.slots()) == (4 + 5, [(3, 4), (4, 5)])
    uses.forget_up_to(100)
    assert (uses.count, uses.slots()) == (0, [])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40))))
def test_the_slots_are_bounded_in_order_and_add_up(steps: list[tuple[int, int]]) -> None:
    uses = RecentUses(slot_s=2.0, requests=0)
    now_s = requests = 0
    for more, later_s in steps:
        now_s += later_s
        requests += more
        uses.count_up_to(requests, now_s)
        numbers = [number for number, _ in uses.slots()]
        assert numbers == sorted(set(numbers))
        assert len(numbers) <= SLOTS + 1
        assert uses.count == sum(count for _, count in uses.slots())
