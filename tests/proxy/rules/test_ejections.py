"""Failures in a row eject, for longer each time, never too many, and never for good."""

from dataclasses import dataclass
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from proxy.config import Ejection
from proxy.rules.balancing import Member
from proxy.rules.ejections import Ejections, ejected_max, slow_start_share


@dataclass
class Upstream:
    """Members and what ejects them, at a time that goes on when it is told to."""

    members: list[Member]
    ejections: Ejections
    now_s: float = 100.0

    def fail(self, index: int = 0, times: int = 1) -> list[bool]:
        return [self.ejections.failed(self.members[index], self.now_s) for _ in range(times)]

    def succeed(self, index: int = 0) -> None:
        self.ejections.succeeded(self.members[index])

    def pass_time(self, seconds: float) -> list[Member]:
        self.now_s += seconds
        return self.ejections.due(self.now_s)

    def ejected(self) -> list[int]:
        return [index for index, one in enumerate(self.members) if self.ejections.is_ejected(one)]


def upstream(
    count: int = 4,
    failures: int | None = 3,
    ejection_s: float = 10.0,
    ejection_max_s: float = 300.0,
    share_max: float = 0.5,
) -> Upstream:
    members = [Member(str(number)) for number in range(count)]
    settings_ = Ejection(failures=failures, ejection_s=ejection_s, ejection_max_s=ejection_max_s, share_max=share_max)
    ejections = Ejections(settings_)
    ejections.use(settings_, members)
    return Upstream(members, ejections)


def test_so_many_failures_in_a_row_eject_one() -> None:
    here = upstream(failures=3)
    assert here.fail(times=3) == [False, False, True]
    assert here.ejected() == [0]


def test_a_success_in_between_ends_the_row() -> None:
    here = upstream(failures=3)
    for _ in range(10):
        assert here.fail(times=2) == [False, False]
        here.succeed()
    assert here.ejected() == []


def test_members_have_rows_of_their_own() -> None:
    here = upstream(failures=3)
    here.fail(0, times=2)
    here.fail(1, times=2)
    here.succeed(1)
    assert here.fail(0) == [True]
    assert here.ejected() == [0]


def test_one_comes_back_when_its_time_is_over() -> None:
    here = upstream(ejection_s=10.0)
    here.fail(times=3)
    assert here.ejections.next_due_s == 110.0
    assert here.pass_time(9.9) == []
    assert here.ejected() == [0]
    assert here.pass_time(0.1) == here.members[:1]
    assert here.ejected() == []
    assert here.ejections.next_due_s == inf
    assert here.pass_time(100.0) == []


def test_one_that_is_known_to_be_well_comes_back_at_once_and_its_row_goes_on() -> None:
    here = upstream(failures=3, ejection_s=10.0)
    here.fail(times=3)
    here.ejections.lift(here.members[0], 105.0)
    assert here.ejected() == []
    assert here.ejections.next_due_s == inf
    here.ejections.lift(here.members[0], 105.0)  # there is none
    here.pass_time(5.0)
    assert here.fail(times=3) == [False, False, True], "failures are counted anew"
    assert here.ejections.next_due_s == 125.0, "and it is left alone for twice as long"


def test_each_time_in_a_row_is_twice_as_long_up_to_the_longest() -> None:
    here = upstream(ejection_s=10.0, ejection_max_s=60.0)
    here.fail(times=3)
    lengths = []
    for _ in range(5):
        lengths.append(here.ejections.next_due_s - here.now_s)
        here.pass_time(lengths[-1])
        assert here.fail() == [True], "where no success came, one failure is enough"
    assert lengths == [10, 20, 40, 60, 60]


def test_a_longest_time_below_the_first_is_none() -> None:
    here = upstream(ejection_s=10.0, ejection_max_s=5.0)
    here.fail(times=3)
    assert here.ejections.next_due_s == here.now_s + 10.0


def test_thousands_of_ejections_in_a_row_are_counted() -> None:
    here = upstream()
    here.fail(times=3)
    for _ in range(3000):
        here.pass_time(here.ejections.next_due_s - here.now_s)
        here.fail()
    assert here.ejections.next_due_s == here.now_s + 300.0


def test_a_success_and_as_long_without_a_failure_end_the_row_of_ejections() -> None:
    here = upstream(ejection_s=10.0)
    here.fail(times=3)
    here.pass_time(10.0)
    here.succeed()
    here.pass_time(10.0)
    assert here.fail(times=3) == [False, False, True]
    assert here.ejections.next_due_s == here.now_s + 10.0


def test_a_success_alone_does_not() -> None:
    here = upstream(ejection_s=10.0)
    here.fail(times=3)
    here.pass_time(10.0)
    here.succeed()
    here.pass_time(9.0)
    assert here.fail(times=3) == [False, False, True]
    assert here.ejections.next_due_s == here.now_s + 20.0


