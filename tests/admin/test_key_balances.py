"""Syncs of balances against a provider that knows its keys: what is asked, kept, counted, and when."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from admin import key_balances
from admin.key_balances import KeyBalances
from admin.rules.balances import PRESETS, Reading, Told
from admin.rules.key_records import Status
from admin.services.failures import NoBalanceQuery, SyncRunning
from admin.upstream_calls import UpstreamCalls
from loadtests import fake_provider
from loadtests.fake_provider import FakeProvider
from loadtests.fake_provider_balances import CHAT_USAGE, SUBSCRIPTION_USAGE, Allowance
from proxy.config import BalancePreset, BalanceQuery, KeyPool
from proxy.secrets import SecretError
from tests.admin.keys_memory import KeysMemory
from tests.admin.models_upstream import ModelsUpstream, models_upstream

FACTORY = BalanceQuery(preset=BalancePreset.FACTORY)


class Store:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.most = 0
        self.totals = 0

    async def record(self, told: Sequence[Told]) -> None:
        self.most = max(self.most, len(told))
        self.told += told

    async def record_totals(self) -> None:
        self.totals += 1

    def found(self) -> dict[str, tuple[int | None, int | None] | str | None]:
        return {one.id: one.problem if one.reading is None else one.reading[:2] for one in self.told}


class Turns:
    """Gives or refuses the turn."""

    def __init__(self) -> None:
        self.free = True
        self.asked: list[float] = []

    async def __call__(self, interval_s: float) -> bool:
        self.asked.append(interval_s)
        free, self.free = self.free, False
        return free


class Bench:
    def __init__(self, url: str, *, allow_private_targets: bool = True) -> None:
        self.memory = KeysMemory()
        self.store = Store()
        self.turns = Turns()
        presets = {
            BalancePreset.FACTORY: [
                msgspec.structs.replace(query, url=url + path)
                for query, path in zip(PRESETS[BalancePreset.FACTORY], (SUBSCRIPTION_USAGE, CHAT_USAGE), strict=True)
            ]
        }
        self.calls = UpstreamCalls(allow_private_targets=allow_private_targets)
        self.sync = KeyBalances(
            self.memory.keys,
            self.memory.pool,
            self.store,
            self.calls,
            self.turns,
            presets=presets,
            pause_s=0,
            now_ms=lambda: 5,
        )
        self.settings(factory=FACTORY)

    def settings(self, interval_s: float | None = 300.0, at_once: int = 50, **queries: BalanceQuery) -> None:
        self.memory.pool.settings = KeyPool(
            balance_interval_s=interval_s, concurrent_limit=at_once, balance_queries=queries
        )

    async def whole(self) -> Any:
        """A sync from its beginning to its end."""
        await self.sync.start()
        return (await self.sync.ended())[:5]


@asynccontextmanager
async def bench(url: str, **options: Any) -> AsyncIterator[Bench]:
    made = Bench(url, **options)
    try:
        yield made
    finally:
        await made.sync.cancel()
        await made.calls.close()


@pytest.fixture(name="provider", scope="module")
def fixture_shared() -> Iterator[FakeProvider]:
    with fake_provider.running() as provider:
        yield provider


@pytest.fixture(autouse=True)
def _forgetful(provider: FakeProvider) -> None:
    provider.forget()


def test_each_key_gets_its_figures(provider: FakeProvider) -> None:
    async def story() -> None:
        async with bench(provider.url) as about:
            for key, allowance in (("fk-one", Allowance(5, 20, 10**12, 2 * 10**12)), ("fk-two", Allowance(7, 30))):
                provider.plan(key)
                provider.allowances[key] = allowance
            about.memory.keys.add("fk-one", id="one")
            about.memory.keys.add("fk-two", id="two", status=Status.BANNED)
            about.memory.keys.add("fk-off", id="off", status=Status.DISABLED)
            about.memory.keys.add("sk-other", id="other")
            assert await about.whole() == ("done", 3, 2, 0, 1)
            assert about.store.found() == {"one": (5, 20), "two": (7, 30)}
            assert Told("one", 5, Reading(5, 20, 10**12, 2 * 10**12)) in about.store.told
            assert about.store.totals == 1
            assert sorted(provider.balances_asked) == [(SUBSCRIPTION_USAGE, "fk-one"), (SUBSCRIPTION_USAGE, "fk-two")]

    asyncio.run(story())


def test_a_provider_that_has_the_older_endpoint_only_is_asked_there(provider: FakeProvider) -> None:
    async def story() -> None:
        async with bench(provider.url) as about:
            provider.plan("fk-one")
            provider.allowances["fk-one"] = Allowance(5, 20)
            provider.moved.add(SUBSCRIPTION_USAGE)
            about.memory.keys.add("fk-one", id="one")
            assert await about.whole() == ("done", 1, 1, 0, 0)
            assert about.store.found() == {"one": (5, 20)}
            provider.moved.add(CHAT_USAGE)
            assert await about.whole() == ("done", 1, 0, 1, 0)
            assert about.store.found() == {"one": "http_404"}

    asyncio.run(story())


def test_a_key_that_the_provider_does_not_know_is_a_failure_that_is_not_tried_elsewhere(provider: FakeProvider) -> None:
    async def story() -> None:
        async with bench(provider.url) as about:
            about.memory.keys.add("fk-one", id="one")
            assert await about.whole() == ("done", 1, 0, 1, 0)
            assert about.store.found() == {"one": "http_401"}
            assert provider.balances_asked == [(SUBSCRIPTION_USAGE, "fk-one")]

    asyncio.run(story())


@pytest.mark.parametrize(
    ("statuses", "expected", "asked"),
    [
        ([200], (3, None), 1),
        ([429, 503, 200], (3, None), 3),
        ([429], "http_429", 3),
        ([500], "http_500", 3),
        ([401], "http_401", 1),
        ([302], "http_302", 1),
    ],
)
def test_what_passes_is_asked_again(statuses: list[int], expected: Any, asked: int) -> None:
    async def story() -> None:
        async with own_upstream() as (about, upstream):
            about.memory.keys.add("sk-one", id="one")
            upstream.statuses["sk-one"] = statuses
            await about.whole()
            assert about.store.found() == {"one": expected}
            assert upstream.asked["sk-one"] == asked

    asyncio.run(story())


@asynccontextmanager
async def own_upstream(used: str = "/used", **options: Any) -> AsyncIterator[tuple[Bench, ModelsUpstream]]:
    """A query of the user's own, and the upstream that it leads to."""
    async with models_upstream() as upstream, bench("", **options) as about:
        upstream.document = {"used": 3}
        headers = {"authorization": "Bearer {key}"}
        about.settings(at_once=4, own=BalanceQuery(url=f"{upstream.url}/v1/models", headers=headers, used=used))
        yield about, upstream


