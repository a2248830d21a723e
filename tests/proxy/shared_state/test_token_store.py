"""Access tokens in Redis, on real servers: what publishing fills and what it leaves, and changes of a quota."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadtests.processes import free_port
from proxy.rules.access_tokens import AMOUNT_MAX, AccessToken, Action, State, Terms, Unit
from proxy.shared_state.breaker import StoreUnavailable
from proxy.shared_state.client import connect
from proxy.shared_state.keys import METER_READY
from proxy.shared_state.ledger import Change
from proxy.shared_state.token_store import (
    CHUNK,
    Counter,
    Operation,
    PublishedToken,
    QuotaRefused,
    TokenStore,
    held_key_of,
    key_of,
    rate_key_of,
)
from tests.proxy.shared_state.metering import NOW_MS, counted, digest, rows_of, timed, tokens_of
from tests.redis_servers import EMBEDDED, cluster, connected, redis_at

TERMS = Terms(State.DISABLED, 5, 6, 7, 8)


@pytest.fixture(scope="module", name="url")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of this module's own: the keys have fixed names."""
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


def play(url: str, story: Callable[[Any, TokenStore], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with connected(url) as onlooker, connected(url) as client:
            if "cluster" not in url:
                await onlooker.flushall()
            await story(onlooker, tokens_of(client))

    asyncio.run(main())


async def published_and_changed(client: Any, tokens: TokenStore) -> None:
    assert (await tokens.is_ready(), await tokens.revision()) == (False, 0)
    assert await tokens.publish([counted(1, 10, terms=TERMS), timed(2)]) == 1
    await tokens.set_revision(7)
    await tokens.set_ready()
    assert (await tokens.is_ready(), await tokens.revision()) == (True, 7)
    assert await tokens.counters([digest(1), digest(2), digest(3)]) == [Counter(10, 10, 1), None, None]
    there = await client.hgetall(key_of(digest(1)))
    assert msgspec.msgpack.decode(there.pop(b"record"), type=AccessToken) == AccessToken("tok_1", 1, Unit.REQUESTS)
    assert there == {
        b"id": b"tok_1",
        b"revision": b"1",
        b"state": b"disabled",
        b"expires_ms": b"5",
        b"per_minute": b"6",
        b"per_second": b"7",
        b"concurrent": b"8",
        b"remaining": b"10",
        b"total": b"10",
        b"sequence": b"1",
    }
    change = await tokens.change_quota(digest(1), Operation.ADD, 5, "r1", NOW_MS)
    assert change == Change("tok_1", 2, Action.RECHARGE, 10, 15, 15, "r1", NOW_MS)
    assert await tokens.counters([digest(1)]) == [Counter(15, 15, 2)]
    assert await rows_of(client) == [change]
    await client.hset(rate_key_of(digest(1)), "m:sum", 1)
    await client.hset(held_key_of(digest(1)), "worker", 1)
    await tokens.forget([digest(1), digest(3)])
    assert [await client.exists(name(digest(1))) for name in (key_of, rate_key_of, held_key_of)] == [0, 0, 0]
    assert await client.exists(key_of(digest(2)))


def test_tokens_are_published_changed_and_forgotten(url: str) -> None:
    play(url, published_and_changed)


def test_the_same_in_a_cluster(tmp_path: Path) -> None:
    with cluster(tmp_path) as ports:
        play(f"redis+cluster://127.0.0.1:{ports[0]}", published_and_changed)


def test_many_are_published_read_and_forgotten_in_chunks(url: str) -> None:
    async def story(client: Any, tokens: TokenStore) -> None:
        many = [counted(number, number) for number in range(2 * CHUNK + 1)]
        digests = [token.digest for token in many]
        assert await tokens.publish(many) == len(many)
        assert await tokens.counters(digests) == [token.counter for token in many]
        await tokens.forget(digests)
        assert await client.dbsize() == 0

    play(url, story)


@pytest.mark.parametrize(
    ("there", "published", "left"),
    [
        (Counter(3, 10, 8), Counter(5, 10, 6), Counter(3, 10, 8)),
        (Counter(3, 10, 8), Counter(5, 10, 8), Counter(3, 10, 8)),
        (Counter(3, 10, 8), Counter(5, 11, 9), Counter(5, 11, 9)),
        (None, Counter(-5, 11, 9), Counter(-5, 11, 9)),
        (Counter(3, 10, 8), None, None),
        (
            Counter(1, 2, 9),
            Counter(AMOUNT_MAX - 1, AMOUNT_MAX, AMOUNT_MAX),
            Counter(AMOUNT_MAX - 1, AMOUNT_MAX, 2**53 - 1),
        ),
    ],
)
def test_a_counter_is_filled_only_where_redis_has_less_of_it(
    url: str, there: Counter | None, published: Counter | None, left: Counter | None
) -> None:
    async def story(_: Any, tokens: TokenStore) -> None:
        await tokens.publish([msgspec.structs.replace(counted(1, 1), counter=there)])
        taken = await tokens.publish([msgspec.structs.replace(counted(1, 1, revision=2), counter=published)])
        assert await tokens.counters([digest(1)]) == [left]
        assert taken == (left is not None and left == published)

    play(url, story)


def test_a_later_revision_stays(url: str) -> None:
    async def story(client: Any, tokens: TokenStore) -> None:
        await tokens.publish([counted(1, 10, revision=5, terms=TERMS)])
        assert await tokens.publish([counted(1, 10, revision=4)]) == 0
        assert await client.hmget(key_of(digest(1)), "revision", "state") == [b"5", b"disabled"]
        await tokens.publish([counted(1, 10, revision=6)])
        assert await client.hmget(key_of(digest(1)), "revision", "state") == [b"6", b"active"]

    play(url, story)


@pytest.mark.parametrize(
    ("counter", "operation", "amount", "after", "total"),
    [
        (Counter(3, 10, 4), Operation.ADD, 5, 8, 15),
        (Counter(-3, 10, 4), Operation.ADD, 1, -2, 11),
        (Counter(3, 10, 4), Operation.SET, 0, 0, 10),
        (Counter(3, 10, 4), Operation.SET, 20, 20, 10),
        (Counter(3, 10, 4), Operation.RESET, None, 10, 10),
        (Counter(-3, 10, 4), Operation.RESET, 20, 20, 20),
        (Counter(0, 1, 4), Operation.ADD, AMOUNT_MAX - 1, AMOUNT_MAX - 1, AMOUNT_MAX),
        (Counter(0, 0, 2**53 - 2), Operation.SET, AMOUNT_MAX, AMOUNT_MAX, 0),
    ],
)
def test_each_operation_on_a_quota(
    url: str, counter: Counter, operation: Operation, amount: int | None, after: int, total: int
) -> None:
    async def story(client: Any, tokens: TokenStore) -> None:
        await tokens.publish([PublishedToken(digest(1), AccessToken("t", 1, Unit.NANO_USD), Terms(), counter)])
        await tokens.set_ready()
        change = await tokens.change_quota(digest(1), operation, amount, "r")
        assert (change.before, change.after, change.total) == (counter.remaining, after, total)
        assert change.sequence == counter.sequence + 1
        [seconds, _] = await client.time()
        assert abs(change.at_ms / 1000 - seconds) < 60
        assert await tokens.counters([digest(1)]) == [Counter(after, total, counter.sequence + 1)]
        assert await rows_of(client) == [change]

    play(url, story)


@pytest.mark.parametrize(
    ("operation", "amount"),
    [
        (Operation.ADD, 0),
        (Operation.ADD, -1),
        (Operation.ADD, None),
        (Operation.ADD, AMOUNT_MAX),
        (Operation.ADD, 2**70),
        (Operation.SET, -1),
        (Operation.SET, None),
        (Operation.SET, AMOUNT_MAX + 1),
        (Operation.RESET, -1),
        (Operation.RESET, AMOUNT_MAX + 1),
    ],
)
def test_what_is_out_of_range_changes_nothing(url: str, operation: Operation, amount: int | None) -> None:
    async def story(client: Any, tokens: TokenStore) -> None:
        await tokens.publish([counted(1, 1)])
        await tokens.set_ready()
        with pytest.raises(QuotaRefused, match="out_of_range"):
            await tokens.change_quota(digest(1), operation, amount, "r")
        assert await tokens.counters([digest(1)]) == [Counter(1, 1, 1)]
        assert await rows_of(client) == []

    play(url, story)


def test_what_has_no_quota_cannot_be_changed(url: str) -> None:
    async def story(client: Any, tokens: TokenStore) -> None:
        await tokens.publish([timed(1)])
        await tokens.set_ready()
        with pytest.raises(QuotaRefused, match="uncounted"):
            await tokens.change_quota(digest(1), Operation.SET, 1, "r")
        with pytest.raises(QuotaRefused, match="unknown"):
            await tokens.change_quota(digest(2), Operation.SET, 1, "r")
        await client.delete(METER_READY)
        with pytest.raises(StoreUnavailable, match="not_ready"):
            await tokens.change_quota(digest(1), Operation.SET, 1, "r")
        assert await rows_of(client) == []

    play(url, story)


def test_who_asks_again_gets_the_same_row(url: str) -> None:
    async def story(client: Any, tokens: TokenStore) -> None:
        await tokens.publish([counted(1, 1)])
        await tokens.set_ready()
        first = await tokens.change_quota(digest(1), Operation.ADD, 5, "r1")
        assert await tokens.change_quota(digest(1), Operation.ADD, 5, "r1") == first
        assert await rows_of(client) == [first]
        second = await tokens.change_quota(digest(1), Operation.ADD, 5, "r2")
        assert second.after == 11
        assert [(await tokens.change_quota(digest(1), Operation.ADD, 1, "")).after for _ in range(2)] == [12, 13]

    play(url, story)


def test_without_redis() -> None:
    async def main() -> None:
        client = connect(f"redis://127.0.0.1:{free_port()}")
        tokens = tokens_of(client)
        for ask in (
            tokens.publish([counted(1, 1)]),
            tokens.forget([digest(1)]),
            tokens.change_quota(digest(1), Operation.ADD, 1, "r"),
            tokens.counters([digest(1)]),
            tokens.is_ready(),
            tokens.set_ready(),
            tokens.revision(),
            tokens.set_revision(1),
        ):
            with pytest.raises(StoreUnavailable):
                await ask
        await client.aclose()

    asyncio.run(main())
