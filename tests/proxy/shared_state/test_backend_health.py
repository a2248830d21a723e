"""How health lies in Redis: whole, and without what is none."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from proxy.shared_state.backend_health import (
    BEAT,
    HEALTH,
    BackendHealth,
    Board,
    announce_health,
    board_of,
    decode_health,
    encode_health,
    read_health,
    write_health,
)
from proxy.shared_state.backend_names import field_of
from proxy.shared_state.breaker import Breaker, Guard
from proxy.shared_state.client import Client
from proxy.shared_state.keys import BACKEND_HEALTH, BACKENDS_CHANNEL
from tests.redis_servers import DEADLINE_S, EMBEDDED, connected, redis_at

A, B = ("up", "a"), ("up", "b")
GOOD = BackendHealth(healthy=True, since_s=1.0, checked_s=2.0)
BAD = BackendHealth(healthy=False, since_s=1.5, checked_s=2.5, reason="status 503")


@pytest.fixture(scope="module", name="url")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


def play(url: str, story: Callable[[Client, Guard], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with connected(url) as client:
            await client.delete(BACKEND_HEALTH)
            await story(client, Guard(client, Breaker(), DEADLINE_S))

    asyncio.run(main())


def test_health_is_the_same_after_it_lay_in_redis() -> None:
    assert [decode_health(encode_health(one)) for one in (GOOD, BAD)] == [GOOD, BAD]


def test_what_this_version_cannot_read_is_left_out() -> None:
    newer = msgspec.msgpack.encode({**msgspec.to_builtins(BAD), "new": 1})
    found = {field_of(A): newer, field_of(B): b"garbage", b"strange": encode_health(GOOD)}
    assert board_of(found) == Board(None, {A: BAD})


def test_states_are_written_and_removed_and_the_beat_with_them(url: str) -> None:
    async def story(client: Client, guard: Guard) -> None:
        assert await read_health(client, guard) == {}
        await write_health(client, guard, {A: GOOD, B: BAD}, [], 17)
        assert board_of(await read_health(client, guard)) == Board(b"17", {A: GOOD, B: BAD})
        await write_health(client, guard, {A: BAD}, [field_of(B)], None)
        assert board_of(await read_health(client, guard)) == Board(b"17", {A: BAD})
        await write_health(client, guard, {}, [field_of(A)], 18)
        assert await read_health(client, guard) == {BEAT: b"18"}
        await write_health(client, guard, {}, [], None)

    play(url, story)


def test_a_change_is_announced(url: str) -> None:
    async def story(client: Client, guard: Guard) -> None:
        async with client.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(BACKENDS_CHANNEL)
            await channel.get_message(timeout=DEADLINE_S)
            await announce_health(client, guard)
            message = await channel.get_message(timeout=DEADLINE_S)
            assert message is not None
            assert message["data"] == HEALTH

    play(url, story)
