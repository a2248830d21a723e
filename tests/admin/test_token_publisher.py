"""Access tokens from SQL to Redis: real servers. What Redis counts is never overwritten by what SQL knew before."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update

from admin import tables
from admin.consumer import OF_LEDGER, Consumer
from admin.database import Database, DatabaseDown, open_database
from admin.migrations import migrate
from admin.services.stream import Stream
from admin.services.token_feed import FORGOTTEN_MS, GONE_MS, TokenFeed
from admin.token_publisher import TokenPublisher
from proxy.rules.access_tokens import AccessToken, OnStoreOutage, State, Terms, Unit
from proxy.shared_state.breaker import Breaker, Guard
from proxy.shared_state.client import Client
from proxy.shared_state.events import event
from proxy.shared_state.keys import METER_FILLED, METER_LEDGER, METER_READY
from proxy.shared_state.ledger import LEDGER
from proxy.shared_state.token_store import Counter, Operation, TokenStore, key_of
from tests.admin.ledgers import AT_MS, Ledger, consume, consumed, packed
from tests.redis_servers import DEADLINE_S, EMBEDDED, beside, cluster, connected, redis_at, server, until
from tests.sql_servers import with_database


def digest(name: str) -> str:
    return name.rjust(64, "0")


class Plane:
    """One control plane's part of it."""

    def __init__(self, database: Database, client: Client) -> None:
        self.client = client
        self.guard = Guard(client, Breaker(), DEADLINE_S)
        self.ledger = Ledger(database)
        self.store = TokenStore(client, self.guard)
        self.feed = TokenFeed(database, lambda: self.ledger.now_ms)
        handlers = {LEDGER: self.ledger.intake}
        self.consumer = Consumer(client, self.guard, database, handlers, Stream(), OF_LEDGER)
        self.publisher = TokenPublisher(client, self.guard, self.feed, self.consumer.take_all)
        self.ledger.intake.on_fork = self.publisher.refill_soon

    async def counter(self, name: str) -> Counter | None:
        return (await self.store.counters([digest(name)]))[0]

    async def spend(self, name: str, sequence: int, remaining: int, request: str = "") -> None:
        """An admission, as Redis does it: the counter and its row."""
        row = consume(name, sequence, remaining + 1, request)
        await self.client.hset(key_of(digest(name)), mapping={"remaining": remaining, "sequence": sequence})  # type: ignore[misc,unused-ignore]
        await self.client.xadd(METER_LEDGER, event(LEDGER, packed(row)))  # type: ignore[arg-type]

    async def change_back(self, name: str, state: State, revision: int, number: int) -> None:
        """Has SQL say of a token, and of the last edit, what it said at another time."""
        async with self.ledger.database.write() as connection:
            where = update(tables.access_tokens).where(tables.access_tokens.c.id == name)
            await connection.execute(where.values(state=state, revision=revision))
            await connection.execute(update(tables.access_tokens_revision).values(number=number))

    async def fields(self, name: str) -> dict[bytes, bytes]:
        found: Any = await self.client.hgetall(key_of(digest(name)))  # type: ignore[misc,unused-ignore]
        return dict(found)


@pytest.fixture(scope="module", name="url")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server of this module's own: the keys have fixed names."""
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


@contextlib.asynccontextmanager
async def plane_at(url: str, folder: Path) -> AsyncIterator[Plane]:
    database = open_database(f"sqlite:///{folder / 'test.db'}")
    try:
        await migrate(database)
        async with connected(url) as client:
            yield Plane(database, client)
    finally:
        await database.close()


