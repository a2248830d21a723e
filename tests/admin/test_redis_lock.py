"""One holder at a time, on a real Redis; and nobody's death keeps the others out for long."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from admin.redis_lock import RedisLock
from loadtests.processes import free_port
from proxy.shared_state.breaker import Breaker, Guard, StoreUnavailable
from proxy.shared_state.client import Client
from proxy.shared_state.keys import OAUTH_LOCK
from tests.redis_servers import DEADLINE_S, EMBEDDED, connected, redis_at, until

LONG_MS = 60_000


@pytest.fixture(scope="module", name="url")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


def play(url: str, story: Callable[[Client, Callable[[int], RedisLock]], Awaitable[None]]) -> None:
    async def main() -> None:
        async with connected(url) as client:
            await client.delete(OAUTH_LOCK)
            guard = Guard(client, Breaker(), DEADLINE_S)
            await story(client, lambda expiry_ms: RedisLock(client, guard, OAUTH_LOCK, expiry_ms))

    asyncio.run(main())


def test_one_holder_at_a_time(url: str) -> None:
    async def story(client: Client, lock: Callable[[int], RedisLock]) -> None:
        one, other = lock(LONG_MS), lock(LONG_MS)
        async with one.held() as is_held:
            assert is_held
            async with other.held() as also:
                assert not also
            assert not await other.prolong()
            await other.release()
            assert 0 < await client.pttl(OAUTH_LOCK) <= LONG_MS, "it is still the first one's"
        async with other.held() as is_held:
            assert is_held
        assert not await client.exists(OAUTH_LOCK)

    play(url, story)


def test_it_is_released_when_the_block_fails(url: str) -> None:
    async def story(client: Client, lock: Callable[[int], RedisLock]) -> None:
        with pytest.raises(ValueError, match="mistake"):
            async with lock(LONG_MS).held():
                raise ValueError("mistake")
        assert not await client.exists(OAUTH_LOCK)

    play(url, story)


def test_it_is_prolonged_while_it_is_held_and_ends_with_a_dead_holder(url: str) -> None:
    async def story(_: Client, lock: Callable[[int], RedisLock]) -> None:
        other = lock(LONG_MS)
        async with lock(300).held():
            await asyncio.sleep(0.5)
            assert not await other.take()
        dead = lock(50)
        assert await dead.take()
        assert not await other.take()
        await until(other.take)
        assert not await dead.prolong()
        await dead.release()
        assert await other.prolong()

    play(url, story)


def test_without_redis_nobody_holds_it() -> None:
    async def story() -> None:
        async with connected(f"redis://127.0.0.1:{free_port()}") as client:
            lock = RedisLock(client, Guard(client, Breaker()), OAUTH_LOCK, LONG_MS)
            with pytest.raises(StoreUnavailable):
                async with lock.held():
                    raise AssertionError
            await lock.release()

    asyncio.run(story())