def test_nor_does_time_alone() -> None:
    here = upstream(ejection_s=10.0)
    here.fail(times=3)
    here.pass_time(10.0)
    here.pass_time(1000.0)
    assert here.fail() == [True]
    assert here.ejections.next_due_s == here.now_s + 20.0


def test_failures_now_and_then_keep_the_row_of_ejections_going() -> None:
    here = upstream(ejection_s=10.0)
    here.fail(times=3)
    here.pass_time(10.0)
    for _ in range(10):
        here.succeed()
        here.pass_time(8.0)
        here.fail()
    assert here.fail(times=2) == [False, True]
    assert here.ejections.next_due_s == here.now_s + 20.0


def test_failures_while_it_is_ejected_say_nothing_new() -> None:
    here = upstream(ejection_s=10.0)
    here.fail(times=3)
    here.pass_time(5.0)
    assert here.fail(times=50) == [False] * 50
    assert here.ejections.next_due_s == 110.0
    here.succeed()
    here.pass_time(5.0)
    assert here.fail(times=3) == [False, False, True], "a late answer was a success all the same"


def test_failures_of_requests_from_before_it_came_back_say_nothing_new_either() -> None:
    here = upstream(ejection_s=10.0)
    here.fail(times=3)
    here.pass_time(10.0)
    one = here.members[0]
    assert not here.ejections.failed(one, here.now_s + 50, began_s=here.now_s - 1)
    assert here.ejections.failed(one, here.now_s + 50, began_s=here.now_s)


@pytest.mark.parametrize(
    ("share_max", "members", "most"),
    [
        (0.5, 1, 0),
        (0.5, 2, 1),
        (0.5, 3, 1),
        (0.5, 4, 2),
        (0.1, 2, 1),
        (0.1, 9, 1),
        (0.1, 20, 2),
        (0.29, 100, 29),
        (0.0, 10, 0),
        (1.0, 1, 1),
        (1.0, 3, 3),
        (0.99, 1, 0),
        (0.5, 0, 0),
    ],
)
def test_how_many_may_be_ejected_at_once(share_max: float, members: int, most: int) -> None:
    assert ejected_max(share_max, members) == most
    here = upstream(members, failures=1, share_max=share_max)
    for index in range(members):
        here.fail(index, times=2)
    assert len(here.ejected()) == most


def test_one_that_may_not_be_ejected_is_so_at_its_next_failure_after_another_came_back() -> None:
    here = upstream(2, share_max=0.5)
    here.fail(0, times=3)
    assert here.fail(1, times=5) == [False] * 5
    here.pass_time(10.0)
    assert here.ejected() == []
    assert here.fail(1) == [True]
    assert here.ejected() == [1]


def test_without_a_number_of_failures_nobody_is_ejected() -> None:
    here = upstream(failures=None)
    assert not any(here.fail(times=1000))


def test_before_it_is_told_of_members_it_ejects_none() -> None:
    ejections = Ejections(Ejection(failures=1))
    assert not ejections.failed(Member("a"), 1.0)


def test_other_settings_hold_from_the_next_failure_on() -> None:
    here = upstream(failures=3, ejection_s=10.0)
    here.fail(0, times=3)
    here.fail(1, times=1)
    here.ejections.use(Ejection(failures=2, ejection_s=50.0), here.members)
    assert here.ejected() == [0]
    assert here.ejections.next_due_s == 110.0, "what has begun lasts as long as it was to"
    assert here.fail(1) == [True]
    assert here.pass_time(10.0) == here.members[:1]
    assert here.ejections.next_due_s == 150.0


def test_where_fewer_may_be_ejected_those_that_would_come_back_first_are_back() -> None:
    here = upstream(4, share_max=0.75)
    for index in (2, 0, 1):
        here.fail(index, times=3)
        here.now_s += 1.0
    here.ejections.use(Ejection(failures=3, share_max=0.25), here.members)
    assert here.ejected() == [1]
    assert here.ejections.next_due_s == 112.0
    here.ejections.use(Ejection(failures=None), here.members)
    assert here.ejected() == []
    assert here.ejections.next_due_s == inf


def test_who_is_no_member_any_more_is_forgotten() -> None:
    here = upstream(4)
    here.fail(0, times=3)
    gone = here.members.pop(0)
    here.ejections.use(Ejection(failures=3), here.members)
    assert not here.ejections.is_ejected(gone)
    assert here.ejections.next_due_s == inf
    here.ejections.use(Ejection(failures=3), [gone, *here.members])
    assert here.ejections.failed(gone, here.now_s)
    assert here.ejections.next_due_s == here.now_s + 10.0, "and begins anew"