def test_an_answer_without_a_figure_is_a_failure() -> None:
    async def story() -> None:
        async with own_upstream(used="/elsewhere") as (about, upstream):
            about.memory.keys.add("sk-one", id="one")
            upstream.statuses["sk-one"] = [200]
            await about.whole()
            assert about.store.found() == {"one": "no_figures"}

    asyncio.run(story())


def test_a_private_target_is_not_asked() -> None:
    async def story() -> None:
        async with own_upstream(allow_private_targets=False) as (about, upstream):
            about.memory.keys.add("sk-one", id="one")
            await about.whole()
            assert about.store.found() == {"one": "target_refused"}
            assert not upstream.asked

    asyncio.run(story())


def test_never_too_many_are_asked_at_once_and_answers_are_written_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_balances, "RECORDED_AT_ONCE", 5)

    async def story() -> None:
        async with own_upstream() as (about, upstream):
            for number in range(23):
                about.memory.keys.add(f"sk-{number}")
                upstream.statuses[f"sk-{number}"] = [200]
            upstream.pause_s = 0.005
            assert await about.whole() == ("done", 23, 23, 0, 0)
            assert upstream.most == 4
            assert len(about.store.found()) == len(about.store.told) == 23
            assert about.store.most == 5

    asyncio.run(story())


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


def test_it_can_be_cancelled_and_what_was_read_is_kept() -> None:
    async def story() -> None:
        async with own_upstream() as (about, upstream):
            for number in range(9):
                about.memory.keys.add(f"sk-{number}")
                upstream.statuses[f"sk-{number}"] = [200]
            upstream.gate, upstream.held = asyncio.Event(), {f"sk-{number}" for number in range(2, 9)}
            assert about.sync.progress().state == "idle"
            assert (await about.sync.cancel()).state == "idle"
            assert (await about.sync.start()).state == "running"
            with pytest.raises(SyncRunning):
                await about.sync.start()
            await until(lambda: about.sync.progress().success == 2 and upstream.running == 4)
            assert (await about.sync.cancel())[:5] == ("cancelled", 9, 2, 0, 0)
            upstream.gate.set()
            assert len(about.store.told) == 2
            assert about.store.totals == 1
            assert (await about.whole()) == ("done", 9, 9, 0, 0)

    asyncio.run(story())


def test_what_was_being_written_as_it_was_cancelled_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_balances, "RECORDED_AT_ONCE", 1)

    async def story() -> None:
        async with own_upstream() as (about, upstream):
            about.memory.keys.add("sk-one", id="one")
            upstream.statuses["sk-one"] = [200]
            record, writing = about.store.record, asyncio.Event()

            async def slow(told: Sequence[Told]) -> None:
                if not writing.is_set():
                    writing.set()
                    await asyncio.sleep(60)
                await record(told)

            about.store.record = slow  # type: ignore[method-assign]
            await about.sync.start()
            await writing.wait()
            assert (await about.sync.cancel()).state == "cancelled"
            assert about.store.found() == {"one": (3, None)}

    asyncio.run(story())