def play(url: str, folder: Path, story: Callable[[Plane], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with plane_at(url, folder) as plane:
            await plane.client.flushall()
            await story(plane)

    asyncio.run(main())


def test_an_empty_redis_gets_all_and_is_ready_then(url: str, tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        await plane.ledger.add("a", "b")
        await plane.ledger.take(*consumed("a", 2, 41))
        await plane.ledger.add("c", total=None)
        assert not await plane.store.is_ready()
        await plane.publisher.publish()
        assert await plane.store.is_ready()
        assert await plane.store.revision() == 2
        assert await plane.counter("a") == Counter(60, 100, 41), "never from the total"
        assert await plane.counter("b") == Counter(100, 100, 1)
        assert await plane.counter("c") is None

    play(url, tmp_path, story)


def test_an_edit_is_published_and_leaves_the_counter_alone(url: str, tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        await plane.ledger.add("a")
        await plane.publisher.publish()
        await plane.spend("a", 2, 99)
        await plane.ledger.change("a", state="disabled", per_minute=5)
        await plane.publisher.publish()
        fields = await plane.fields("a")
        assert (fields[b"state"], fields[b"per_minute"], fields[b"remaining"]) == (b"disabled", b"5", b"99")
        assert await plane.store.revision() == 2
        assert await plane.client.xlen(METER_LEDGER) == 1, "the ledger is not its business while Redis is ready"

    play(url, tmp_path, story)


def test_who_waits_for_an_edit_waits_until_it_is_there(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("admin.publishing.CHECK_S", 3600.0)  # what is wanted is not left to the next look

    async def story(plane: Plane) -> None:
        await plane.ledger.add("a")
        async with beside(plane.publisher.run()):
            assert await plane.publisher.published(1)
            revision = await plane.ledger.change("a", per_second=7)
            assert await plane.publisher.published(revision)
            assert (await plane.fields("a"))[b"per_second"] == b"7"
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await plane.publisher.published(revision + 1)

    play(url, tmp_path, story)


def test_a_redis_that_lost_everything_is_filled_after_the_stream_was_taken(url: str, tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        await plane.ledger.add("a")
        await plane.publisher.publish()
        await plane.spend("a", 2, 99)
        await plane.consumer.take_all()
        await plane.client.flushall()
        await plane.client.xadd(METER_LEDGER, event(LEDGER, packed(consume("a", 3, 99))))  # type: ignore[arg-type]
        await plane.publisher.publish()
        assert await plane.counter("a") == Counter(98, 100, 3)
        assert await plane.store.is_ready()

    play(url, tmp_path, story)


def test_a_redis_that_started_anew_with_older_counters_takes_those_of_sql(url: str, tmp_path: Path) -> None:
    """It has lost 3 and 4 of `a`, and admitted another request since; nothing of `b`, which SQL is behind."""

    async def story(plane: Plane) -> None:
        await plane.ledger.add("a", "b")
        await plane.publisher.publish()
        await plane.ledger.take(*consumed("a", 2, 4))
        await plane.spend("a", 2, 99, "a-2")
        await plane.client.delete(METER_LEDGER)
        await plane.spend("a", 3, 98, "another")
        await plane.spend("b", 2, 99)
        await plane.client.set(METER_FILLED, b"an earlier start")
        await plane.publisher.publish()
        assert await plane.counter("a") == Counter(96, 100, 5)
        assert await plane.counter("b") == Counter(99, 100, 2)
        assert [row[0] for row in await plane.ledger.rows("a", "request_id")] == [None, "a-2", "a-3", "a-4", "another"]
        assert await plane.client.xlen(METER_LEDGER) == 0

    play(url, tmp_path, story)


def test_a_fork_has_all_compared(url: str, tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        await plane.ledger.add("a")
        await plane.publisher.publish()
        await plane.ledger.take(*consumed("a", 2, 4))
        await plane.spend("a", 2, 99, "another")
        await plane.consumer.take_all()
        await plane.publisher.publish()
        assert await plane.counter("a") == Counter(96, 100, 5)

    play(url, tmp_path, story)


def test_while_sql_is_away_a_redis_that_is_ready_stays_so(url: str, tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        await plane.ledger.add("a")
        await plane.publisher.publish()
        await plane.client.set(METER_FILLED, b"an earlier start")

        async def away() -> None:
            raise DatabaseDown("here", OSError("gone"))

        plane.publisher._take_ledger = away
        with pytest.raises(DatabaseDown):
            await plane.publisher.publish()
        assert await plane.store.is_ready()

    play(url, tmp_path, story)


def test_nothing_is_admitted_while_redis_is_filled(url: str, tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        await plane.ledger.add("a")
        await plane.publisher.publish()
        seen: list[int] = []

        async def look() -> None:
            seen.append(await plane.client.exists(METER_READY))

        plane.publisher._take_ledger = look
        plane.publisher.refill_soon()
        await plane.publisher.publish()
        assert seen == [1, 0]
        await plane.publisher.publish()
        assert len(seen) == 2

    play(url, tmp_path, story)


def test_what_another_database_published_goes(url: str, tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        await plane.ledger.add("a")
        await plane.publisher.publish()
        await plane.client.hset(key_of(digest("a")) + ":held", "w", 1)  # type: ignore[misc,arg-type,unused-ignore]
        (tmp_path / "new").mkdir()
        async with plane_at(url, tmp_path / "new") as other:
            await other.ledger.add("b")
            await other.publisher.publish()
            names = sorted([name async for name in other.client.scan_iter(match="*token:*")])
            assert names == [key_of(digest("b")).encode()]

    play(url, tmp_path, story)


def test_a_deleted_token_stays_for_a_day(url: str, tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        await plane.ledger.add("a", "b")
        await plane.publisher.publish()
        await plane.ledger.change("a", state="deleted", deleted_at=AT_MS)
        await plane.publisher.publish()
        assert (await plane.fields("a"))[b"state"] == b"deleted"
        plane.ledger.now_ms = AT_MS + GONE_MS - 1
        await plane.publisher.forget_deleted()
        assert await plane.fields("a")
        plane.ledger.now_ms += 1
        await plane.publisher.forget_deleted()
        assert not await plane.fields("a")
        plane.publisher.refill_soon()
        await plane.publisher.publish()
        assert not await plane.fields("a")
        assert await plane.fields("b")
        plane.ledger.now_ms = AT_MS + FORGOTTEN_MS + 1
        assert await plane.feed.long_deleted() == []

    play(url, tmp_path, story)


def test_a_quota_that_an_operator_changes_meanwhile_stays(url: str, tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        await plane.ledger.add("a")
        await plane.publisher.publish()
        await plane.store.change_quota(digest("a"), Operation.ADD, 50, "r")
        plane.publisher.refill_soon()
        await plane.publisher.publish()
        assert await plane.counter("a") == Counter(150, 150, 2)
        assert (await plane.ledger.standing("a"))[:3] == (2, 150, 150)

    play(url, tmp_path, story)


def test_many_tokens_are_all_there(url: str, tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        names = [f"tok{number}" for number in range(10_000)]
        await plane.ledger.add(*names)
        await plane.publisher.publish()
        assert None not in await plane.store.counters([*map(digest, names)])

    play(url, tmp_path, story)


def test_a_redis_that_goes_and_comes_back_empty(tmp_path: Path) -> None:
    async def main() -> None:
        with contextlib.ExitStack() as stack:
            port = stack.enter_context(server(tmp_path / "first"))
            async with plane_at(f"redis://127.0.0.1:{port}", tmp_path) as plane:
                await plane.ledger.add("a")
                async with beside(plane.publisher.run()):
                    await until(plane.store.is_ready)
                    await plane.ledger.take(*consumed("a", 2, 3))
                    stack.close()
                    stack.enter_context(server(tmp_path / "second", port=port))

                    async def filled() -> bool:
                        async with connected(f"redis://127.0.0.1:{port}") as client:
                            store = TokenStore(client, Guard(client, Breaker(), DEADLINE_S))
                            return await store.is_ready() and await store.counters([digest("a")]) == [
                                Counter(98, 100, 3)
                            ]

                    await until(filled, 10)

    asyncio.run(main())


def test_it_publishes_to_a_cluster(tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        await plane.ledger.add("a", "b")
        await plane.publisher.publish()
        async with plane.ledger.database.write() as connection:
            await connection.execute(delete(tables.access_tokens).where(tables.access_tokens.c.id == "b"))
        plane.publisher.refill_soon()
        await plane.publisher.publish()
        assert (await plane.counter("a"), await plane.counter("b")) == (Counter(100, 100, 1), None)

    with cluster(tmp_path) as ports:
        play(f"redis+cluster://127.0.0.1:{ports[0]}", tmp_path, story)


def test_tokens_are_published_as_they_are_stored(database_url: str) -> None:
    async def story(database: Database) -> None:
        ledger = Ledger(database)
        feed = TokenFeed(database, lambda: AT_MS)
        lists = {"routes": '["/a"]', "models": '["gpt-*"]', "networks": '["10.0.0.0/8","::1/128"]'}
        await ledger.add("a", "b", "c", total=5, unit="nano_usd", refunds=0, on_store_outage="allow", **lists)
        await ledger.add("d", total=None, state="disabled", expires_at=9, per_minute=1, per_second=2, concurrent=3)
        ((one, *_, last),) = [page async for page in feed.since(-1)]
        assert one.record == AccessToken(
            *("a", 1, Unit.NANO_USD, ("/a",), ("gpt-*",), ("10.0.0.0/8", "::1/128")),
            refunds=False,
            on_store_outage=OnStoreOutage.ALLOW,
        )
        assert (one.digest, one.counter, one.terms) == (digest("a"), Counter(5, 5, 1), Terms())
        assert (last.record, last.counter) == (AccessToken("d", 2, expires_ms=9), None)
        assert last.terms == Terms(State.DISABLED, 9, 1, 2, 3)
        assert [[two.record.id for two in page] async for page in feed.since(1)] == [["d"]]
        assert await feed.revision() == 2

    with_database(database_url, story)


def test_no_token_is_left_out_at_the_end_of_a_page(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("admin.services.token_feed.ROWS_MAX", 2)

    async def story(database: Database) -> None:
        ledger = Ledger(database)
        await ledger.add("a", "b", "c")
        await ledger.add("d", "e")
        pages = [[one.record.id for one in page] async for page in TokenFeed(database, lambda: AT_MS).since(-1)]
        assert pages == [["a", "b"], ["c", "d"], ["e"]]

    with_database(database_url, story)


def test_a_database_of_before_is_published_whole_and_its_next_edits_too(url: str, tmp_path: Path) -> None:
    """One that was restored counts edits from a number that Redis is beyond."""

    async def story(plane: Plane) -> None:
        await plane.ledger.add("a", "b")
        await plane.change_back("a", State.ACTIVE, 9, 9)
        await plane.publisher.publish()
        await plane.spend("a", 2, 99)
        await plane.change_back("a", State.DISABLED, 1, 1)
        await plane.publisher.publish()
        assert (await plane.fields("a"))[b"state"] == b"disabled"
        assert await plane.counter("a") == Counter(99, 100, 2)
        revision = await plane.ledger.change("a", state=State.ACTIVE)
        await plane.publisher.publish()
        assert (await plane.fields("a"))[b"state"] == b"active"
        assert await plane.store.revision() == revision > 9

    play(url, tmp_path, story)


def test_a_database_that_is_behind_overtakes_once(database_url: str) -> None:
    async def story(database: Database) -> None:
        ledger, feed = Ledger(database), TokenFeed(database, lambda: AT_MS)
        await ledger.add("a", "b")
        await feed.overtake(7)
        assert await feed.revision() == 8
        revision = await ledger.change("a", state=State.DISABLED)
        await feed.overtake(7)
        found = [(one.record.id, one.record.revision) for page in [p async for p in feed.since(7)] for one in page]
        assert found == [("b", 8), ("a", revision)]

    with_database(database_url, story)
