"""The compare-and-set of a ban, on real servers: who wins, what is announced, and what becomes of it without Redis."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.processes import free_port
from proxy.rules.credentials import Ban, BanCause
from proxy.shared_state.ban_view import decode_announcement
from proxy.shared_state.bans import KIND, BanStore, decode_ban, encode_ban, field_of, split_field
from proxy.shared_state.breaker import Breaker, Guard, StoreUnavailable
from proxy.shared_state.client import Client, connect
from proxy.shared_state.keys import BANS, BANS_CHANGES, BANS_VERSION, CREDENTIALS_CHANNEL
from proxy.shared_state.linked_key_pool import Put
from tests.proxy.shared_state.key_pools import BANNED, DEAD
from tests.redis_servers import DEADLINE_S, EMBEDDED, cluster, connected, redis_at, sentinel, server

ROUNDS = 200


@pytest.fixture(scope="module", name="url")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of this module's own: the keys have fixed names."""
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


def store_of(client: Client) -> BanStore:
    return BanStore(client, Guard(client, Breaker(), DEADLINE_S))


def play(url: str, story: Callable[[Any, BanStore, BanStore], Coroutine[Any, Any, None]]) -> None:
    """Tells a story of two workers and an onlooker."""

    async def main() -> None:
        async with connected(url) as onlooker, connected(url) as one, connected(url) as two:
            if "cluster" not in url:
                await onlooker.flushall()
            await story(onlooker, store_of(one), store_of(two))

    asyncio.run(main())


async def there(client: Any, field: bytes = b"a") -> tuple[bytes | None, bytes | None, float | None]:
    return await client.hget(BANS, field), await client.get(BANS_VERSION), await client.zscore(BANS_CHANGES, field)


async def puts_change_and_lose(client: Any, one: BanStore, two: BanStore) -> None:
    assert await one.put("a", "", None, BANNED) == Put(won=True, there=BANNED)
    assert await there(client) == (encode_ban(BANNED), b"1", 1)
    assert await two.put("a", "", None, DEAD) == Put(won=False, there=BANNED)
    assert await there(client) == (encode_ban(BANNED), b"1", 1)
    assert await two.put("a", "", BANNED, DEAD) == Put(won=True, there=DEAD)
    assert await one.put("a", "", BANNED, None) == Put(won=False, there=DEAD)
    assert await one.put("a", "", DEAD, None) == Put(won=True, there=None)
    assert await there(client) == (None, b"3", 3)
    assert await two.put("a", "", DEAD, BANNED) == Put(won=False, there=None)
    assert await two.put("a", "m", None, BANNED) == Put(won=True, there=BANNED)
    assert await there(client, b"a\0m") == (encode_ban(BANNED), b"4", 4)


def test_a_ban_is_put_where_the_expected_one_is_and_nowhere_else(url: str) -> None:
    play(url, puts_change_and_lose)


def test_the_same_in_a_cluster(tmp_path: Path) -> None:
    with cluster(tmp_path) as ports:
        play(f"redis+cluster://127.0.0.1:{ports[0]}", puts_change_and_lose)


def test_the_same_behind_a_sentinel(tmp_path: Path) -> None:
    with server(tmp_path) as port, sentinel(tmp_path, port, "relaygate") as watcher:
        play(f"redis+sentinel://127.0.0.1:{watcher}/relaygate", puts_change_and_lose)


def test_each_change_is_announced_with_what_it_left(url: str) -> None:
    async def story(client: Any, one: BanStore, _: BanStore) -> None:
        async with client.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(CREDENTIALS_CHANNEL)
            await channel.get_message(timeout=DEADLINE_S)
            await client.set(BANS_VERSION, 2**40)
            await one.put("a", "m" * 300, None, BANNED)
            await one.put("a", "m" * 300, None, DEAD)
            await one.put("a", "m" * 300, BANNED, None)
            said = [decode_announcement((await channel.get_message(timeout=DEADLINE_S))["data"]) for _ in range(2)]
        field = field_of("a", "m" * 300)
        assert [(each.kind, each.number, each.field, each.data) for each in said] == [
            (KIND, 2**40 + 1, field, encode_ban(BANNED)),
            (KIND, 2**40 + 2, field, None),
        ]

    play(url, story)