def test_who_cancels_it_again_waits_for_what_is_being_written() -> None:
    async def story() -> None:
        async with own_upstream() as (about, upstream):
            for name in ("one", "two"):
                about.memory.keys.add(f"sk-{name}", id=name)
                upstream.statuses[f"sk-{name}"] = [200]
            upstream.gate, upstream.held = asyncio.Event(), {"sk-two"}
            record, writing, written = about.store.record, asyncio.Event(), asyncio.Event()

            async def slow(told: Sequence[Told]) -> None:
                writing.set()
                await written.wait()
                await record(told)

            about.store.record = slow  # type: ignore[method-assign]
            await about.sync.start()
            await until(lambda: about.sync.progress().success == 1)
            first = asyncio.create_task(about.sync.cancel())
            await writing.wait()
            gone = asyncio.create_task(about.sync.cancel())
            again = asyncio.create_task(about.sync.cancel())
            await asyncio.sleep(0.01)
            gone.cancel()  # whoever asked no longer waits for the answer
            await asyncio.sleep(0.01)
            written.set()
            assert [(await first).state, (await again).state] == ["cancelled", "cancelled"]
            assert gone.cancelled()
            assert about.store.found() == {"one": (3, None)}
            upstream.gate.set()

    asyncio.run(story())


def test_a_key_of_a_group_that_there_is_not_is_one_of_default() -> None:
    async def story() -> None:
        async with own_upstream() as (about, upstream):
            about.memory.keys.add("sk-one", id="one", group="gone")
            upstream.statuses["sk-one"] = [200]
            query = about.memory.pool.settings.balance_queries["own"]
            about.settings(own=msgspec.structs.replace(query, pool_groups=("default",)))
            assert await about.whole() == ("done", 1, 1, 0, 0)

    asyncio.run(story())


def test_without_a_query_there_is_nothing_to_begin(provider: FakeProvider) -> None:
    async def story() -> None:
        async with bench(provider.url) as about:
            about.settings()
            about.memory.keys.add("fk-one")
            with pytest.raises(NoBalanceQuery):
                await about.sync.start()
            await about.sync.look()
            assert about.turns.asked == []

    asyncio.run(story())


def test_every_interval_one_of_all_begins_a_sync(provider: FakeProvider) -> None:
    async def story() -> None:
        async with bench(provider.url) as about:
            about.memory.keys.add("fk-one", id="one")
            about.settings(interval_s=None, factory=FACTORY)
            await about.sync.look()
            assert about.turns.asked == []
            about.settings(interval_s=60.0, factory=FACTORY)
            await about.sync.look()
            assert (await about.sync.ended()).state == "done"
            await about.sync.look()
            assert about.turns.asked == [60.0, 60.0]
            assert len(about.store.told) == 1, "another control plane has the turn"

    asyncio.run(story())


def test_a_key_deleted_meanwhile_and_one_that_cannot_be_decrypted_do_no_harm(provider: FakeProvider) -> None:
    async def story() -> None:
        async with bench(provider.url) as about:
            provider.plan("fk-three")
            for number in ("one", "two", "three"):
                about.memory.keys.add(f"fk-{number}", id=number)
            reveal = about.memory.keys.reveal

            async def odd(*, id: str) -> str:  # noqa: A002
                if id == "one":
                    await about.memory.keys.delete(id=id, actor="token")
                if id == "two":
                    raise SecretError("credential:two")
                return await reveal(id=id)

            about.memory.keys.reveal = odd  # type: ignore[method-assign]
            assert await about.whole() == ("done", 2, 1, 1, 0)
            assert about.store.found() == {"two": "undecryptable", "three": (0, 20_000_000)}

    asyncio.run(story())


def test_no_line_and_no_answer_has_a_secret(provider: FakeProvider, caplog: pytest.LogCaptureFixture) -> None:
    """The provider repeats the key in its refusal, and a failure has it in its text."""

    async def story() -> None:
        async with bench(provider.url) as about:
            about.memory.keys.add("fk-canary", id="one")
            await about.whole()
            assert "canary" not in repr(about.store.told)

            async def broken(**_: object) -> str:
                raise RuntimeError("fk-canary")

            about.memory.keys.reveal = broken  # type: ignore[method-assign]
            assert (await about.whole())[0] == "failed"

    with caplog.at_level(logging.DEBUG):
        asyncio.run(story())
    assert "canary" not in caplog.text
    told = [record.message for record in caplog.records if record.name == "relaygate"]
    assert told == ["balances: 0 read, 1 failed", "the sync of balances failed: RuntimeError"]
