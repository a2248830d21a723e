"""All groups of a worker, and what is told of their backends."""

import asyncio

import pytest

from proxy.config import Backend, Balancer, Upstream
from proxy.shared_state.linked_groups import BackendState, Elsewhere, LinkedGroups
from proxy.upstream.groups import Groups
from tests.proxy.asgi import play


def upstream_of(*hosts: str) -> Upstream:
    return Upstream(backends=tuple(Backend(url=f"http://{host}", id=host) for host in hosts))


def test_groups_come_stay_and_go_with_their_upstreams() -> None:
    async def dialogue() -> None:
        groups = Groups(asyncio.get_running_loop())
        groups.use({"one": upstream_of("a"), "two": upstream_of("b")})
        one, two = groups.get("one"), groups.get("two")
        groups.use({"one": upstream_of("a", "c")})
        assert groups.get("one") is one
        assert [member.id for member in one.members] == ["a", "c"]
        assert two.members == [], "a request that waits for one of its backends is not given any"
        with pytest.raises(KeyError):
            groups.get("two")

    play(dialogue)


def test_what_is_known_of_backends_reaches_their_own_group_also_later_ones() -> None:
    async def dialogue() -> None:
        groups: Groups = Groups(asyncio.get_running_loop())
        linked: LinkedGroups = groups
        groups.use({"one": upstream_of("a", "b")})
        linked.use_states({("one", "a"): BackendState(healthy=False), ("two", "a"): BackendState(util=0.5)})
        linked.use_elsewhere({("one", "b"): Elsewhere(3, 2), ("two", "a"): Elsewhere(1, 1)})
        assert [member.id for member in groups.get("one").usable] == ["b"]
        assert [member.elsewhere for member in groups.get("one").members] == [0, 3]
        groups.use({"one": upstream_of("a", "b"), "two": upstream_of("a")})
        assert [member.util for member in groups.get("two").members] == [0.5]

    play(dialogue)


def test_what_runs_is_told_by_upstream_and_backend() -> None:
    async def dialogue() -> None:
        groups = Groups(asyncio.get_running_loop())
        groups.use({"one": upstream_of("a", "b"), "two": upstream_of("a")})
        assert groups.running() == {}
        group = groups.get("two")
        member = group.take(group.picker(Balancer.WEIGHT), "")
        assert member is not None
        assert groups.running() == {("two", "a"): 1}
        group.give_back(member)
        assert groups.running() == {}

    play(dialogue)
