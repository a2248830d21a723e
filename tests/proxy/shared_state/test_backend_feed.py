"""What a worker hears of backends and tells, on real servers. A test has a server's database for itself."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from loadtests.processes import free_port
from proxy.shared_state.backend_counts import decode_counts, encode_counts
from proxy.shared_state.backend_feed import COUNTS_S, LAPSE_S, POLL_S, REPORT_S, BackendFeed
from proxy.shared_state.backend_health import BackendHealth, announce_health, write_health
from proxy.shared_state.backend_names import field_of
from proxy.shared_state.backend_reports import BackendReport, encode_report
from proxy.shared_state.breaker import Breaker, Guard, StoreUnavailable
from proxy.shared_state.client import Client, close_idle
from proxy.shared_state.keys import BACKEND_HEALTH, BACKEND_REPORTS, BACKENDS_CHANNEL, BACKENDS_RUNNING
from proxy.shared_state.linked_groups import BackendState, Name
from tests.proxy.shared_state.backends import ToldGroups
from tests.redis_servers import DEADLINE_S, EMBEDDED, beside, cluster, connected, redis_at, server, until

A, B = ("up", "a"), ("up", "b")
UNIX_S = 1_700_000_000.0
GOOD = BackendHealth(healthy=True, since_s=1.0, checked_s=2.0)
BAD = BackendHealth(healthy=False, since_s=1.0, checked_s=2.0, reason="status 503")
HEALTHY = BackendState()
UNHEALTHY = BackendState(healthy=False)


class Played:
    """A worker's feed with clocks of the test's own, and what others do in the same Redis."""

    def __init__(self, client: Client, other: Client, name: str = "worker") -> None:
        self.groups = ToldGroups()
        self.other = other
        self.guard = Guard(other, Breaker(), DEADLINE_S)
        self.ahead_s = 0.0
        self.feed = BackendFeed(
            client, Guard(client, Breaker(), DEADLINE_S), self.groups, name, self.now_s, lambda: UNIX_S + self.ahead_s
        )

    def now_s(self) -> float:
        return 1000.0 + self.ahead_s

    async def later(self, seconds: float) -> ToldGroups:
        """Lets time pass; the worker looks once a second."""
        while seconds > 0:
            self.ahead_s += min(1.0, seconds)
            seconds -= 1.0
            await self.feed.refresh()
        return self.groups

    async def checked(self, states: dict[Name, BackendHealth], *, announced: bool = False) -> None:
        await write_health(self.other, self.guard, states, [], int((UNIX_S + self.ahead_s) * 1000))
        if announced:
            await announce_health(self.other, self.guard)

    async def report(self, name: Name, at_s: float, cpu_usage: float = 50.0) -> None:
        report = BackendReport(cpu_usage=cpu_usage, memory_usage=0.0, load_avg_1=0.0, at_s=at_s)
        await self.other.hset(BACKEND_REPORTS, field_of(name), encode_report(report))  # type: ignore[misc,arg-type,unused-ignore]

    async def run(self, worker: str, running: dict[Name, int], at_s: float) -> None:
        await self.other.hset(BACKENDS_RUNNING, worker, encode_counts(running, at_s))  # type: ignore[misc,arg-type,unused-ignore]

    async def told(self) -> dict[bytes, dict[str, int]]:
        found: Any = await self.other.hgetall(BACKENDS_RUNNING)  # type: ignore[misc,unused-ignore]
        return {name: decode_counts(data).counts for name, data in found.items()}


Story = Callable[[Played], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module", name="url")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server of this module's own: the keys have fixed names."""
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


def play(url: str, story: Story) -> None:
    async def main() -> None:
        async with connected(url) as client, connected(url) as other:
            if "cluster" not in url:
                await other.flushall()
            await story(Played(client, other))

    asyncio.run(main())


def test_health_and_load_come_together(url: str) -> None:
    async def story(played: Played) -> None:
        await played.feed.refresh()
        assert (played.groups.states, played.groups.elsewhere) == ({}, {})
        await played.checked({A: GOOD, B: BAD})
        await played.report(B, UNIX_S)
        await played.report(("other", "c"), UNIX_S, cpu_usage=100.0)
        groups = await played.later(1)
        assert groups.states == {
            A: HEALTHY,
            B: BackendState(healthy=False, util=0.2),
            ("other", "c"): BackendState(util=0.4),
        }

    play(url, story)


