"""Every balancer has its chooser, and each chooses of the usable alone."""

import random

import pytest

from proxy.config import Balancer
from proxy.rules.balancing import CHOOSERS, Member, chooser
from tests.members import counts, many


def test_every_balancer_is_in_the_table() -> None:
    assert CHOOSERS.keys() == set(Balancer)


@pytest.mark.parametrize("balancer", Balancer)
def test_only_those_usable_are_chosen_whoever_they_are(balancer: Balancer) -> None:
    members, source = many(20), random.Random(2)
    made = chooser(balancer, members, source.random)
    for count in (20, 7, 1, 2, 20):
        usable = [one for one in members if one in source.sample(members, count)][:count] or members[:1]
        for one in members:
            one.usable = one in usable
        for number in range(50):
            assert made.choose(usable, f"10.0.0.{number}") in usable


@pytest.mark.parametrize("balancer", Balancer)
def test_equal_members_get_equal_shares(balancer: Balancer) -> None:
    """Of those that choose by chance; by turns it is exact, and by address each of many addresses counts once."""
    members = [Member(name) for name in "abcd"]
    made = chooser(balancer, members, random.Random(3).random)
    found = [made.choose(members, f"10.0.{number // 256}.{number % 256}") for number in range(4000)]
    assert all(900 < found.count(one) < 1100 for one in members)


@pytest.mark.parametrize("balancer", [one for one in Balancer if one is not Balancer.IP_HASH])
def test_addresses_make_no_difference_but_for_ip_hash(balancer: Balancer) -> None:
    found = [
        [made.choose(members, address).id for _ in range(30)]
        for address in ("10.0.0.1", "10.0.0.2")
        for members in [many(5)]
        for made in [chooser(balancer, members, random.Random(4).random)]
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "balancer",
    [Balancer.LEAST_CONNECTIONS, Balancer.LEAST_CONNECTIONS_WEIGHT, Balancer.PERFORMANCE, Balancer.LEAST_LATENCY],
)
def test_who_slowly_starts_has_so_much_less_of_what_is_running(balancer: Balancer) -> None:
    """Requests come and none ends: what each has then is in proportion to its share of the weight."""
    members = [Member(name) for name in "abc"]
    for one in members:
        one.latency_s = 0.1
    members[0].share = 0.1
    made = chooser(balancer, members, random.Random(5).random)
    for _ in range(2100):
        made.choose(members, "").running += 1
    assert 95 <= members[0].running <= 105
    assert abs(members[1].running - members[2].running) <= 60


def test_counts_are_of_all_that_are_usable() -> None:
    members = [Member("a"), Member("b")]
    assert sum(counts(chooser(Balancer.WEIGHT, members, lambda: 0.0), members, 10)) == 10
