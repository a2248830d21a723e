"""Workers live as long as what they say of themselves changes."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from admin.services.workers import ALIVE_S, FORGET_S, Workers
from proxy.shared_state.breaker import Breaker, Guard, StoreUnavailable
from proxy.shared_state.client import Client
from proxy.shared_state.keys import WORKERS
from proxy.shared_state.worker_state import encode_state
from tests.admin.counted import NOW_S, worker
from tests.redis_servers import DEADLINE_S, EMBEDDED, connected, redis_at


class Watch:
    """Workers, seen by a clock of the test's own."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.now_s = 1000.0
        self.workers = Workers(client, Guard(client, Breaker(), DEADLINE_S), lambda: self.now_s)

    async def beat(self, name: str, at_s: float) -> None:
        await self.client.hset(WORKERS, name, encode_state(worker(name, time_s=at_s)))  # type: ignore[misc,arg-type,unused-ignore]

    async def later(self, seconds: float) -> list[str]:
        """Who lives after so many seconds, in each of which one looks."""
        while seconds > 0:
            self.now_s += min(1.0, seconds)
            seconds -= 1.0
            await self.workers.look()
        return [one.name for one in self.workers.living()]


Story = Callable[[Watch], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module", name="url")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


def play(url: str, story: Story) -> None:
    async def main() -> None:
        async with connected(url) as client:
            await client.delete(WORKERS)
            await story(Watch(client))

    asyncio.run(main())


def test_a_worker_lives_while_its_entry_changes_whatever_its_clock_says(url: str) -> None:
    async def story(watch: Watch) -> None:
        assert await watch.later(1) == []
        await watch.beat("b", 5.0)
        await watch.beat("a", NOW_S * 2)
        assert await watch.later(1) == ["a", "b"]
        await watch.beat("b", 4.0)
        assert await watch.later(ALIVE_S - 1) == ["a", "b"]
        await watch.beat("a", NOW_S)
        assert await watch.later(1) == ["a", "b"]
        assert await watch.later(1) == ["a"]
        assert [(one.state.name, one.alive) for one in watch.workers.all()] == [("a", True), ("b", False)]

    play(url, story)


def test_who_has_been_gone_for_long_is_removed(url: str) -> None:
    async def story(watch: Watch) -> None:
        await watch.beat("a", 1.0)
        await watch.client.hset(WORKERS, "strange", b"of another version")  # type: ignore[misc,arg-type,unused-ignore]
        await watch.later(FORGET_S)
        assert await watch.client.hlen(WORKERS) == 2  # type: ignore[misc,unused-ignore]
        await watch.later(2)
        assert await watch.client.hlen(WORKERS) == 0  # type: ignore[misc,unused-ignore]
        assert watch.workers.all() == []

    play(url, story)


def test_while_nobody_could_look_nobody_could_write(url: str) -> None:
    async def story(watch: Watch) -> None:
        await watch.beat("a", 1.0)
        await watch.later(1)
        watch.now_s += FORGET_S * 2
        assert watch.workers.living() == []
        assert await watch.later(1) == ["a"]
        assert await watch.later(ALIVE_S) == []

    play(url, story)


def test_one_that_leaves_in_order_is_gone_at_once(url: str) -> None:
    async def story(watch: Watch) -> None:
        await watch.beat("a", 1.0)
        assert await watch.later(1) == ["a"]
        await watch.client.hdel(WORKERS, "a")  # type: ignore[misc,unused-ignore]
        assert await watch.later(1) == []

    play(url, story)


def test_without_redis_it_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(f"unix://{tmp_path}/none.sock") as client:
            with pytest.raises(StoreUnavailable):
                await Watch(client).workers.look()

    asyncio.run(main())