def test_a_backend_that_is_not_checked_any_more_is_healthy(url: str) -> None:
    async def story(played: Played) -> None:
        await played.checked({A: BAD})
        assert (await played.later(1)).unhealthy() == {A}
        await write_health(played.other, played.guard, {}, [field_of(A)], None)
        assert (await played.later(1)).states == {}

    play(url, story)


def test_a_redis_that_lost_everything_changes_nothing_until_it_is_written_again(url: str) -> None:
    async def story(played: Played) -> None:
        await played.checked({A: BAD})
        assert (await played.later(1)).unhealthy() == {A}
        await played.other.flushall()
        assert (await played.later(1)).unhealthy() == {A}
        await write_health(played.other, played.guard, {B: BAD}, [], None)
        assert (await played.later(1)).unhealthy() == {A}, "without a beat it is not whole"
        await played.checked({A: GOOD, B: BAD})
        assert (await played.later(1)).unhealthy() == {B}

    play(url, story)


def test_where_nobody_checks_any_more_unhealthy_lapses(url: str) -> None:
    async def story(played: Played) -> None:
        await played.checked({A: BAD, B: GOOD})
        await played.report(A, UNIX_S)
        assert (await played.later(1)).unhealthy() == {A}
        assert (await played.later(LAPSE_S - 2)).unhealthy() == {A}
        assert (await played.later(1)).states == {A: HEALTHY, B: HEALTHY}
        await played.checked({A: BAD, B: GOOD})
        assert (await played.later(1)).unhealthy() == {A}, "somebody checks again"

    play(url, story)


def test_while_somebody_checks_a_state_does_not_lapse_however_old(url: str) -> None:
    async def story(played: Played) -> None:
        for _ in range(3):
            await played.checked({A: BAD})
            assert (await played.later(LAPSE_S - 1)).unhealthy() == {A}

    play(url, story)


def test_a_worker_that_starts_does_not_go_by_what_was_checked_long_ago(url: str) -> None:
    async def story(played: Played) -> None:
        await played.checked({A: BAD})
        played.ahead_s = LAPSE_S
        await played.feed.refresh()
        assert played.groups.states == {A: HEALTHY}

    play(url, story)


def test_a_report_counts_for_a_minute(url: str) -> None:
    async def story(played: Played) -> None:
        await played.report(A, UNIX_S - REPORT_S)
        await played.report(B, UNIX_S - REPORT_S + 2)
        assert (await played.later(1)).states == {B: BackendState(util=0.2)}
        await played.report(A, UNIX_S - 3600.0)
        assert (await played.later(1)).states == {A: BackendState(util=0.2)}, "it came now, whatever the clock says"
        assert (await played.later(REPORT_S - 1)).states == {A: BackendState(util=0.2)}
        assert (await played.later(1)).states == {}

    play(url, story)


def test_it_tells_what_is_running_and_nothing_where_there_is_nothing(url: str) -> None:
    async def story(played: Played) -> None:
        await played.later(1)
        written = await commands(played.other)
        await played.later(2)
        assert await commands(played.other) == written, "there is nothing to tell"
        played.groups.here = {A: 2}
        await played.later(1)
        assert await played.told() == {b"worker": {"up\0a": 2}}
        played.groups.here = {}
        await played.later(1)
        assert await played.told() == {}
        played.groups.here = {A: 1}
        await played.later(1)
        await played.feed.finish()
        assert await played.told() == {}

    play(url, story)


async def commands(client: Client) -> int:
    """How many commands have written to hashes."""
    stats: dict[str, Any] = await client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("hset", "hdel"))


def test_what_others_have_running_counts_while_they_say_so(url: str) -> None:
    async def story(played: Played) -> None:
        played.groups.here = {A: 5}
        await played.run("dead", {A: 9}, UNIX_S - COUNTS_S)
        await played.later(1)
        assert played.groups.elsewhere == {}, "its own do not count, nor those of one that is gone"
        for second in range(4):  # its clock is an hour late
            await played.run("other", {A: 2, B: 1}, UNIX_S - 3600 + second)
            await played.run("third", {A: 1}, UNIX_S)
            assert (await played.later(1)).elsewhere == ({A: 3, B: 1} if second < COUNTS_S else {A: 2, B: 1})
        assert (await played.later(COUNTS_S - 1)).elsewhere == {A: 2, B: 1}
        assert (await played.later(1)).elsewhere == {}
        await played.run("other", {A: 2}, UNIX_S)
        assert (await played.later(1)).elsewhere == {A: 2}
        await played.other.hdel(BACKENDS_RUNNING, "other")  # type: ignore[misc,unused-ignore]
        assert (await played.later(1)).elsewhere == {}

    play(url, story)


