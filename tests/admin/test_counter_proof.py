"""Redis against SQL: what is on its way counts, and nothing that is not."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from admin import counter_proof as module
from admin.counter_proof import CounterProof, Differs
from admin.services.ledger_proof import LedgerProof
from proxy.shared_state.keys import METER_LEDGER
from proxy.shared_state.token_store import key_of
from tests.admin.ledgers import AT_MS, consumed
from tests.admin.test_token_publisher import Plane, digest, plane_at
from tests.redis_servers import EMBEDDED, redis_at


@pytest.fixture(scope="module", name="url")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server of this module's own: the keys have fixed names."""
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


def play(url: str, folder: Path, story: Callable[[Plane, CounterProof], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with plane_at(url, folder) as plane:
            await plane.client.flushall()
            await plane.ledger.add("a", "b")
            await plane.publisher.publish()
            await story(plane, CounterProof(plane.client, plane.guard, LedgerProof(plane.ledger.database)))

    asyncio.run(main())


def test_what_is_taken_and_what_waits_agrees(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENTRIES_MAX", 2)

    async def story(plane: Plane, proof: CounterProof) -> None:
        assert await proof.is_ready()
        assert await proof.differing() is None
        for number in (2, 3, 4, 5):
            await plane.spend("a", number, 101 - number)
        await plane.spend("b", 2, 99)
        assert await proof.differing() is None, "all waits"
        await plane.consumer.take_all()
        assert await proof.differing() is None, "all is taken"
        await plane.spend("a", 6, 95)
        assert await proof.differing() is None
        await plane.ledger.add("new")
        assert await proof.differing() is None, "it is not published yet"

    play(url, tmp_path, story)


def test_what_is_taken_meanwhile_agrees(url: str, tmp_path: Path) -> None:
    """Between SQL's word and the stream, all or some of what waited was taken."""

    async def story(plane: Plane, proof: CounterProof) -> None:
        for number in (2, 3):
            await plane.spend("a", number, 101 - number)
        before = [page async for page in proof._proof.counted()]

        async def counted() -> Any:
            for page in before:
                yield page

        await plane.consumer.take_all()
        proof._proof.counted = counted  # type: ignore[method-assign]
        assert await proof.differing() is None
        await plane.spend("a", 4, 97)
        assert await proof.differing() is None

    play(url, tmp_path, story)


def test_a_counter_without_a_row_differs(url: str, tmp_path: Path) -> None:
    async def story(plane: Plane, proof: CounterProof) -> None:
        await plane.spend("b", 2, 99)
        await plane.client.delete(METER_LEDGER)
        assert await proof.differing() == Differs("b", "row 2 is missing, and Redis counts 99 after it")

    play(url, tmp_path, story)


def test_rows_that_do_not_make_the_counter_differ(url: str, tmp_path: Path) -> None:
    async def story(plane: Plane, proof: CounterProof) -> None:
        await plane.spend("b", 2, 99)
        await plane.client.hset(key_of(digest("b")), "remaining", 90)  # type: ignore[misc,arg-type,unused-ignore]
        problem = "with the rows in Redis's stream 99 remains, and Redis counts 90"
        assert await proof.differing() == Differs("b", problem)
        await plane.consumer.take_all()
        assert await proof.differing() == Differs("b", "90 remains in Redis, and 99 in the database")
        await plane.client.hset(key_of(digest("b")), mapping={"remaining": 99, "total": 7})  # type: ignore[misc,unused-ignore]
        assert await proof.differing() == Differs("b", "the quota is 7 in Redis, and 100 in the database")

    play(url, tmp_path, story)


def test_rows_on_their_way_that_do_not_follow_differ(url: str, tmp_path: Path) -> None:
    async def story(plane: Plane, proof: CounterProof) -> None:
        await plane.spend("a", 2, 50)
        assert await proof.differing() == Differs("a", "row 2 begins with 51 in Redis's stream, and 100 was left")

    play(url, tmp_path, story)


def test_a_gap_on_the_way_differs(url: str, tmp_path: Path) -> None:
    async def story(plane: Plane, proof: CounterProof) -> None:
        await plane.spend("a", 3, 98)
        assert await proof.differing() == Differs("a", "row 2 is missing, and Redis counts 99 after it")

    play(url, tmp_path, story)


def test_a_redis_that_lost_changes_differs(url: str, tmp_path: Path) -> None:
    async def story(plane: Plane, proof: CounterProof) -> None:
        await plane.ledger.take(*consumed("a", 2, 3))
        assert await proof.differing() == Differs("a", "Redis has counted 1 changes, and the database has 3")
        await plane.client.delete(key_of(digest("a")))
        assert await proof.differing() == Differs("a", "Redis does not have its counter")
        await plane.ledger.change("a", deleted_at=AT_MS, state="deleted")
        assert await proof.differing() is None

    play(url, tmp_path, story)
