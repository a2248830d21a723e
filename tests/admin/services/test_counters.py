"""Counters of quotas in a real Redis, as an operator's changes meet them."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from admin.rules.access_tokens import QuotaOperation
from admin.rules.token_records import Quota
from admin.services.counters import SharedCounters
from admin.services.failures import CounterAway, QuotaTooLarge
from loadtests.processes import free_port
from proxy.rules.access_tokens import AMOUNT_MAX
from proxy.shared_state.breaker import Breaker, Guard, StoreUnavailable
from proxy.shared_state.ledger import Change
from proxy.shared_state.token_store import TokenStore
from tests.proxy.shared_state.metering import counted, digest, guard_of, rows_of, timed, tokens_of
from tests.redis_servers import DEADLINE_S, EMBEDDED, connected, redis_at

T = TypeVar("T")
ADD, SET, RESET = QuotaOperation


@pytest.fixture(scope="module", name="url")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of this module's own: the keys have fixed names."""
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


def play(url: str, story: Callable[[Any, TokenStore, SharedCounters], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with connected(url) as client:
            await client.flushall()
            store = tokens_of(client)
            await store.publish([counted(1, 10), timed(2)])
            await story(client, store, SharedCounters(client, guard_of(client)))

    asyncio.run(main())


def test_each_operation_and_what_can_be_read_then(url: str) -> None:
    async def story(client: Any, store: TokenStore, counters: SharedCounters) -> None:
        await store.set_ready()
        for operation, amount, after in (
            (ADD, 5, Quota(15, 15)),
            (SET, 0, Quota(0, 15)),
            (RESET, None, Quota(15, 15)),
            (RESET, 7, Quota(7, 7)),
        ):
            assert await counters.change(digest(1), operation, amount, f"{operation}-{amount}") == after
            assert await counters.read([digest(2), digest(1), digest(3)]) == {digest(1): after}
        rows = await rows_of(client)
        assert [(row.sequence, row.request_id) for row in rows if isinstance(row, Change)] == [
            (2, "add-5"),
            (3, "set-0"),
            (4, "reset-None"),
            (5, "reset-7"),
        ]

    play(url, story)


def test_what_redis_does_not_have_yet_is_away(url: str) -> None:
    async def story(client: Any, store: TokenStore, counters: SharedCounters) -> None:
        with pytest.raises(CounterAway):
            await counters.change(digest(1), ADD, 5, "r")
        await store.set_ready()
        for name in (digest(2), digest(3)):  # only time ends the one, the other is not there
            with pytest.raises(CounterAway):
                await counters.change(name, ADD, 5, "r")
        assert await counters.read([]) == {}
        assert await rows_of(client) == []

    play(url, story)


def test_a_quota_beyond_what_can_be_counted(url: str) -> None:
    async def story(client: Any, store: TokenStore, counters: SharedCounters) -> None:
        await store.set_ready()
        with pytest.raises(QuotaTooLarge):
            await counters.change(digest(1), ADD, AMOUNT_MAX, "r")
        assert await counters.read([digest(1)]) == {digest(1): Quota(10, 10)}
        assert await rows_of(client) == []

    play(url, story)


class Lossy(Guard):
    """A way to Redis on which the first answer gets lost."""

    lost = 0

    async def call(self, ask: Callable[[], Awaitable[T]]) -> T:
        answer = await super().call(ask)
        if not self.lost:
            self.lost += 1
            raise StoreUnavailable("timeout")
        return answer


def test_a_lost_answer_does_not_change_a_quota_twice(url: str) -> None:
    async def story(client: Any, store: TokenStore, _: SharedCounters) -> None:
        await store.set_ready()
        guard = Lossy(client, Breaker(), DEADLINE_S)
        assert await SharedCounters(client, guard).change(digest(1), ADD, 5, "r") == Quota(15, 15)
        assert (guard.lost, len(await rows_of(client))) == (1, 1)

    play(url, story)


def test_without_redis_a_counter_is_away() -> None:
    async def main() -> None:
        async with connected(f"redis://127.0.0.1:{free_port()}", deadline_s=0.5) as client:
            counters = SharedCounters(client, Guard(client, Breaker(), 0.5))
            with pytest.raises(CounterAway):
                await counters.read([digest(1)])
            with pytest.raises(CounterAway):
                await counters.change(digest(1), ADD, 5, "r")

    asyncio.run(main())
