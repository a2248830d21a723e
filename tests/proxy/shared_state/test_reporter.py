"""What a worker tells Redis: that it lives, what it has counted, and what the dead had; and what it does without."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from loadtests.processes import free_port
from proxy.journal import journals
from proxy.shared_state import events, reporter
from proxy.shared_state.breaker import Breaker, Guard
from proxy.shared_state.client import Client, connect
from proxy.shared_state.events import DATA, KIND, STATISTICS
from proxy.shared_state.keys import EVENTS, SUMMARY, WORKERS
from proxy.shared_state.reporter import Reporter
from proxy.shared_state.tasks import end
from proxy.shared_state.worker_state import WorkerState, decode_state
from proxy.tallies import Tallies
from proxy.version import VERSION
from tests.proxy.counting import Consumer, count_one, decoded, requests_of
from tests.redis_servers import DEADLINE_S, EMBEDDED, connected, redis_at, until


class Told:
    """What a reporter tells of."""

    in_flight = 3

    def __init__(self, directory: Path, name: str = "worker") -> None:
        self.name = name
        self.started_s = 1.5
        self.certificate = "5ha"
        self.tallies: Tallies | None = Tallies.open(directory, name, self.started_s)
        self.summary: bytes | None = None
        self.wants_summary = False
        self.directory = directory

    def count(self, times: int = 1) -> None:
        assert self.tallies is not None
        tally = self.tallies.tally("/a", "a.example")
        for _ in range(times):
            count_one(tally)


@pytest.fixture(scope="module", name="url")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server of this module's own: the keys have fixed names."""
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


@asynccontextmanager
async def reporting(url: str, worker: Told, deadline_s: float = DEADLINE_S) -> AsyncIterator[Reporter]:
    client = connect(url, deadline_s=deadline_s)
    try:
        yield Reporter(client, Guard(client, Breaker(), deadline_s), worker, lambda: 7, worker.directory)
    finally:
        await client.aclose()


def play(url: str, story: Callable[[Client], Coroutine[Any, Any, None]]) -> None:
    """Tells a story that begins with an empty Redis."""

    async def main() -> None:
        async with connected(url) as client:
            await client.flushall()
            await story(client)

    asyncio.run(main())


async def entries(client: Client) -> list[bytes]:
    found: Any = await client.xrange(EVENTS)
    assert all(fields[KIND] == STATISTICS for _, fields in found)
    return [fields[DATA] for _, fields in found]


async def states(client: Client) -> dict[str, WorkerState]:
    found: Any = await client.hgetall(WORKERS)  # type: ignore[misc,unused-ignore]
    return {name.decode(): decode_state(data) for name, data in found.items()}


async def consumed(client: Client) -> dict[str, int]:
    consumer = Consumer()
    for data in await entries(client):
        consumer.take(data)
    assert consumer.gaps == 0
    return requests_of(consumer.rows)


def test_a_beat_tells_that_the_worker_lives_and_what_it_has_counted(url: str, tmp_path: Path) -> None:
    async def story(client: Client) -> None:
        worker = Told(tmp_path)
        async with reporting(url, worker) as teller:
            before_s = time.time()
            assert await teller.beat() == set()
            assert await entries(client) == []
            worker.count(2)
            assert await teller.beat() == set()
            worker.count(1)
            state = (await states(client))["worker"]
            assert state == WorkerState(
                name="worker",
                host=socket.gethostname(),
                pid=os.getpid(),
                program=VERSION,
                started_s=1.5,
                time_s=state.time_s,
                configuration=7,
                in_flight=3,
                memory_bytes=state.memory_bytes,
                unsent=0,
                tls="5ha",
            )
            assert before_s <= state.time_s <= time.time()
            assert 5_000_000 < state.memory_bytes < 10_000_000_000
            assert await teller.beat() == set()
            first, second = [decoded(data) for data in await entries(client)]
            assert (first.sequence, second.sequence) == (1, 2)
            assert (requests_of(first.routes), requests_of(second.routes)) == ({"/a": 2}, {"/a": 1})

    play(url, story)


def test_without_statistics_it_lives_all_the_same(url: str, tmp_path: Path) -> None:
    async def story(client: Client) -> None:
        worker = Told(tmp_path)
        worker.tallies = None
        async with reporting(url, worker) as teller:
            assert await teller.beat() == set()
            assert (await states(client))["worker"].unsent == 0
            await teller.finish()
            assert await states(client) == {}

    play(url, story)


def test_the_end_tells_all_and_says_goodbye(url: str, tmp_path: Path) -> None:
    async def story(client: Client) -> None:
        worker = Told(tmp_path)
        async with reporting(url, worker) as teller:
            worker.count(2)
            await teller.beat()
            assert worker.tallies is not None
            worker.count(3)
            worker.tallies.offer(1.0)
            worker.count(4)
            await teller.finish()
            assert await states(client) == {}
            assert await consumed(client) == {"/a": 9}

    play(url, story)
    assert list(tmp_path.iterdir()) == []


