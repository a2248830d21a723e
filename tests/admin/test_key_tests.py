"""Tests of keys against a real upstream: what each answer does to a key, and the test of all."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from admin import key_tests  # pytest would take Tested for tests
from admin.key_tests import KeyTests
from admin.rules import key_records
from admin.rules.key_records import Status
from admin.services import failures
from admin.upstream_calls import UpstreamCalls
from proxy.config import CredentialSource, KeyPool, PoolGroup, Route
from tests.admin.keys_memory import KeysMemory, Record
from tests.admin.models_upstream import ModelsUpstream, models_upstream

Bench = tuple[KeysMemory, ModelsUpstream, KeyTests]
SUCCESS, FAILED = key_records.TestResult.SUCCESS, key_records.TestResult.FAILED


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    """Keys in memory, an upstream, and tests with a route to it."""
    memory = KeysMemory()
    async with models_upstream() as upstream:

        async def routes() -> dict[str, Route]:
            pool = CredentialSource.POOL
            return {"/m": Route(target=upstream.url, credential=pool, pool_groups=("default", "main"))}

        tests = KeyTests(memory.keys, memory.pool, routes, UpstreamCalls(allow_private_targets=True), pause_s=0)
        try:
            yield memory, upstream, tests
        finally:
            await tests.close()


@pytest.mark.parametrize(
    ("statuses", "expected", "status", "asked"),
    [
        ([200], (SUCCESS, 200, None), Status.ACTIVE, 1),
        ([402], (FAILED, 402, "http_402"), Status.BANNED, 1),
        ([401], (FAILED, 401, "http_401"), Status.DISABLED, 1),
        ([404], (FAILED, 404, "http_404"), Status.ACTIVE, 1),
        ([429], (FAILED, 429, "http_429"), Status.ACTIVE, 3),
        ([500, 429, 200], (SUCCESS, 200, None), Status.ACTIVE, 3),
        ([503, 402], (FAILED, 402, "http_402"), Status.BANNED, 2),
        ([0], (FAILED, 0, "no_answer"), Status.ACTIVE, 6),  # aiohttp sends a GET anew whose connection ends
        ([0, 200], (SUCCESS, 200, None), Status.ACTIVE, 2),
    ],
)
def test_an_answer_decides(
    statuses: list[int], expected: tuple[key_records.TestResult, int, str | None], status: Status, asked: int
) -> None:
    async def story() -> None:
        async with bench() as (memory, upstream, tests):
            memory.keys.add("sk-one", id="key_1")
            upstream.statuses["sk-one"] = statuses
            assert await tests.test(id="key_1") == key_tests.Tested(*expected, status)
            record = memory.keys.records["key_1"]
            assert (record.status, record.last_test_result, record.last_error) == (status, expected[0], expected[2])
            assert record.last_test_at is not None
            assert upstream.asked["sk-one"] == asked

    asyncio.run(story())


def test_a_good_answer_leaves_the_status_as_it_was() -> None:
    async def story() -> None:
        async with bench() as (memory, upstream, tests):
            memory.keys.add("sk-one", id="key_1", status=Status.DISABLED)
            upstream.statuses["sk-one"] = [200]
            assert (await tests.test(id="key_1")).key_status is Status.DISABLED

    asyncio.run(story())


def test_what_is_not_there_and_what_no_route_may_use() -> None:
    async def story() -> None:
        async with bench() as (memory, _, tests):
            memory.pool.settings = KeyPool(groups={"spare": PoolGroup()})
            memory.keys.add("sk-one", id="key_1", group="spare")
            with pytest.raises(failures.NoRouteForKey):
                await tests.test(id="key_1")
            with pytest.raises(failures.NoSuchKey):
                await tests.test(id="key_2")

    asyncio.run(story())


def test_a_key_of_a_group_that_there_is_not_is_tested_as_one_of_default() -> None:
    async def story() -> None:
        async with bench() as (memory, upstream, tests):
            upstream.statuses["sk-one"] = [200]
            memory.keys.add("sk-one", id="key_1", group="gone")
            assert (await tests.test(id="key_1")).result is SUCCESS

    asyncio.run(story())


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


async def ended(tests: KeyTests) -> None:
    await until(lambda: tests.progress().state != "running")


def filled(memory: KeysMemory, upstream: ModelsUpstream, count: int) -> list[Record]:
    """Keys of which each tenth is banned already, and each third of the others is refused."""
    records = []
    for number in range(count):
        status = Status.BANNED if number % 10 == 9 else Status.ACTIVE
        records.append(memory.keys.add(f"sk-{number}", status=status))
        upstream.statuses[f"sk-{number}"] = [401 if number % 3 == 0 else 200]
    return records


def test_all_are_tested_but_those_that_are_banned_and_never_too_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("admin.key_sweeps.PAGE", 7)

    async def story() -> None:
        async with bench() as (memory, upstream, tests):
            assert tests.progress().state == "idle"
            memory.pool.settings = KeyPool(concurrent_limit=4)
            filled(memory, upstream, 40)
            upstream.pause_s = 0.01
            assert (await tests.start()).state == "running"
            with pytest.raises(failures.TestsRunning):
                await tests.start()
            await ended(tests)
            progress = tests.progress()
            assert progress[:7] == ("done", 36, 36, 24, 12, 12, 0)
            assert progress.started_at is not None
            assert progress.ended_at is not None
            assert upstream.most == 4
            assert not any(upstream.asked[f"sk-{number}"] for number in range(9, 40, 10))
            await tests.start()
            await ended(tests)
            assert tests.progress().tested == 36

    asyncio.run(story())


def test_a_key_whose_secret_key_is_gone_has_not_passed_and_keeps_no_other_from_its_test() -> None:
    async def story() -> None:
        async with bench() as (memory, upstream, tests):
            memory.keys.add("sk-one", id="key_1")
            memory.keys.add("sk-two", id="key_2")
            memory.keys.unreadable.add("key_1")
            upstream.statuses["sk-two"] = [200]
            await tests.start()
            progress = await tests.ended()
            assert (progress.state, progress.success, progress.failed) == ("done", 1, 1)
            record = memory.keys.records["key_1"]
            assert (record.status, record.last_error) == (Status.ACTIVE, "undecryptable")

    asyncio.run(story())


def test_it_can_be_cancelled_and_what_is_done_stays_done() -> None:
    async def story() -> None:
        async with bench() as (memory, upstream, tests):
            memory.pool.settings = KeyPool(concurrent_limit=2)
            filled(memory, upstream, 9)
            upstream.gate = asyncio.Event()
            assert (await tests.start()).total == 9
            await until(lambda: upstream.running == 2)
            progress = await tests.cancel()
            assert (progress.state, progress.total, progress.tested) == ("cancelled", 9, 0)
            upstream.gate.set()
            assert await tests.cancel() == progress
            assert upstream.most == 2
            await tests.start()
            assert (await tests.cancel()).state == "cancelled", "before it has begun"

    asyncio.run(story())


def test_a_key_deleted_meanwhile_and_one_without_a_route_do_no_harm() -> None:
    async def story() -> None:
        async with bench() as (memory, upstream, tests):
            memory.pool.settings = KeyPool(groups={"spare": PoolGroup()}, concurrent_limit=1)
            filled(memory, upstream, 3)
            memory.keys.add("sk-spare", group="spare")
            upstream.gate = asyncio.Event()
            await tests.start()
            await until(lambda: upstream.running)
            await memory.keys.delete(id="key_2", actor="token")
            upstream.gate.set()
            await ended(tests)
            assert tests.progress()[:6] == ("done", 3, 3, 1, 2, 1)

    asyncio.run(story())


def test_a_failure_is_one_line_without_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with bench() as (memory, upstream, tests):
            filled(memory, upstream, 3)

            async def broken(**_: object) -> str:
                raise RuntimeError("sk-canary")

            memory.keys.reveal = broken  # type: ignore[method-assign]
            await tests.start()
            await ended(tests)
            assert tests.progress().state == "failed"

    with caplog.at_level(logging.INFO, "relaygate"):
        asyncio.run(story())
    assert [record.message for record in caplog.records] == ["the test of all keys failed: RuntimeError"]
