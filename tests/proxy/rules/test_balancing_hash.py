"""The same address meets the same member; who comes or goes takes or leaves its own clients alone."""

import random
import subprocess
import sys
from collections.abc import Sequence

import pytest

from proxy.rules.balancing_base import Member
from proxy.rules.balancing_hash import RANKED, SLOTS, IpHash, ranking
from tests.candidates import fits
from tests.members import member

ADDRESSES = [f"10.{number >> 8}.{number & 255}.{number % 251}" for number in range(4000)]


def hash_of(members: Sequence[Member]) -> IpHash:
    return IpHash(members, lambda: 0.0)


def where(made: IpHash, members: Sequence[Member]) -> dict[str, str]:
    usable = [one for one in members if one.usable]
    return {address: made.choose(usable, address).id for address in ADDRESSES}


def of(count: int) -> list[Member]:
    return [member(f"backend-{number}") for number in range(count)]


def moved(before: dict[str, str], after: dict[str, str]) -> list[tuple[str, str]]:
    """From where to where clients have moved."""
    return [(before[address], after[address]) for address in ADDRESSES if before[address] != after[address]]


def test_an_address_meets_the_same_one_each_time_and_in_each_worker() -> None:
    members = of(5)
    made = hash_of(members)
    first = where(made, members)
    assert where(made, members) == first
    assert where(hash_of(of(5)[::-1]), of(5)[::-1]) == first, "whatever the order"


def test_processes_agree() -> None:
    """Python's own hashes of texts differ from one process to the next."""
    program = (
        "from proxy.rules.balancing_base import Member\n"
        "from proxy.rules.balancing_hash import IpHash\n"
        "members = [Member(f'backend-{number}') for number in range(5)]\n"
        "made = IpHash(members, lambda: 0.0)\n"
        "print(*(made.choose(members, f'10.0.0.{number}').id for number in range(50)))\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    members = of(5)
    made = hash_of(members)
    assert ran.stdout.split() == [made.choose(members, f"10.0.0.{number}").id for number in range(50)]


@pytest.mark.parametrize("count", [2, 3, 20])
def test_who_goes_leaves_its_own_clients_alone_to_all_others(count: int) -> None:
    members = of(count)
    before = where(hash_of(members), members)
    moves = moved(before, where(hash_of(members[1:]), members[1:]))
    assert {source for source, _ in moves} == {members[0].id}
    assert len(moves) == list(before.values()).count(members[0].id)
    assert 0.7 / count < len(moves) / len(ADDRESSES) < 1.3 / count
    found = [sum(target == one.id for _, target in moves) for one in members[1:]]
    assert count == 2 or fits(found, [1] * (count - 1))


@pytest.mark.parametrize("count", [2, 3, 20])
def test_who_comes_takes_its_share_and_nobody_elses_clients_move(count: int) -> None:
    members = of(count + 1)
    moves = moved(where(hash_of(members[:-1]), members[:-1]), where(hash_of(members), members))
    assert {target for _, target in moves} == {members[-1].id}
    assert 0.7 / (count + 1) < len(moves) / len(ADDRESSES) < 1.3 / (count + 1)


@pytest.mark.parametrize("count", [3, 20])
def test_one_that_is_not_usable_for_a_while_moves_its_own_clients_alone_and_has_them_again(count: int) -> None:
    members = of(count)
    made = hash_of(members)
    before = where(made, members)
    members[1].usable = False
    meanwhile = where(made, members)
    assert {source for source, _ in moved(before, meanwhile)} == {members[1].id}
    assert meanwhile == where(hash_of([*members[:1], *members[2:]]), [*members[:1], *members[2:]])
    members[1].usable = True
    assert where(made, members) == before


def test_where_none_of_those_kept_for_a_slot_is_usable_the_next_best_is_found() -> None:
    members = of(5 * RANKED)
    made = hash_of(members)
    for one in members[:-3]:
        one.usable = False
    left = members[-3:]
    assert where(made, members) == where(hash_of(left), left)


def test_shares_are_by_weight() -> None:
    members = [member("a", weight=50), member("b", weight=100), member("c", weight=300), member("d", weight=1)]
    best = [ranking(members, slot)[0] for slot in range(SLOTS)]
    assert fits([best.count(one) for one in members], [50, 100, 300, 1])


def test_so_are_those_of_the_next_best() -> None:
    """Of clients whose best member is gone, each other one gets its share."""
    members = [member("a", weight=1000), member("b", weight=10), member("c", weight=30)]
    rankings = [ranking(members, slot) for slot in range(0, SLOTS, 4)]
    second = [ranked[1] for ranked in rankings if ranked[0] is members[0]]
    assert fits([second.count(one) for one in members[1:]], [10, 30])


def test_a_weight_that_rises_moves_clients_to_that_member_alone() -> None:
    members = of(4)
    before = where(hash_of(members), members)
    members[2].weight = 150
    moves = moved(before, where(hash_of(members), members))
    assert {target for _, target in moves} == {members[2].id}
    assert 0.04 < len(moves) / len(ADDRESSES) < 0.13, "from 1 / 4 to 3 / 9 of all"


@pytest.mark.parametrize(
    "addresses",
    [
        [f"10.0.{number >> 8}.{number & 255}" for number in range(3000)],
        [f"10.{number // 50}.{number % 50}.1" for number in range(3000)],
        [f"2001:db8::{number:x}" for number in range(3000)],
        [f"2001:db8:{number:x}::1" for number in range(3000)],
        [f"192.168.1.{number}" for number in range(1, 255)],
        [f"{number}" for number in random.Random(1).sample(range(10**9), 3000)],
    ],
    ids=["a /20", "many /24", "an IPv6 /64", "many IPv6 /48", "a /24", "any texts"],
)
def test_addresses_that_are_alike_are_spread(addresses: list[str]) -> None:
    members = of(3)
    made = hash_of(members)
    found = [made.choose(members, address) for address in addresses]
    assert fits([found.count(one) for one in members], [1, 1, 1])


def test_one_that_slowly_starts_gets_its_clients_back_bit_by_bit_and_each_once() -> None:
    members = of(3)
    made = hash_of(members)
    whole = where(made, members)
    own = {address for address, name in whole.items() if name == members[0].id}
    before: set[str] = set()
    for share in (0.1, 0.4, 0.7, 1.0):
        members[0].share = share
        now = where(made, members)
        here = {address for address, name in now.items() if name == members[0].id}
        assert before <= here <= own
        assert abs(len(here) / len(own) - share) < 0.07
        assert all(now[address] == whole[address] for address in ADDRESSES if address not in own)
        before = here


def test_where_all_slowly_start_clients_are_where_they_belong() -> None:
    members = of(3)
    made = hash_of(members)
    whole = where(made, members)
    for one in members:
        one.share = 0.1
    assert where(made, members) == whole
