"""From Redis to SQL: real servers on both sides, since all that matters lies between them."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from admin.consumer import GROUP, OF_EVENTS, Consumer
from admin.database import Database, DatabaseDown, open_database
from admin.migrations import migrate
from admin.rules.deltas import EVERYTHING
from admin.rules.figures import Dropped
from admin.rules.periods import ALL_TIME
from admin.services import events
from admin.services.statistics_intake import StatisticsIntake
from admin.services.stream import Stream
from loadtests.processes import free_port
from proxy.shared_state.breaker import Breaker, Guard, StoreUnavailable
from proxy.shared_state.client import Client
from proxy.shared_state.events import STATISTICS, event
from proxy.shared_state.keys import EVENTS
from proxy.statistics import StatisticsDelta
from tests.admin.counted import delta, packed, row
from tests.admin.intake import Intake
from tests.redis_servers import DEADLINE_S, EMBEDDED, beside, cluster, connected, redis_at, server, until
from tests.sql_servers import with_database


class Broken:
    """A database that can be taken away, before a transaction or right after its commit."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.down = False
        self.then: Callable[[], Awaitable[object]] | None = None

    async def transact(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        if self.down:
            raise DatabaseDown("here", OSError("gone"))
        done = await self._database.transact(work)
        if self.then is not None:
            await self.then()
        return done


class Plane:
    """One control plane's consumer."""

    def __init__(self, database: Database, client: Client) -> None:
        self.client = client
        self.database = database
        self.broken = Broken(database)
        self.now_s = time.monotonic
        self.stream = Stream(lambda: self.now_s())
        guard = Guard(client, Breaker(), DEADLINE_S)
        intake = StatisticsIntake(self.stream, lambda: 5)
        broken: Any = self.broken
        self.consumer = Consumer(client, guard, broken, {STATISTICS: intake}, self.stream)

    async def send(self, *deltas: StatisticsDelta) -> None:
        for one in deltas:
            await self.client.xadd(EVENTS, event(STATISTICS, packed(one)))  # type: ignore[arg-type]

    async def total(self) -> int:
        stored = await Intake(self.database).stored()
        everything = stored.get((ALL_TIME, EVERYTHING))
        return 0 if everything is None else everything.durations.count

    async def dropped(self) -> list[Dropped]:
        async with self.database.read() as connection:
            return await events.dropped(connection)

    async def empty(self) -> bool:
        """Whether nothing is left, neither waiting nor unacknowledged."""
        pending = await self.client.xpending(EVENTS, GROUP)
        return await self.client.xlen(EVENTS) == 0 and pending["pending"] == 0

    def running(self) -> contextlib.AbstractAsyncContextManager[None]:
        return beside(self.consumer.run())


@pytest.fixture(scope="module", name="url")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server of this module's own: the key has a fixed name."""
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(name="sqlite_url")
def fixture_sqlite_url(tmp_path: Path) -> str:
    async def story(database: Database) -> None:
        await migrate(database)

    url = f"sqlite:///{tmp_path / 'test.db'}"
    with_database(url, story)
    return url


Story = Callable[[Plane], Coroutine[Any, Any, None]]


def play(url: str, database_url: str, story: Story) -> None:
    async def main(database: Database) -> None:
        async with connected(url) as client:
            await client.delete(EVENTS)
            await story(Plane(database, client))

    with_database(database_url, main)


def numbered(*sequences: int, worker: str = "w") -> list[StatisticsDelta]:
    """Deltas of one request each."""
    return [delta(row(s2xx=1), sequence=sequence, worker=worker) for sequence in sequences]


def test_what_is_committed_is_acknowledged_and_gone(url: str, database_url: str) -> None:
    async def story(plane: Plane) -> None:
        assert not await plane.consumer.poll(0), "nothing is there yet, neither group nor stream"
        await plane.send(*numbered(1, 2), *numbered(1, worker="x"))
        assert not await plane.consumer.poll(0)
        assert await plane.total() == 3
        assert await plane.empty()
        assert plane.stream.lag() == (0, 0.0)
        assert plane.stream.requests_per_second() == 0.3
        assert await plane.dropped() == []

    play(url, database_url, story)


def test_what_was_committed_and_not_acknowledged_does_not_count_twice(url: str, database_url: str) -> None:
    async def story(plane: Plane) -> None:
        async def crash() -> None:
            raise StoreUnavailable("connection")

        await plane.send(*numbered(1, 2))
        await plane.client.xadd(EVENTS, event(STATISTICS, b"nothing"))  # type: ignore[arg-type]
        plane.broken.then = crash
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await plane.consumer.poll(0)
        assert (await plane.total(), await plane.empty()) == (2, False)
        await plane.send(*numbered(3))
        other = Plane(plane.database, plane.client)
        await other.consumer.poll(0)
        assert (await plane.total(), await plane.empty()) == (3, True)
        assert await plane.dropped() == [Dropped("statistics", "undecodable", 1)]

    play(url, database_url, story)


def test_two_consumers_at_once_count_each_once(url: str, database_url: str) -> None:
    async def story(plane: Plane) -> None:
        async with connected(url) as client:
            database = open_database(database_url)
            try:
                other = Plane(database, client)
                for first in range(1, 31, 3):
                    await plane.send(*numbered(first, first + 1, first + 2))
                    await asyncio.gather(plane.consumer.poll(0), other.consumer.poll(0))
                await plane.consumer.drain()
                assert (await plane.total(), await plane.empty(), await plane.dropped()) == (30, True, [])
            finally:
                await database.close()

    play(url, database_url, story)


def test_poison_and_gaps_are_counted_told_and_passed(
    url: str, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(plane: Plane) -> None:
        first, third = numbered(1, 3)
        await plane.send(first)
        for fields in (event(STATISTICS, b"\xc1"), event(b"ledger", b""), {b"other": b"fields"}):
            await plane.client.xadd(EVENTS, fields)  # type: ignore[arg-type]
        await plane.send(third)
        await plane.consumer.poll(0)
        assert (await plane.total(), await plane.empty()) == (2, True)
        assert await plane.dropped() == [
            Dropped("statistics", "missing", 1),
            Dropped("statistics", "undecodable", 1),
            Dropped("unknown", "undecodable", 2),
        ]

    play(url, database_url, story)
    assert [message.partition(", from ")[0] for message in sorted(caplog.messages)] == [
        "events (statistics): 1 were lost on the way here",
        "events (statistics): dropped 1 that cannot be decoded",
        "events (unknown): dropped 2 that cannot be decoded",
    ]


def test_while_sql_is_down_all_waits_and_one_line_says_so(
    url: str, sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "relaygate")

    async def story(plane: Plane) -> None:
        plane.consumer._taking = OF_EVENTS._replace(poll_s=0.02)
        plane.broken.down = True
        async with plane.running():
            await plane.send(*numbered(*range(1, 21)))

            async def seen() -> bool:
                lag = plane.stream.lag()
                return lag is not None and lag[0] == 20 and lag[1] > 0.2

            async def told() -> bool:
                return "events are taken again" in caplog.messages

            await until(seen)
            assert await plane.client.xlen(EVENTS) == 20
            plane.broken.down = False
            await until(plane.empty)
            await until(told)  # it is once the acknowledged are gone
        assert await plane.total() == 20

    play(url, sqlite_url, story)
    assert caplog.messages == [
        "events wait, none is lost: database: here: gone",
        "events are taken again",
    ]


def test_a_failure_that_nobody_thought_of_loses_nothing_either(
    url: str, sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(plane: Plane) -> None:
        async def fail() -> None:
            raise ZeroDivisionError("what?")

        await plane.send(*numbered(1))
        plane.broken.then = fail
        for _ in range(3):
            await plane.consumer.drain()
        assert not await plane.empty()
        plane.broken.then = None
        await plane.consumer.drain()
        assert (await plane.total(), await plane.empty()) == (1, True)

    play(url, sqlite_url, story)
    assert caplog.messages == ["events wait, none is lost: ZeroDivisionError: what?", "events are taken again"]


def test_a_redis_that_lost_everything_goes_on_and_the_loss_is_counted(url: str, sqlite_url: str) -> None:
    async def story(plane: Plane) -> None:
        await plane.send(*numbered(1, 2))
        await plane.consumer.poll(0)
        await plane.send(*numbered(3))
        await plane.client.flushall()
        assert not await plane.consumer.poll(0)
        await plane.send(*numbered(4))
        await plane.consumer.poll(0)
        assert (await plane.total(), await plane.empty()) == (3, True)
        assert await plane.dropped() == [Dropped("statistics", "missing", 1)]

    play(url, sqlite_url, story)


def test_entries_that_somebody_deleted_are_passed(url: str, sqlite_url: str) -> None:
    async def story(plane: Plane) -> None:
        plane.broken.down = True
        await plane.send(*numbered(1, 2))
        with pytest.raises(DatabaseDown):
            await plane.consumer.poll(0)
        plane.broken.down = False
        await plane.client.xtrim(EVENTS, maxlen=1, approximate=False)
        await plane.consumer.poll(0)
        assert (await plane.total(), await plane.empty()) == (1, True)
        assert await plane.dropped() == [Dropped("statistics", "missing", 1)]

    play(url, sqlite_url, story)


def test_a_clock_that_went_back_makes_no_rate_of_the_future(url: str, sqlite_url: str) -> None:
    """Ids never go back: until Redis's clock is again where it was, they are ahead of it."""

    async def story(plane: Plane) -> None:
        plane.now_s = lambda: 1000.0
        seconds, _ = await plane.client.time()
        await plane.client.xadd(EVENTS, event(STATISTICS, packed(numbered(1)[0])), id=f"{seconds + 3600}000-0")  # type: ignore[arg-type]
        await plane.consumer.poll(0)
        assert plane.stream.requests_per_second() == 0.1
        plane.now_s = lambda: 1060.0
        assert plane.stream.requests_per_second() == 0

    play(url, sqlite_url, story)


def test_the_end_takes_all_that_waits(url: str, sqlite_url: str) -> None:
    async def story(plane: Plane) -> None:
        await plane.send(*numbered(*range(1, 51)))
        await plane.consumer.drain()
        assert (await plane.total(), await plane.empty()) == (50, True)

    play(url, sqlite_url, story)


def test_batches_grow_and_shrink_with_their_entries(url: str, sqlite_url: str) -> None:
    async def story(plane: Plane) -> None:
        consumer = plane.consumer
        await plane.send(*numbered(1))
        await consumer.poll(0)
        assert consumer._batch_entries > 8
        consumer._taking = OF_EVENTS._replace(batch_bytes=10)
        await plane.send(*numbered(2, 3, 4))
        await consumer.poll(0)
        assert consumer._batch_entries == 1
        await plane.send(*numbered(5, 6))
        assert await consumer.poll(0), "there is more"
        assert await plane.total() == 5
        await consumer.drain()
        assert (await plane.total(), await plane.dropped()) == (6, [])

    play(url, sqlite_url, story)


def test_a_read_that_takes_too_long_is_tried_with_less(url: str, sqlite_url: str) -> None:
    async def story(plane: Plane) -> None:
        async def slow(*_: object, **__: object) -> None:
            await asyncio.Event().wait()

        real = plane.client.xreadgroup
        plane.consumer._guard = Guard(plane.client, Breaker(), 0.05)
        plane.client.xreadgroup = slow  # type: ignore[assignment,method-assign]
        for entries in (2, 1, 1):
            with pytest.raises(StoreUnavailable):
                await plane.consumer.poll(0)
            assert plane.consumer._batch_entries == entries
        plane.client.xreadgroup = real  # type: ignore[method-assign]

    play(url, sqlite_url, story)


def test_a_redis_that_goes_and_comes_back_empty(tmp_path: Path, sqlite_url: str) -> None:
    async def main(database: Database) -> None:
        port = free_port()
        url = f"redis://127.0.0.1:{port}"
        async with connected(url) as client:
            plane = Plane(database, client)
            async with plane.running():
                for number, name in enumerate(("first", "second"), 1):
                    with server(tmp_path / name, port=port):
                        async with connected(url) as sender:
                            await Plane(database, sender).send(*numbered(number))

                            async def taken(number: int = number) -> bool:
                                return await plane.total() == number

                            await until(taken, 10)

    with_database(sqlite_url, main)


def test_it_reads_from_a_cluster(tmp_path: Path, sqlite_url: str) -> None:
    async def story(plane: Plane) -> None:
        await plane.send(*numbered(1, 2))
        await plane.consumer.poll(0)
        assert (await plane.total(), await plane.empty()) == (2, True)

    with cluster(tmp_path) as ports:
        play(f"redis+cluster://127.0.0.1:{ports[0]}", sqlite_url, story)


def test_young_entries_wait_for_what_belongs_to_them(url: str, sqlite_url: str) -> None:
    async def story(plane: Plane) -> None:
        seconds, _ = await plane.client.time()
        for number, age_s in ((1, 100), (2, 70), (3, 20)):
            fields = event(STATISTICS, packed(numbered(number)[0]))
            await plane.client.xadd(EVENTS, fields, id=f"{seconds - age_s}000-0")  # type: ignore[arg-type]
        assert not await plane.consumer.poll(60)
        assert (await plane.total(), await plane.client.xlen(EVENTS)) == (2, 1)
        await plane.consumer.take_all()
        assert (await plane.total(), await plane.empty()) == (3, True)

    play(url, sqlite_url, story)


def test_entries_of_the_future_do_not_wait_until_the_clock_is_there(url: str, sqlite_url: str) -> None:
    async def story(plane: Plane) -> None:
        seconds, _ = await plane.client.time()
        await plane.client.xadd(EVENTS, event(STATISTICS, packed(numbered(1)[0])), id=f"{seconds + 3600}000-0")  # type: ignore[arg-type]
        await plane.consumer.poll(60)
        assert await plane.total() == 1

    play(url, sqlite_url, story)


def test_to_take_all_says_why_it_cannot(url: str, sqlite_url: str) -> None:
    async def story(plane: Plane) -> None:
        await plane.send(*numbered(1))
        plane.broken.down = True
        with pytest.raises(DatabaseDown):
            await plane.consumer.take_all()

    play(url, sqlite_url, story)
