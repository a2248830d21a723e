"""The backends of one upstream: who may get a request, who waits, who comes back."""

import asyncio
from time import perf_counter
from typing import Any

import pytest

from proxy.config import Backend, Balancer, Ejection, Upstream
from proxy.errors import RelayError
from proxy.rules.balancing import Member
from proxy.upstream.group import Group
from tests.proxy.asgi import play, turns

LEAST = Balancer.LEAST_CONNECTIONS


def settings_of(*backends: Backend | str, **settings: Any) -> Upstream:
    made = tuple(Backend(url=f"http://{one}", id=one) if isinstance(one, str) else one for one in backends)
    return Upstream(backends=made, **settings)


def group_of(*backends: Backend | str, **settings: Any) -> Group:
    group = Group("group", asyncio.get_running_loop())
    group.use(settings_of(*backends, **settings))
    return group


def capped(host: str, connections_max: int) -> Backend:
    return Backend(url=f"http://{host}", id=host, max_connections=connections_max)


def take(group: Group) -> Member:
    member = group.take(group.picker(LEAST), "")
    assert member is not None
    return member


def usable(group: Group) -> list[str]:
    assert group.usable == [member for member in group.members if member.usable]
    return [member.id for member in group.usable]


def test_a_backend_that_stays_keeps_what_it_has_through_an_edit() -> None:
    async def dialogue() -> None:
        group = group_of("a", "b")
        (a, b), picker = group.members, group.picker(LEAST)
        running = take(group)
        group.use(settings_of("b", Backend(url="http://a", id="a", weight=7, priority=0), "c", balancer=LEAST))
        assert [member.id for member in group.members] == ["b", "a", "c"]
        assert group.members[:2] == [b, a]
        assert (a.weight, running.running) == (7, 1)
        assert group.picker(LEAST) is picker
        group.use(settings_of(Backend(url="http://elsewhere", id="a")))
        assert group.members[0] is not a, "another server is another member"
        group.give_back(running)
        assert (running.running, group.running) == (0, 0)

    play(dialogue)


def test_nobody_gets_more_than_its_cap_and_what_other_workers_have_counts() -> None:
    async def dialogue() -> None:
        group = group_of(capped("a", 2), capped("b", 3))
        group.use_elsewhere({"a": (1, 1), "b": (1, 1)})
        taken = [take(group) for _ in range(3)]
        assert sorted(member.id for member in taken) == ["a", "b", "b"]
        assert group.take(group.picker(LEAST), "") is None
        assert group.hindrances() == {"full": 2}
        group.use_elsewhere({})
        assert usable(group) == ["a", "b"]
        group.use_elsewhere({"a": (9, 1)})
        assert usable(group) == ["b"]
        for member in taken:
            group.give_back(member)
        assert usable(group) == ["a", "b"], "one it may have in any case"

    play(dialogue)


def test_room_goes_to_who_has_waited_longest_whatever_makes_it() -> None:
    async def dialogue() -> None:
        group = group_of(capped("a", 1))
        first = take(group)
        waits = [asyncio.create_task(group.wait(group.picker(LEAST), "")) for _ in range(4)]
        await turns()
        waits[0].cancel()
        await turns()
        group.give_back(first)
        waits[1].cancel()  # it has been given room already, which goes on to the next
        await turns()
        assert [task.done() for task in waits] == [True, True, True, False]
        group.use(settings_of(capped("a", 2)))
        await turns()
        assert waits[3].done()
        assert (group.members[0].running, group.running) == (2, 2)
        for task in waits[2:]:
            group.give_back(await task)
        assert group.running == 0
        await asyncio.gather(*waits[:2], return_exceptions=True)

    play(dialogue)


@pytest.mark.parametrize("elsewhere", [0, 5])
def test_who_waits_is_told_that_nothing_came(elsewhere: int) -> None:
    async def dialogue() -> None:
        group = group_of(capped("a", 1), queue_wait_s=0.02)
        group.use_elsewhere({"a": (elsewhere, 1)})
        if not elsewhere:
            take(group)
        with pytest.raises(RelayError, match="backends_busy"):
            await group.wait(group.picker(LEAST), "")

    play(dialogue)


def test_states_decide_who_is_usable_and_how_busy_it_is() -> None:
    async def dialogue() -> None:
        group = group_of("a", "b", slow_start_s=10)
        group.use_states(frozenset({"b"}), {"a": 0.5})
        assert usable(group) == ["a"]
        assert group.members[0].util == 0.5
        assert group.hindrances() == {"unhealthy": 1}
        group.use_states(frozenset(), {})
        assert usable(group) == ["a", "b"]
        assert [member.util for member in group.members] == [0.0, 0.0]
        assert [member.share for member in group.members] == [1.0, 0.1], "it starts slowly"
        group.use(settings_of("a", "b", slow_start_s=0))
        group.tick()
        assert [member.share for member in group.members] == [1.0, 1.0]

    play(dialogue)


def test_ejection_ends_and_never_takes_more_than_its_share() -> None:
    async def dialogue() -> None:
        group = group_of("a", "b", "c", ejection=Ejection(failures=1, ejection_s=0.02, share_max=0.5))
        for member in list(group.members):
            group.failed(member, perf_counter())
        assert usable(group) == ["b", "c"]
        assert group.hindrances() == {"ejected": 1}
        await asyncio.sleep(0.03)
        group.tick()
        assert usable(group) == ["a", "b", "c"]

    play(dialogue)


def test_an_ejection_ends_where_a_check_finds_that_the_backend_is_well_again() -> None:
    async def dialogue() -> None:
        group = group_of("a", "b", ejection=Ejection(failures=1))
        group.failed(group.members[0], perf_counter())
        group.use_states(frozenset({"a"}), {})
        assert usable(group) == ["b"]
        group.use_states(frozenset(), {})
        assert usable(group) == ["a", "b"]
        group.failed(group.members[0], perf_counter())
        assert usable(group) == ["b"], "it fails again"

    play(dialogue)


def test_where_nobody_else_is_well_those_that_are_ejected_are_tried() -> None:
    async def dialogue() -> None:
        group = group_of("a", "b", ejection=Ejection(failures=1))
        a, b = group.members
        group.failed(a, perf_counter())
        assert usable(group) == ["b"]
        group.use_states(frozenset({"b"}), {})
        assert usable(group) == ["a"]
        group.use_states(frozenset(), {})
        assert usable(group) == ["b"]
        group.use(settings_of("a", capped("b", 1), ejection=Ejection(failures=1)))
        assert take(group) is b
        assert usable(group) == [], "b has only to be waited for"

    play(dialogue)


def test_an_edit_that_leaves_members_and_weights_leaves_the_turns() -> None:
    async def dialogue() -> None:
        group = group_of("a", "b")
        picker = group.picker(Balancer.WEIGHT)
        turns_taken = picker.choose
        group.use(settings_of("a", "b", retry_max=0))
        assert picker.choose == turns_taken
        group.use(settings_of("a", Backend(url="http://b", id="b", weight=5)))
        assert picker.choose != turns_taken

    play(dialogue)


def test_what_a_removed_backend_does_is_nobodys_concern() -> None:
    async def dialogue() -> None:
        group = group_of("a", "b", ejection=Ejection(failures=1))
        a, _ = group.members
        group.use(settings_of("b", ejection=Ejection(failures=1)))
        group.failed(a, perf_counter())
        group.succeeded(a, perf_counter())
        assert usable(group) == ["b"]
        with pytest.raises(KeyError):
            group.backend(a)

    play(dialogue)
