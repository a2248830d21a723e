"""Hears the wish that a certificate be loaded again, on a real server. A test has its database for itself."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from proxy.shared_state.breaker import Breaker, Guard
from proxy.shared_state.client import Client
from proxy.shared_state.keys import RELOAD_TLS, RELOAD_TLS_CHANNEL
from proxy.shared_state.tls_feed import POLL_S, TlsFeed
from tests.redis_servers import DEADLINE_S, EMBEDDED, beside, connected, redis_at, until


@pytest.fixture(scope="module", name="url")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


class Played:
    """A feed, how often it has asked, and another client of the same Redis."""

    def __init__(self, client: Client, other: Client) -> None:
        self.asked = 0
        self.other = other
        self.feed = TlsFeed(client, Guard(client, Breaker(), DEADLINE_S), self._ask)

    def _ask(self) -> None:
        self.asked += 1

    async def asked_for(self, times: int, within_s: float = DEADLINE_S) -> None:
        async def so_often() -> bool:
            return self.asked == times

        await until(so_often, within_s)


def play(url: str, story: Callable[[Played], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with connected(url) as client, connected(url) as other:
            await other.flushall()
            await story(Played(client, other))

    asyncio.run(main())


@pytest.mark.parametrize("before", [None, 7])
def test_each_new_number_asks_once_and_the_first_does_not(url: str, before: int | None) -> None:
    async def story(played: Played) -> None:
        if before is not None:
            await played.other.set(RELOAD_TLS, before)
        for _ in range(2):
            await played.feed.refresh()
        assert played.asked == 0
        await played.other.incr(RELOAD_TLS)
        for _ in range(2):
            await played.feed.refresh()
        assert played.asked == 1
        await played.other.incrby(RELOAD_TLS, 2)
        await played.feed.refresh()
        assert played.asked == 2

    play(url, story)


def test_a_redis_that_has_forgotten_the_number_asks_too(url: str) -> None:
    """It may have had a newer one; to look at files that are the same does no harm."""

    async def story(played: Played) -> None:
        await played.other.set(RELOAD_TLS, 7)
        await played.feed.refresh()
        await played.other.delete(RELOAD_TLS)
        await played.feed.refresh()
        assert played.asked == 1

    play(url, story)


def test_an_announcement_is_heard_at_once(url: str) -> None:
    async def story(played: Played) -> None:
        async with beside(played.feed.follow()):

            async def hears() -> bool:
                return bool((await played.other.pubsub_numsub(RELOAD_TLS_CHANNEL))[0][1])

            await until(hears, DEADLINE_S)
            await played.feed.refresh()
            await played.other.set(RELOAD_TLS, 1)
            await played.other.publish(RELOAD_TLS_CHANNEL, 1)
            await played.asked_for(1, POLL_S / 2)

    play(url, story)


def test_a_number_that_was_not_announced_is_found(url: str) -> None:
    async def story(played: Played) -> None:
        async with beside(played.feed.follow()):
            await played.feed.refresh()
            await played.other.set(RELOAD_TLS, 1)
            await played.asked_for(1)

    play(url, story)
