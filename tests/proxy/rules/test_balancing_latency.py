"""Of two random members the faster; nobody is forgotten, and nobody is drowned by being tried."""

import random
from itertools import permutations
from math import exp, log

import pytest

from proxy.rules.balancing_base import Member, observe
from proxy.rules.balancing_latency import LeastLatency
from tests.candidates import fits
from tests.members import ADDRESS, counts, many, member


def made(members: list[Member], seed: int = 1) -> LeastLatency:
    return LeastLatency(members, random.Random(seed).random)


def test_odds_are_those_of_all_pairs() -> None:
    """Each pair is drawn with equal odds, and the lower cost wins."""
    members = many(6)
    cost = {one: one.latency_s * (one.running + one.elsewhere + 1) / one.weight for one in members}
    odds = [sum(one is min(pair, key=cost.__getitem__) for pair in permutations(members, 2)) for one in members]
    assert sorted(odds) == [0, 2, 4, 6, 8, 10]
    assert fits(counts(made(members), members, 6000), odds)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (member("a", latency_s=0.1), member("b", latency_s=0.2)),
        (member("a", latency_s=0.1, running=1), member("b", latency_s=0.25)),
        (member("a", latency_s=0.1), member("b", latency_s=0.06, elsewhere=1)),
        (member("a", latency_s=0.3, weight=400), member("b", latency_s=0.1)),
        (member("a", latency_s=0.1), member("b", latency_s=0.05, share=0.1)),
        (member("a"), member("b", latency_s=0.001)),
        (member("a"), member("b", running=1)),
        (member("a", running=1), member("b", latency_s=0.001, running=2)),
    ],
)
def test_of_two_the_first_wins_in_either_order(one: Member, other: Member) -> None:
    assert counts(made([one, other]), [one, other], 20) == [20, 0]
    assert counts(made([other, one]), [other, one], 20) == [0, 20]


def test_of_equals_each_is_chosen_with_equal_odds() -> None:
    members = [member(str(number), latency_s=0.1) for number in range(5)]
    assert fits(counts(made(members), members, 5000), [1] * 5)


def test_one_alone_is_chosen() -> None:
    members = [member("a", latency_s=1.0)]
    assert counts(made(members), members, 3) == [3]


def test_the_old_latency_of_one_that_had_no_news_fades_until_it_is_tried() -> None:
    fast, slow = member("fast"), member("slow")
    observe(fast, 0.01, 0.0)
    observe(slow, 0.1, 0.0)
    balancer, tried_s = made([fast, slow]), 0.0
    for step in range(1, 1000):
        now_s = step / 10
        observe(fast, 0.01, now_s)
        if balancer.choose([fast, slow], ADDRESS) is slow:
            tried_s = now_s
            break
    assert tried_s == pytest.approx(10 * log(10), abs=0.2)


def test_a_trial_is_one_request_until_there_is_news_or_all_has_faded_again() -> None:
    """The slow one hangs: its latency stays what it was, and a few requests wait."""
    fast, slow = member("fast"), member("slow")
    observe(fast, 0.01, 0.0)
    observe(slow, 0.1, 0.0)
    balancer = made([fast, slow])
    for step in range(1, 60_000):
        observe(fast, 0.01, step / 1000)
        if balancer.choose([fast, slow], ADDRESS) is slow:
            slow.running += 1
    assert slow.running == 2, "after 23 s, and after 23 s and 10 log 2"


def test_after_days_without_news_of_one_it_is_tried_once_and_its_latency_counts_again() -> None:
    here, away = member("here"), member("away")
    observe(away, 5.0, 0.0)
    observe(here, 0.01, 500_000.0)
    balancer = made([here, away])
    assert balancer.choose([here, away], ADDRESS) is away
    assert counts(balancer, [here, away], 20) == [20, 0]
    assert (here.latency_tried_s, away.latency_tried_s) == (500_000.0, 500_000.0)


def test_to_be_chosen_for_its_speed_makes_no_news_older() -> None:
    fast, slow = member("fast"), member("slow")
    observe(slow, 0.1, 0.0)
    observe(fast, 0.01, 5.0)
    assert counts(made([fast, slow]), [fast, slow], 20) == [20, 0]
    assert (fast.latency_tried_s, slow.latency_tried_s) == (5.0, 0.0)


def test_news_of_a_trial_that_went_well_counts_almost_alone() -> None:
    fast, slow = member("fast"), member("slow")
    observe(fast, 0.01, 0.0)
    observe(slow, 0.1, 0.0)
    balancer = made([fast, slow])
    observe(fast, 0.01, 30.0)
    assert balancer.choose([fast, slow], ADDRESS) is slow
    observe(slow, 0.01, 30.01)
    assert slow.latency_s == pytest.approx(0.01 + 0.09 * exp(-3), rel=0.01)


def test_one_that_hangs_gets_requests_until_those_that_wait_outweigh_its_old_latency() -> None:
    good, hanging = member("good", latency_s=0.1), member("hanging", latency_s=0.01)
    balancer = made([good, hanging])
    for step in range(1, 5000):
        if balancer.choose([good, hanging], ADDRESS) is hanging:
            hanging.running += 1
        else:
            observe(good, 0.1, step / 1000)
    assert 9 <= hanging.running <= 20


def test_a_new_one_is_tried_by_one_request_and_counts_as_the_others_until_that_has_told() -> None:
    known, new = member("known", latency_s=0.1), member("new")
    balancer = made([known, new])
    assert balancer.choose([known, new], ADDRESS) is new
    new.running = 1
    assert counts(balancer, [known, new], 10) == [10, 0]
    known.running = 1
    assert fits(counts(balancer, [known, new], 1000), [1, 1])
    known.running = 2
    assert counts(balancer, [known, new], 10) == [0, 10]


def test_many_choices_share_requests_by_speed() -> None:
    """Members that serve one request at a time, in 10, 20 and 40 ms; as many requests wait as three at once."""
    members = [member("a"), member("b"), member("c")]
    takes_s = {members[0]: 0.01, members[1]: 0.02, members[2]: 0.04}
    free_s, ends, had = dict.fromkeys(members, 0.0), list[tuple[float, float, Member]](), dict.fromkeys(members, 0)
    balancer, now_s = made(members), 0.0
    for _ in range(3000):
        if len(ends) == 12:
            ends.sort(key=lambda end: end[0])
            now_s, began_s, ended = ends.pop(0)
            ended.running -= 1
            observe(ended, now_s - began_s, now_s)
        chosen = balancer.choose(members, ADDRESS)
        chosen.running += 1
        had[chosen] += 1
        free_s[chosen] = max(free_s[chosen], now_s) + takes_s[chosen]
        ends.append((free_s[chosen], now_s, chosen))
    assert had[members[0]] > had[members[1]] > had[members[2]] > 0
    assert now_s < 1.1 * 3000 / (100 + 50 + 25), "nobody is idle for long"