def test_without_redis_all_adds_up_and_is_told_afterwards(url: str, tmp_path: Path) -> None:
    """A delta that was sent and not confirmed is sent again as it was."""

    async def story(client: Client) -> None:
        worker = Told(tmp_path)
        assert worker.tallies is not None
        async with reporting(url, worker) as teller:
            worker.count(1)
            offered = worker.tallies.offer(1.0)
            assert offered is not None
            await client.xadd(EVENTS, {KIND: STATISTICS, DATA: offered})  # it arrived, and the answer did not
            async with reporting(f"redis://127.0.0.1:{free_port()}", worker) as deaf:
                for _ in range(3):
                    worker.count(2)
                    assert await deaf.beat() == set()
            assert worker.tallies.unsent == 7
            await teller.beat()
            await teller.beat()
            assert (await entries(client))[:2] == [offered, offered]
            assert await consumed(client) == {"/a": 7}
            assert worker.tallies.unsent == 0

    play(url, story)


def test_what_redis_could_not_be_told_at_the_end_is_told_by_the_next_worker(url: str, tmp_path: Path) -> None:
    async def story(client: Client) -> None:
        first = Told(tmp_path, "first")
        first.count(3)
        async with reporting(f"redis://127.0.0.1:{free_port()}", first) as deaf:
            await deaf.finish()
        second = Told(tmp_path, "second")
        async with reporting(url, second) as teller:
            task = asyncio.create_task(teller.run())
            await until(lambda: consumed(client))
            assert await consumed(client) == {"/a": 3}
            await until(lambda: only(tmp_path, "second"))
            await end(task)
            await teller.finish()

    play(url, story)
    assert list(tmp_path.iterdir()) == []


async def only(directory: Path, name: str) -> bool:
    return [path.stem for path in journals(directory)] == [name]


def test_a_silent_redis_holds_up_the_end_for_a_moment_only(tmp_path: Path) -> None:
    async def main() -> None:
        worker = Told(tmp_path)
        worker.count(1)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
            async with reporting(url, worker, deadline_s=60.0) as teller:
                began_s = time.monotonic()
                await teller.finish()
                assert time.monotonic() - began_s < reporter.FINISH_S + 5
        assert await only(tmp_path, "worker")

    asyncio.run(main())


def test_who_tells_for_the_dead_may_die_too(url: str, tmp_path: Path) -> None:
    async def story(client: Client) -> None:
        dead = Told(tmp_path, "dead")
        assert dead.tallies is not None
        dead.count(1)
        await client.xadd(EVENTS, {KIND: STATISTICS, DATA: dead.tallies.offer(1.0) or b""})
        dead.count(2)
        dead.tallies.journal.leave()
        heirs = [Told(tmp_path, name) for name in ("one", "two")]
        async with reporting(url, heirs[0]) as dies:
            dies._claimed = await asyncio.to_thread(dies._leftovers.claim)
            (leftover,) = dies._claimed
            for delta in leftover.deltas:
                await dies._send(delta)
            leftover.journal.leave()  # as its death would
        async with reporting(url, heirs[1]) as teller:
            teller._claimed = await asyncio.to_thread(teller._leftovers.claim)
            assert await teller.beat() == set()
            assert teller._claimed == []
        assert len(await entries(client)) == 5
        assert await consumed(client) == {"/a": 3}
        assert sorted(path.stem for path in journals(tmp_path)) == ["one", "two"]

    play(url, story)


def test_a_full_stream_holds_statistics_back_and_nothing_is_lost(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(events, "EVENTS_MAX", 2)

    async def story(client: Client) -> None:
        worker = Told(tmp_path)
        assert worker.tallies is not None
        async with reporting(url, worker) as teller:
            for _ in range(5):
                worker.count(1)
                assert await teller.beat() == set()
            assert len(await entries(client)) == 2
            assert worker.tallies.unsent == 3
            assert (await states(client))["worker"].unsent == 3
            kept = await entries(client)
            await client.delete(EVENTS)
            await teller.beat()
            await teller.beat()
            consumer = Consumer()
            for data in [*kept, *await entries(client)]:
                consumer.take(data)
            assert (requests_of(consumer.rows), consumer.gaps) == ({"/a": 5}, 0)
        assert caplog.text.count("the stream of events is full") == 1
        assert caplog.text.count("the stream of events is no longer full") == 1

    play(url, story)


def test_figures_are_fetched_where_they_are_wanted(url: str, tmp_path: Path) -> None:
    async def story(client: Client) -> None:
        worker = Told(tmp_path)
        async with reporting(url, worker) as teller:
            await client.set(SUMMARY, b"{}")
            await teller.beat()
            found = [worker.summary]
            worker.wants_summary = True
            await teller.beat()
            found.append(worker.summary)
            await client.delete(SUMMARY)
            await teller.beat()
            found.append(worker.summary)
            worker.summary = b"old"
            async with reporting(f"redis://127.0.0.1:{free_port()}", worker) as deaf:
                await deaf.beat()
            assert [*found, worker.summary] == [None, b"{}", None, None]

    play(url, story)


def test_a_key_of_another_type_spoils_only_what_needs_it_and_is_told_once(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reporter, "BEAT_S", 0.01)

    async def story(client: Client) -> None:
        worker = Told(tmp_path)
        await client.set(WORKERS, "no hash")
        async with reporting(url, worker) as teller:
            task = asyncio.create_task(teller.run())
            for number in range(1, 4):
                worker.count(1)

                async def told(number: int = number) -> bool:
                    return len(await entries(client)) == number

                await until(told)
            await client.delete(WORKERS)
            await until(lambda: states(client))
            await end(task)
        assert caplog.text.count("not told to redis") == 1

    play(url, story)
