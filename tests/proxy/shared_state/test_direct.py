"""The hot path's own connection to Redis: what it answers and raises, and that a lost one is made again."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import NoScriptError, RedisError, ResponseError

from proxy.shared_state.client import connect
from proxy.shared_state.direct import Direct, direct
from tests.redis_servers import DEADLINE_S, EMBEDDED, connected, redis_at, server, until

Story = Callable[[Direct], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module", name="url")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


def play(url: str, story: Story) -> None:
    async def main() -> None:
        async with connected(url) as client:
            own = direct(client)
            assert own is not None
            with contextlib.closing(own):
                await story(own)

    asyncio.run(main())


async def ask(own: Direct, *words: str | bytes | int, deadline_s: float = DEADLINE_S) -> Any:
    if not own.is_connected:
        await own.connect()
    return await own.ask(deadline_s, *words)


def test_it_answers_in_bytes(url: str) -> None:
    async def story(own: Direct) -> None:
        assert await ask(own, "PING") == b"PONG"
        assert await ask(own, "SET", "k", b"\xff\r\n\0") == b"OK"
        assert await ask(own, "GET", "k") == b"\xff\r\n\0"
        assert await ask(own, "RPUSH", "list", "ä", 5) == 2
        assert await ask(own, "LRANGE", "list", 0, -1) == ["ä".encode(), b"5"]
        assert await ask(own, "GET", "none") is None

    play(url, story)


def test_answers_that_come_in_pieces_are_whole(url: str) -> None:
    async def story(own: Direct) -> None:
        large = b"x" * 3_000_000
        await ask(own, "SET", "large", large)
        assert await ask(own, "GET", "large") == large

    play(url, story)


def test_its_errors_are_those_of_redis_py(url: str) -> None:
    async def story(own: Direct) -> None:
        with pytest.raises(NoScriptError):
            await ask(own, "EVALSHA", "0" * 40, 0)
        with pytest.raises(ResponseError, match="wrong number"):
            await ask(own, "GET")
        assert await ask(own, "PING") == b"PONG"

    play(url, story)


def test_each_gets_its_own_answer(url: str) -> None:
    async def story(own: Direct) -> None:
        answers = await asyncio.gather(*(ask(own, "ECHO", number) for number in range(100)))
        assert answers == [b"%d" % number for number in range(100)]

    play(url, story)


def test_who_is_cancelled_leaves_no_answer_to_the_next(url: str) -> None:
    async def story(own: Direct) -> None:
        await ask(own, "PING")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await ask(own, "BLPOP", "nothing", 10)
        assert await ask(own, "ECHO", "next") == b"next"

    play(url, story)


def test_a_cancelled_one_is_an_error_for_the_others_too(url: str) -> None:
    async def story(own: Direct) -> None:
        first = asyncio.create_task(ask(own, "BLPOP", "nothing", 10))
        await asyncio.sleep(0)
        second = asyncio.create_task(ask(own, "PING"))
        await asyncio.sleep(0.05)
        first.cancel()
        with pytest.raises(LostError):
            await second

    play(url, story)


def test_who_gets_no_answer_in_time_leaves_none_to_the_next(url: str) -> None:
    async def story(own: Direct) -> None:
        first = asyncio.create_task(ask(own, "BLPOP", "nothing", 10, deadline_s=0.1))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(ask(own, "PING"))
        with pytest.raises(TimeoutError):
            await first
        with pytest.raises(LostError):
            await second
        assert await ask(own, "ECHO", "next") == b"next"

    play(url, story)


def test_without_a_connection_nothing_is_asked(url: str) -> None:
    async def story(own: Direct) -> None:
        with pytest.raises(LostError):
            await own.ask(DEADLINE_S, "PING")
        await own.connect()
        own.close()
        with pytest.raises(LostError):
            await own.ask(DEADLINE_S, "PING")

    play(url, story)


def test_a_connection_that_redis_closes_is_made_again(url: str) -> None:
    async def story(own: Direct) -> None:
        mine = await ask(own, "CLIENT", "ID")
        async with connected(url) as other:
            waiting = asyncio.create_task(ask(own, "BLPOP", "nothing", 10))
            await asyncio.sleep(0.05)
            await other.client_kill_filter(_id=mine)
            with pytest.raises(LostError):
                await waiting
        assert await ask(own, "CLIENT", "ID") != mine

    play(url, story)


def test_an_idle_one_that_redis_closes_is_made_again(url: str) -> None:
    async def story(own: Direct) -> None:
        mine = await ask(own, "CLIENT", "ID")
        async with connected(url) as other:
            await other.client_kill_filter(_id=mine)

        async def closed() -> bool:
            return own._line is not None and own._line.is_lost

        await until(closed)
        assert await ask(own, "PING") == b"PONG"

    play(url, story)


def test_the_late_end_of_one_is_not_that_of_the_next(url: str) -> None:
    async def story(own: Direct) -> None:
        await ask(own, "PING")
        before = own._line
        assert before is not None
        own.close()
        waiting = asyncio.create_task(ask(own, "BLPOP", "list-of-one", 10))
        while own._line is before:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)
        before.connection_lost(None)
        async with connected(url) as other:
            await other.rpush("list-of-one", "there")
        assert await waiting == [b"list-of-one", b"there"]

    play(url, story)


def test_where_nobody_listens() -> None:
    async def main() -> None:
        own = direct(connect("redis://127.0.0.1:1"))
        assert own is not None
        with pytest.raises(RedisError):
            await ask(own, "PING")

    asyncio.run(main())


def test_passwords_and_databases_are_those_of_the_url(tmp_path_factory: pytest.TempPathFactory) -> None:
    with server(tmp_path_factory.mktemp("redis"), "--requirepass", "word") as port:

        async def story(own: Direct) -> None:
            await ask(own, "SET", "k", "v")
            assert await ask(own, "DBSIZE") == 1

        play(f"redis://:word@127.0.0.1:{port}/3", story)

        async def elsewhere(own: Direct) -> None:
            assert await ask(own, "DBSIZE") == 0

        play(f"redis://:word@127.0.0.1:{port}/0", elsewhere)
