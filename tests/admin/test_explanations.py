"""What workers know of a request, asked through a real Redis."""

import asyncio
import json
from collections.abc import Iterator

import msgspec
import pytest

from admin.explanations import Explanations
from admin.live_log import LiveLog, follow
from admin.services.failures import WorkersNotAsked
from loadtests.processes import free_port
from proxy.key_pool.traces import Trace
from proxy.shared_state import live_log
from proxy.shared_state.breaker import Breaker, Guard
from proxy.shared_state.client import connect
from proxy.shared_state.live_log_channel import bring_lines
from proxy.shared_state.questions import EXPLAIN, LATEST, LISTEN, QuestionFeed
from tests.redis_servers import beside, connected, server, until

KNOWN = {"req-1": [{"request_id": "req-1", "route": "/a"}]}


@pytest.fixture(name="url", scope="module")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server(tmp_path_factory.mktemp("redis")) as port:
        yield f"redis://127.0.0.1:{port}"


def answer(question: bytes) -> bytes | None:
    found = KNOWN.get(question.decode())
    return json.dumps(found).encode() if found else None


def test_the_worker_that_had_the_request_explains_it(url: str) -> None:
    async def story() -> None:
        async with connected(url) as client:
            guard = Guard(client, Breaker())
            explanations = Explanations(client, guard)
            knows = QuestionFeed(client, guard, {EXPLAIN: answer})
            other = QuestionFeed(client, guard, {EXPLAIN: lambda _: None})
            async with beside(knows.follow()), beside(other.follow()):

                async def known() -> bool:
                    found = await explanations.explain(request_id="req-1")
                    return found == {"request_id": "req-1", "traces": KNOWN["req-1"]}

                await until(known)
                assert await explanations.explain(request_id="req-2") is None

    asyncio.run(story())


def test_the_latest_of_all_workers_come_the_newest_first(url: str) -> None:
    def latest(*began_s: float) -> bytes:
        traces = [Trace(f"req-{at:g}", "/a", "", "random", 1, at) for at in began_s]
        return msgspec.json.encode([*traces, {"of": "another version"}, 5])

    async def story() -> None:
        async with connected(url) as client:
            guard = Guard(client, Breaker())
            one = QuestionFeed(client, guard, {LATEST: lambda _: latest(4, 2)})
            other = QuestionFeed(client, guard, {LATEST: lambda _: latest(3, 1)})
            older = QuestionFeed(client, guard, {})
            async with beside(one.follow()), beside(other.follow()), beside(older.follow()):

                async def known() -> bool:
                    lines = await Explanations(client, guard).latest()
                    return [found["request_id"] for found in lines] == ["req-4", "req-3", "req-2", "req-1"]

                await until(known)

    asyncio.run(story())


def test_without_redis_nobody_can_be_asked() -> None:
    async def story() -> None:
        client = connect(f"redis://127.0.0.1:{free_port()}")
        unasked = Explanations(client, Guard(client, Breaker()))
        with pytest.raises(WorkersNotAsked):
            await unasked.explain(request_id="req-1")
        with pytest.raises(WorkersNotAsked):
            await unasked.latest()
        await client.aclose()

    asyncio.run(story())


def test_lines_come_from_workers_while_somebody_listens(url: str) -> None:
    async def story() -> None:
        async with connected(url) as client:
            guard = Guard(client, Breaker())
            here, there = LiveLog(heartbeat_s=0.05), live_log.LiveLog(asyncio.get_running_loop().time)
            feed = QuestionFeed(client, guard, {LISTEN: lambda _: there.listen()})
            async with (
                beside(follow(here, client, guard)),
                beside(bring_lines(client, guard, there)),
                beside(feed.follow()),
            ):
                await asyncio.sleep(0.1)
                assert not there.wanted
                with here.listen(lambda line: line["status"] == 429) as one:

                    async def asked() -> bool:
                        return there.wanted

                    await until(asked)
                    for status in (200, 429):
                        there.add(json.dumps({"status": status}).encode())
                    heard: list[object] = []
                    async with asyncio.timeout(5):
                        while not heard:
                            news = await one.next()
                            assert news is not None
                            heard += news[0]
                    assert heard == [{"status": 429}]

    asyncio.run(story())