def test_what_this_version_cannot_read_is_left_out(url: str) -> None:
    async def story(played: Played) -> None:
        await played.checked({A: BAD})
        for key in (BACKEND_HEALTH, BACKEND_REPORTS, BACKENDS_RUNNING):
            for field in (b"garbage", field_of(B)):
                await played.other.hset(key, field, b"garbage")  # type: ignore[misc,arg-type,unused-ignore]
        assert (await played.later(1)).states == {A: UNHEALTHY}
        assert played.groups.elsewhere == {}

    play(url, story)


def test_an_announcement_is_followed_at_once(url: str) -> None:
    async def story(played: Played) -> None:
        await played.checked({A: GOOD})
        async with beside(played.feed.follow()):
            await known(played, set())
            best_s = DEADLINE_S
            for change in range(6):
                health, expected = (BAD, {A}) if change % 2 == 0 else (GOOD, set())
                began_s = time.monotonic()
                await played.checked({A: health}, announced=True)
                await known(played, expected)
                best_s = min(best_s, time.monotonic() - began_s)
            assert best_s < POLL_S / 2

    play(url, story)


def test_a_lost_announcement_is_caught_by_the_poll(url: str) -> None:
    async def story(played: Played) -> None:
        await played.checked({A: GOOD})
        async with beside(played.feed.follow()):
            await known(played, set())
            await played.checked({A: BAD})
            await known(played, {A})

    play(url, story)


def test_a_burst_of_announcements_is_read_together(url: str) -> None:
    async def story(played: Played) -> None:
        await played.checked({A: GOOD})
        async with beside(played.feed.follow()):
            await known(played, set())
            before = await reads(played.other)
            for _ in range(200):
                await played.other.publish(BACKENDS_CHANNEL, b"report")
            await played.checked({A: BAD}, announced=True)
            await known(played, {A})
            assert await reads(played.other) - before < 3 * 100

    play(url, story)


async def reads(client: Client) -> int:
    stats: dict[str, Any] = await client.info("commandstats")
    calls: int = stats["cmdstat_hgetall"]["calls"]
    return calls


async def known(played: Played, unhealthy: set[Name]) -> None:
    async def look() -> bool:
        return A in played.groups.states and played.groups.unhealthy() == unhealthy

    await until(look)


def test_keys_of_other_types_do_not_end_the_feed(url: str) -> None:
    async def story(played: Played) -> None:
        await played.other.set(BACKEND_REPORTS, "a")
        async with beside(played.feed.follow()):
            await asyncio.sleep(0.1)  # for it to be seen
            await played.other.delete(BACKEND_REPORTS)
            await played.checked({A: BAD})
            await known(played, {A})

    play(url, story)


def test_while_redis_is_gone_what_was_known_holds_until_it_is_too_old(tmp_path: Path) -> None:
    async def main() -> None:
        port = free_port()
        url = f"redis://127.0.0.1:{port}"
        async with connected(url) as client, connected(url) as other:
            played = Played(client, other)
            with server(tmp_path / "first", port=port):
                await played.checked({A: BAD})
                await played.run("other", {A: 1}, UNIX_S)
                await played.later(1)
            with pytest.raises(StoreUnavailable):
                await played.feed.refresh()
            async with beside(played.feed.follow()):
                await asyncio.sleep(0)
                assert (played.groups.unhealthy(), played.groups.elsewhere) == ({A}, {A: 1})
                played.ahead_s = LAPSE_S + 2

                async def lapsed() -> bool:
                    return (played.groups.states, played.groups.elsewhere) == ({A: HEALTHY}, {})

                await until(lapsed)
                with server(tmp_path / "second", port=port):
                    await close_idle(other)
                    await played.checked({A: BAD}, announced=True)
                    await known(played, {A})

    asyncio.run(main())


def test_it_works_on_a_cluster(tmp_path: Path) -> None:
    async def story(played: Played) -> None:
        await played.checked({A: BAD})
        await played.run("other", {A: 1}, UNIX_S)
        played.groups.here = {A: 1}
        async with beside(played.feed.follow()):
            await known(played, {A})
            assert played.groups.elsewhere == {A: 1}
            await played.checked({A: GOOD}, announced=True)
            await known(played, set())
            assert await played.told() == {b"worker": {"up\0a": 1}, b"other": {"up\0a": 1}}

    with cluster(tmp_path) as ports:
        play(f"redis+cluster://127.0.0.1:{ports[0]}", story)