def test_members_that_go_let_others_back() -> None:
    here = upstream(4, share_max=0.5)
    here.fail(0, times=3)
    here.now_s += 1.0
    here.fail(1, times=3)
    here.ejections.use(Ejection(failures=3, share_max=0.5), here.members[:3])
    assert here.ejected() == [1]


SETTINGS = st.builds(
    Ejection,
    failures=st.none() | st.integers(1, 3),
    ejection_s=st.sampled_from([0.5, 10.0]),
    ejection_max_s=st.sampled_from([5.0, 60.0]),
    share_max=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)


class EjectionsModel(RuleBasedStateMachine):
    """What may happen to the members of an upstream, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.settings = Ejection()
        self.here = Upstream([], Ejections(self.settings))
        self.in_row: dict[Member, int] = {}
        self.until_at_most_s: dict[Member, float] = {}

    @initialize(settings_=SETTINGS, count=st.integers(0, 6))
    def begin(self, settings_: Ejection, count: int) -> None:
        self.use(settings_, count)

    @rule(settings_=SETTINGS, count=st.integers(0, 6))
    def use(self, settings_: Ejection, count: int) -> None:
        before = self.here.ejected()
        kept = self.here.members[:count]
        self.here.members = kept + [Member(f"new-{number}") for number in range(count - len(kept))]
        self.settings = settings_
        self.here.ejections.use(settings_, self.here.members)
        assert set(self.here.ejected()) <= set(before), "new settings ejected somebody"

    @rule(index=st.integers(0, 5), late=st.sampled_from([0.0, 0.0, 0.0, 30.0]), times=st.integers(1, 4))
    def fail(self, index: int, late: float, times: int) -> None:
        if index >= len(self.here.members):
            return
        one, now_s = self.here.members[index], self.here.now_s
        for _ in range(times):
            others, was_ejected = len(self.here.ejected()), self.here.ejections.is_ejected(one)
            said = self.here.ejections.failed(one, now_s, now_s - late)
            assert said is (self.here.ejections.is_ejected(one) and not was_ejected)
            self.in_row[one] = self.in_row.get(one, 0) + 1
            if said:
                assert self.settings.failures is not None
                assert self.in_row[one] >= self.settings.failures, "too few failures in a row"
                longest_s = max(self.settings.ejection_s, self.settings.ejection_max_s)
                self.until_at_most_s[one] = now_s + longest_s
                assert now_s + self.settings.ejection_s <= self.next_due_of(one) <= now_s + longest_s
            elif not late and not was_ejected and self.settings.failures is not None:
                full = others >= ejected_max(self.settings.share_max, len(self.here.members))
                assert full or one.failures < self.settings.failures, "failed enough, and was not ejected"

    @rule(index=st.integers(0, 5))
    def succeed(self, index: int) -> None:
        if index < len(self.here.members):
            before = self.here.ejected()
            self.here.succeed(index)
            self.in_row[self.here.members[index]] = 0
            assert self.here.ejected() == before

    @rule(seconds=st.sampled_from([0.1, 0.5, 4.0, 10.0, 61.0]))
    def pass_time(self, seconds: float) -> None:
        before = {self.here.members[index] for index in self.here.ejected()}
        back = self.here.pass_time(seconds)
        assert set(back) == before - {self.here.members[index] for index in self.here.ejected()}
        assert len(back) == len(set(back))

    def next_due_of(self, one: Member) -> float:
        return self.here.ejections._ejected[one]

    @invariant()
    def never_more_than_the_share(self) -> None:
        most = 0 if self.settings.failures is None else ejected_max(self.settings.share_max, len(self.here.members))
        assert len(self.here.ejected()) <= most

    @invariant()
    def every_ejection_ends(self) -> None:
        ejected = [self.here.members[index] for index in self.here.ejected()]
        assert all(self.here.now_s < self.until_at_most_s[one] for one in ejected)
        if ejected:
            assert self.here.now_s < self.here.ejections.next_due_s <= min(map(self.next_due_of, ejected))
        else:
            assert self.here.ejections.next_due_s == inf


EjectionsModel.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestEjectionsModel = EjectionsModel.TestCase


@pytest.mark.parametrize(
    ("gone_s", "share"), [(0.0, 0.1), (10.0, 0.4), (15.0, 0.55), (30.0, 1.0), (31.0, 1.0), (-1.0, 0.1)]
)
def test_the_share_grows_steadily(gone_s: float, share: float) -> None:
    assert slow_start_share(100.0, 100.0 + gone_s, 30.0) == pytest.approx(share)


def test_without_a_slow_start_the_share_is_whole_at_once() -> None:
    assert slow_start_share(100.0, 100.0, 0.0) == 1.0


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.floats(0, 1e7))
def test_a_share_is_never_none_nor_more_than_all(since_s: float, now_s: float, slow_start_s: float) -> None:
    assert 0.1 <= slow_start_share(since_s, now_s, slow_start_s) <= 1.0
