"""What the control plane asks all workers, on real servers: who answers, and how long it waits for who does not."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from loadtests.processes import free_port
from proxy.shared_state.breaker import Breaker, Guard, StoreUnavailable
from proxy.shared_state.client import connect
from proxy.shared_state.keys import ANSWERS, QUESTIONS_CHANNEL, WORKERS
from proxy.shared_state.questions import ANSWERS_S, EXPLAIN, Handler, Question, QuestionFeed, ask, tell
from tests.redis_servers import DEADLINE_S, EMBEDDED, beside, cluster, connected, redis_at, until

WAIT_S = 2.0
SOON_S = 1.0


@pytest.fixture(scope="module", name="url")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of this module's own: the channel has a fixed name."""
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


class Asking:
    """A control plane."""

    def __init__(self, url: str, client: Any) -> None:
        self.url = url
        self.client = client
        self.guard = Guard(client, Breaker(), DEADLINE_S)

    async def ask(self, question: Question, enough: int | None = None) -> tuple[list[bytes], bool]:
        """Returns the sorted answers, and whether they came before the waiting's end."""
        began_s = time.monotonic()
        answers = await ask(self.client, self.guard, question, WAIT_S, enough)
        return sorted(answers), time.monotonic() - began_s < SOON_S

    async def listeners(self) -> int:
        return int(await self.client.publish(QUESTIONS_CHANNEL, b"garbage"))


def play(url: str, story: Callable[[Asking], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with connected(url) as client:
            await story(Asking(url, client))

    asyncio.run(main())


@asynccontextmanager
async def worker(url: str, handlers: dict[str, Handler]) -> AsyncIterator[None]:
    async with connected(url) as client:
        feed = QuestionFeed(client, Guard(client, Breaker(), DEADLINE_S), handlers)
        async with beside(feed.follow()):
            yield


def knows(*names: bytes) -> dict[str, Handler]:
    return {EXPLAIN: lambda name: b"of " + name if name in names else None}


def test_whoever_knows_answers_and_nobody_is_waited_for_in_vain(url: str) -> None:
    async def story(asking: Asking) -> None:
        assert await asking.ask(Question(EXPLAIN, b"a")) == ([], True)
        async with worker(url, knows(b"a", b"b")), worker(url, knows(b"b")), worker(url, {}):
            await until(lambda: listening(asking, 3))
            assert await asking.ask(Question(EXPLAIN, b"a")) == ([b"of a"], True)
            assert await asking.ask(Question(EXPLAIN, b"b")) == ([b"of b"] * 2, True)
            assert await asking.ask(Question(EXPLAIN, b"c")) == ([], True)
            assert await asking.ask(Question("unknown")) == ([], True)

    play(url, story)


async def listening(asking: Asking, count: int) -> bool:
    return await asking.listeners() == count


def test_one_that_does_not_answer_is_waited_for_unless_enough_have(url: str) -> None:
    async def story(asking: Asking) -> None:
        async with worker(url, knows(b"a")), asking.client.pubsub() as silent:
            await silent.subscribe(QUESTIONS_CHANNEL)
            await until(lambda: listening(asking, 2))
            assert await asking.ask(Question(EXPLAIN, b"a")) == ([b"of a"], False)
            assert await asking.ask(Question(EXPLAIN, b"a"), enough=1) == ([b"of a"], True)

    play(url, story)


def test_a_handler_that_fails_knows_nothing_and_is_told_without_what_it_said(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: bytes) -> bytes:
        raise ValueError("a-secret")

    async def story(asking: Asking) -> None:
        async with worker(url, {EXPLAIN: fail}):
            await until(lambda: listening(asking, 1))
            assert await asking.ask(Question(EXPLAIN)) == ([], True)

    play(url, story)
    assert [record.getMessage() for record in caplog.records] == ["not answered ('explain'): ValueError"]


def test_answers_that_nobody_takes_end_by_themselves(url: str) -> None:
    async def story(asking: Asking) -> None:
        async with worker(url, knows(b"a")):
            await until(lambda: listening(asking, 1))
            await ask(asking.client, asking.guard, Question(EXPLAIN, b"a"), 0.0)

            async def left() -> list[bytes]:
                return [key async for key in asking.client.scan_iter(match=ANSWERS + "*")]

            await until(left)
            (key,) = await left()
            assert 0 < await asking.client.ttl(key) <= ANSWERS_S
            await asking.client.delete(key)

    play(url, story)


def test_what_wants_no_answer_gets_none(url: str) -> None:
    async def story(asking: Asking) -> None:
        heard: list[bytes] = []
        async with worker(url, {"note": heard.append}):
            await until(lambda: listening(asking, 1))
            assert await tell(asking.client, asking.guard, Question("note", b"one")) == 1

            async def noted() -> bool:
                return heard == [b"one"]

            await until(noted)
            assert not [key async for key in asking.client.scan_iter(match=ANSWERS + "*")]

    play(url, story)


def test_in_a_cluster_all_workers_that_live_are_waited_for(tmp_path: Path) -> None:
    async def story(asking: Asking) -> None:
        async with worker(asking.url, knows(b"a")), worker(asking.url, knows(b"a")):
            await asking.client.hset(WORKERS, mapping={"one": b"", "two": b""})

            async def answered() -> bool:
                return await asking.ask(Question(EXPLAIN, b"a")) == ([b"of a"] * 2, True)

            await until(answered, 2 * DEADLINE_S)

    with cluster(tmp_path) as ports:
        play(f"redis+cluster://127.0.0.1:{ports[0]}", story)


def test_without_redis_nobody_can_be_asked() -> None:
    async def main() -> None:
        client = connect(f"redis://127.0.0.1:{free_port()}")
        with pytest.raises(StoreUnavailable):
            await ask(client, Guard(client, Breaker()), Question(EXPLAIN), WAIT_S)
        await client.aclose()

    asyncio.run(main())