def test_what_another_version_spelled_is_expected_as_it_came(url: str) -> None:
    """With a field more, and a whole number where this one writes a float."""

    async def story(client: Any, one: BanStore, _: BanStore) -> None:
        spelled = msgspec.msgpack.encode(["dead", 1, 2, 3, 4, 5, 6, 7, "more"])
        await client.hset(BANS, "a", spelled)
        found = (await one.put("a", "", None, BANNED)).there
        assert found == Ban(BanCause.DEAD, 1.0, 2.0, 3, 4.0, 5, 6.0, 7)
        assert await one.put("a", "", found, BANNED) == Put(won=True, there=BANNED)

    play(url, story)


def test_what_cannot_be_read_is_no_ban_and_can_be_replaced(url: str) -> None:
    async def story(client: Any, one: BanStore, _: BanStore) -> None:
        await client.hset(BANS, "a", b"garbage")
        assert await one.put("a", "", None, BANNED) == Put(won=False, there=None)
        assert await one.put("a", "", None, BANNED) == Put(won=True, there=BANNED)

    play(url, story)


def test_a_redis_that_forgot_the_script_is_sent_it_again(url: str) -> None:
    async def story(client: Any, one: BanStore, _: BanStore) -> None:
        await one.put("a", "", None, BANNED)
        await client.script_flush()
        assert (await one.put("a", "", BANNED, DEAD)).won

    play(url, story)


def test_of_two_that_count_a_failure_at_once_none_is_forgotten(url: str) -> None:
    async def story(client: Any, one: BanStore, two: BanStore) -> None:
        async def fail(store: BanStore) -> None:
            known: Ban | None = None
            while True:
                failures = known.failures + 1 if known else 1
                put = await store.put("a", "", known, Ban(BanCause.COUNTING, 1.0, 0.0, failures))
                if put.won:
                    return
                known = put.there

        for _ in range(ROUNDS // 2):
            await asyncio.gather(fail(one), fail(two))
        found = decode_ban(await client.hget(BANS, "a"))
        assert found is not None
        assert (found.failures, await client.get(BANS_VERSION)) == (ROUNDS, b"%d" % ROUNDS)

    play(url, story)


def test_a_probe_is_granted_to_one_of_two_in_every_round(url: str) -> None:
    async def story(_: Any, one: BanStore, two: BanStore) -> None:
        ended: Ban | None = None
        for number in range(ROUNDS):
            fresh = Ban(BanCause.RATE_LIMITED, float(number), number + 1.0)
            assert (await one.put("a", "", ended, fresh)).won
            probing = [
                Ban(BanCause.RATE_LIMITED, fresh.since_s, fresh.until_s, probe_until_s=end) for end in (5.0, 6.0)
            ]
            puts = await asyncio.gather(one.put("a", "", fresh, probing[0]), two.put("a", "", fresh, probing[1]))
            assert sorted(each.won for each in puts) == [False, True]
            assert puts[0].there == puts[1].there
            ended = puts[0].there

    play(url, story)


def test_without_redis_nobody_wins_and_what_was_decided_waits() -> None:
    async def main() -> None:
        client = connect(f"redis://127.0.0.1:{free_port()}")
        store = store_of(client)
        for _ in range(5):
            with pytest.raises(StoreUnavailable):
                await store.put("a", "", None, BANNED)
        assert (store.unshared, store.known) == ({b"a": BANNED}, {})
        await client.aclose()

    asyncio.run(main())


def test_a_redis_that_refuses_is_told_once(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def story(client: Any, one: BanStore, _: BanStore) -> None:
        await client.set(BANS, "no hash")
        for _attempt in range(3):
            with pytest.raises(StoreUnavailable, match="refused"):
                await one.put("a", "", None, BANNED)
        await client.delete(BANS)
        assert (await one.put("a", "", None, BANNED)).won
        assert not one.unshared

    play(url, story)
    assert caplog.text.count("a ban is not shared: ") == 1


@given(st.text(), st.text())
def test_a_field_says_whose_ban_it_is_and_for_which_model(credential: str, model: str) -> None:
    credential = credential.replace("\0", "")
    assert split_field(field_of(credential, model)) == (credential, model)


@pytest.mark.parametrize("data", [b"", b"garbage", encode_ban(DEAD)[:-1]])
def test_bytes_that_are_no_ban(data: bytes) -> None:
    assert decode_ban(data) is None
    assert decode_ban(encode_ban(DEAD)) == DEAD
