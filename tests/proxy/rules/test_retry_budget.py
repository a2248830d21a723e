"""All that were running may be sent again once; after that, no more than the share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.rules.retry_budget import RETRIES_AT_LEAST, RetryBudget


def taken(budget: RetryBudget, running: int, tries: int = 10_000) -> int:
    """How many retries there are when everything fails at once."""
    return sum(budget.take(running) for _ in range(tries))


@pytest.mark.parametrize("running", [0, 1, 10, 11, 333, 5000])
def test_as_many_as_are_running_may_be_sent_again_and_ten_at_least(running: int) -> None:
    assert taken(RetryBudget(0.2), running) == max(running, RETRIES_AT_LEAST)


def test_then_as_many_as_the_share_of_requests() -> None:
    budget = RetryBudget(0.2)
    taken(budget, 100)
    had = 0
    for _ in range(1000):
        budget.request()
        had += taken(budget, 100, 3)
    assert 200 <= had <= 201


def test_a_storm_in_which_all_fails_each_time_is_no_more_than_a_share_larger() -> None:
    """Each request would be sent three times."""
    budget, sent = RetryBudget(0.2), 0
    for _ in range(10_000):
        budget.request()
        sent += 1 + taken(budget, 50, 2)
    assert 12_000 <= sent <= 12_000 + 51


def test_what_was_used_is_paid_back_by_requests_that_succeed() -> None:
    budget = RetryBudget(0.2)
    assert taken(budget, 300) == 300
    for _ in range(750):
        budget.request()
    assert 150 <= taken(budget, 300) <= 151
    for _ in range(10_000):
        budget.request()
    assert taken(budget, 300) == 300, "and no more, however many came"


def test_more_that_are_running_may_be_sent_again_at_once() -> None:
    budget = RetryBudget(0.2)
    assert taken(budget, 10) == 10
    assert taken(budget, 100) == 90
    assert taken(budget, 50) == 0


def test_without_a_share_nothing_is_sent_again() -> None:
    budget = RetryBudget(0.0)
    budget.request()
    assert taken(budget, 1000) == 0


def test_another_share_holds_from_then_on() -> None:
    budget = RetryBudget(0.0)
    budget.share = 1.0
    assert taken(budget, 20) == 20
    budget.request()
    assert taken(budget, 20) == 1
    budget.share = 0.0
    budget.request()
    assert taken(budget, 20) == 0


steps = st.lists(
    st.one_of(
        st.tuples(st.just("requests"), st.integers(1, 50)),
        st.tuples(st.just("fail"), st.integers(1, 50)),
        st.tuples(st.just("running"), st.integers(0, 60)),
    ),
    max_size=60,
)


@given(steps, st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0]), st.integers(0, 20))
def test_in_any_span_retries_are_the_share_and_as_many_as_were_running_at_most(
    happening: list[tuple[str, int]], share: float, begins_at: int
) -> None:
    budget, running = RetryBudget(share), 0
    requests = retries = busiest = 0
    for place, (what, number) in enumerate(happening):
        if place == begins_at:
            requests = retries = 0
            busiest = running
        if what == "running":
            running = number
            busiest = max(busiest, running)
        for _ in range(number):
            if what == "requests":
                budget.request()
                requests += 1
            elif what == "fail":
                retries += budget.take(running)
        assert retries <= share * requests + max(busiest, RETRIES_AT_LEAST) + 1
        assert share or not retries


@given(steps, st.sampled_from([0.1, 0.2, 0.5, 1.0]), st.integers(1, 40))
def test_whatever_came_before_enough_good_requests_fill_it(
    happening: list[tuple[str, int]], share: float, running: int
) -> None:
    budget = RetryBudget(share)
    for what, number in happening:
        for _ in range(number):
            budget.request() if what == "requests" else budget.take(number)
    for _ in range(round(61 / share) + 1):
        budget.request()
    assert taken(budget, running, 100) == max(running, RETRIES_AT_LEAST)
