"""The live log on its way to who listens, on a real server."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from loadtests.processes import free_port
from proxy.shared_state import live_log_channel
from proxy.shared_state.breaker import Breaker, Guard, StoreUnavailable
from proxy.shared_state.client import connect
from proxy.shared_state.keys import LIVE_LOG_CHANNEL, QUESTIONS_CHANNEL
from proxy.shared_state.live_log import LINES_MAX, LiveLog
from proxy.shared_state.live_log_channel import BATCH_S, bring_lines, lines
from proxy.shared_state.questions import LISTEN, QuestionFeed
from tests.redis_servers import DEADLINE_S, EMBEDDED, beside, connected, redis_at, until


@pytest.fixture(scope="module", name="url")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of this module's own: the channels have fixed names."""
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


@asynccontextmanager
async def worker(url: str) -> AsyncIterator[LiveLog]:
    async with connected(url) as client:
        guard = Guard(client, Breaker(), DEADLINE_S)
        live_log = LiveLog(time.monotonic)
        feed = QuestionFeed(client, guard, {LISTEN: lambda _: live_log.listen()})
        async with beside(feed.follow()), beside(bring_lines(client, guard, live_log)):
            yield live_log


@asynccontextmanager
async def heard(url: str) -> AsyncIterator[list[bytes]]:
    """What somebody hears who listens."""
    found: list[bytes] = []

    async def listen() -> None:
        async for line in lines(client, Guard(client, Breaker(), DEADLINE_S)):
            found.append(line)  # noqa: PERF401 - looked at meanwhile

    async with connected(url) as client, beside(listen()):
        yield found


def play(url: str, story: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with connected(url) as client:
            await story(client)

    asyncio.run(main())


async def true(look: Callable[[], bool]) -> None:
    async def awaitable() -> bool:
        return look()

    await until(awaitable)


async def listening(client: Any, workers: int) -> None:
    async def all_listen() -> bool:
        return bool(await client.publish(QUESTIONS_CHANNEL, b"garbage") == workers)

    await until(all_listen)


def test_lines_of_all_workers_come_to_all_who_listen(url: str) -> None:
    async def story(client: Any) -> None:
        async with worker(url) as one, worker(url) as two:
            await listening(client, 2)
            assert not one.wanted
            async with heard(url) as first, heard(url) as second:
                await true(lambda: one.wanted and two.wanted)
                one.add(b'{"a":1}')
                two.add(b'{"a":2}')
                for found in (first, second):
                    await true(lambda found=found: sorted(found) == [b'{"a":1}', b'{"a":2}'])  # type: ignore[misc]

    play(url, story)


def test_lines_come_in_batches_and_what_was_too_much_is_told(url: str) -> None:
    async def story(client: Any) -> None:
        async with client.pubsub(ignore_subscribe_messages=True) as channel, worker(url) as one:
            await channel.subscribe(LIVE_LOG_CHANNEL)
            await channel.get_message(timeout=DEADLINE_S)
            await listening(client, 1)
            async with heard(url) as found:
                await true(lambda: one.wanted)
                began_s = time.monotonic()
                for _ in range(LINES_MAX + 2):
                    one.add(b"{}")
                await true(lambda: len(found) == LINES_MAX + 1)
                one.add(b"{}")
                await true(lambda: len(found) == LINES_MAX + 2)
                assert time.monotonic() - began_s >= BATCH_S
                assert found[-2:] == [b'{"left_out":2}', b"{}"]
            assert await channel.get_message(timeout=DEADLINE_S)
            assert await channel.get_message(timeout=DEADLINE_S)
            assert await channel.get_message(timeout=BATCH_S) is None

    play(url, story)


def test_who_listens_goes_on_saying_so_and_has_a_moment_to_stop(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_log_channel, "SAY_S", 0.05)

    async def story(client: Any) -> None:
        async with worker(url) as one, heard(url) as found:
            await true(lambda: len(found) > 2)
            assert set(found) == {b""}
            await listening(client, 1)
            one._until_s = 0.0
            await true(lambda: one.wanted)
            await client.publish(LIVE_LOG_CHANNEL, b"garbage")
            one.add(b"{}")
            await true(lambda: b"{}" in found)

    play(url, story)


def test_without_redis_nobody_listens_and_a_worker_goes_on() -> None:
    async def main() -> None:
        client = connect(f"redis://127.0.0.1:{free_port()}")
        guard = Guard(client, Breaker())
        live_log = LiveLog(time.monotonic)
        async with beside(bring_lines(client, guard, live_log)):
            live_log.add(b"{}")
            await true(lambda: not live_log.some.is_set())
        with pytest.raises((StoreUnavailable, OSError, Exception), match=r"onnect|connection"):
            await anext(lines(client, guard))
        await client.aclose()

    asyncio.run(main())
