"""What the control plane sees of backends: their health, and the requests of workers that live."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from admin.services.backend_states import FORGET_S, FRESH_S, BackendStates
from proxy.shared_state.backend_counts import encode_counts
from proxy.shared_state.backend_health import BackendHealth, write_health
from proxy.shared_state.breaker import Breaker, Guard, StoreUnavailable
from proxy.shared_state.client import Client
from proxy.shared_state.keys import BACKEND_HEALTH, BACKENDS_RUNNING
from tests.redis_servers import DEADLINE_S, EMBEDDED, connected, redis_at

A, B = ("up", "a"), ("up", "b")
UNIX_S = 1_700_000_000.0
BAD = BackendHealth(healthy=False, since_s=1.0, checked_s=2.0, reason="timed out")


class Watch:
    """States, seen by clocks of the test's own."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.guard = Guard(client, Breaker(), DEADLINE_S)
        self.now_s = 1000.0
        self.states = BackendStates(client, self.guard, lambda: self.now_s, lambda: UNIX_S)

    async def run(self, worker: str, running: dict[tuple[str, str], int], at_s: float) -> None:
        await self.client.hset(BACKENDS_RUNNING, worker, encode_counts(running, at_s))  # type: ignore[misc,arg-type,unused-ignore]

    async def later(self, seconds: float) -> dict[tuple[str, str], int]:
        """What is running after so many seconds, in each of which one looks."""
        while seconds > 0:
            self.now_s += min(1.0, seconds)
            seconds -= 1.0
            await self.states.look()
        return dict(self.states.running())


@pytest.fixture(scope="module", name="url")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


def play(url: str, story: Callable[[Watch], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with connected(url) as client:
            await client.delete(BACKEND_HEALTH, BACKENDS_RUNNING)
            await story(Watch(client))

    asyncio.run(main())


def test_health_is_what_checks_have_found(url: str) -> None:
    async def story(watch: Watch) -> None:
        assert watch.states.health() == {}
        await write_health(watch.client, watch.guard, {A: BAD}, [], 1)
        await watch.states.look()
        assert watch.states.health() == {A: BAD}

    play(url, story)


def test_requests_of_all_workers_that_live_add_up(url: str) -> None:
    async def story(watch: Watch) -> None:
        assert await watch.later(1) == {}
        await watch.run("one", {A: 2, B: 1}, 1.0)
        await watch.run("two", {A: 1}, UNIX_S * 2)
        assert await watch.later(1) == {A: 3, B: 1}
        await watch.run("two", {A: 4}, 1.0)
        assert await watch.later(1) == {A: 6, B: 1}
        assert await watch.later(FRESH_S - 1) == {A: 4}
        watch.now_s += 1
        assert watch.states.running() == {}, "also where nobody looks"

    play(url, story)


def test_what_those_who_are_long_gone_have_left_is_removed(url: str) -> None:
    async def story(watch: Watch) -> None:
        await watch.later(1)
        await watch.run("one", {A: 2}, 1.0)
        await watch.later(FORGET_S)
        assert await watch.client.hlen(BACKENDS_RUNNING) == 1  # type: ignore[misc,unused-ignore]
        await watch.later(1)
        assert await watch.client.hlen(BACKENDS_RUNNING) == 0  # type: ignore[misc,unused-ignore]

    play(url, story)


def test_without_redis_it_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(f"unix://{tmp_path}/none.sock") as client:
            with pytest.raises(StoreUnavailable):
                await Watch(client).states.look()

    asyncio.run(main())
