"""The script that decides batches, on real servers: the same answers, state and rows as `rules/metering.py`."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.processes import free_port
from proxy.rules.access_tokens import AMOUNT_MAX, AccessToken, Action, State, Terms, Unit
from proxy.rules.batches import Admission, Answer, Batch, Part, Request, Settlement, Verdict, Withdrawal
from proxy.rules.metering import Books, ChangeRow, Counter, OutcomeRow, Superseded, Token
from proxy.shared_state import ledger
from proxy.shared_state.breaker import StoreUnavailable
from proxy.shared_state.client import connect
from proxy.shared_state.keys import METER_LEDGER, METER_READY, METER_WORKERS
from proxy.shared_state.ledger import Ended, Outcome, Outcomes, without_time
from proxy.shared_state.meter_store import MeterStore
from proxy.shared_state.token_store import PublishedToken, TokenStore, held_key_of, key_of, rate_key_of
from tests.proxy.shared_state.metering import NOW_MS, counted, digest, guard_of, rows_of, timed
from tests.redis_servers import EMBEDDED, cluster, connected, redis_at, server

DAY_MS = 86_400_000


@pytest.fixture(scope="module", name="url")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of this module's own: the keys have fixed names."""
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


class Redis:
    """A server with tokens in it, and what a worker has of it."""

    def __init__(self, client: Any, onlooker: Any) -> None:
        self.onlooker = onlooker
        self.store = MeterStore(client, guard_of(client))
        self.tokens = TokenStore(client, guard_of(client))

    async def fill(self, *tokens: PublishedToken) -> None:
        await self.tokens.publish(tokens)
        await self.tokens.set_ready()


def play(url: str, story: Callable[[Redis], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with connected(url) as onlooker, connected(url) as client:
            if "cluster" not in url:
                await onlooker.flushall()
            redis = Redis(client, onlooker)
            with contextlib.closing(redis.store):
                await story(redis)

    asyncio.run(main())


def outcome(*request_ids: str, token: str = "tok_1") -> bytes:
    """That of one request is told as it is, that of several together."""
    ended = [Ended(token, request_id, True, "", "", "exact") for request_id in request_ids]
    if len(ended) > 1:
        return without_time(Outcomes(ended, 0))
    return without_time(ledger.outcome(ended[0], 0))


def asks(number: int, *requests: Request, worker: str = "w", now_ms: int = NOW_MS, parts: int = 1) -> Batch:
    return Batch(worker, number, False, now_ms, [Part(0, False)] * parts, [], list(requests))


class Both:
    """The same history told to Redis and to the reference."""

    def __init__(self, redis: Redis, published: list[PublishedToken]) -> None:
        self.redis = redis
        self.books = Books()
        self.published = published
        self.now_ms = NOW_MS
        self.last: dict[str, tuple[Batch, list[str]]] = {}

    async def begin(self) -> None:
        await self.redis.fill(*self.published)
        for each in self.published:
            self.books.tokens[each.digest] = Token(each.record, each.terms, each.counter)

    async def edit(self, at: int, terms: Terms) -> None:
        token = self.books.tokens[self.published[at].digest]
        token.terms = terms
        token.record = msgspec.structs.replace(token.record, revision=token.record.revision + 1)
        await self.redis.tokens.publish([PublishedToken(self.published[at].digest, token.record, terms, token.counter)])

    async def decide(self, batch: Batch, digests: list[str]) -> None:
        self.last[batch.worker] = batch, digests
        ended = [each.request_id for each in batch.settlements]
        outcomes = [outcome(*ended) if ended else b"", *[outcome(each.request_id) for each in batch.withdrawals]]
        expected: Answer | None = None
        try:
            expected = self.books.decide(batch, digests, outcomes)
        except Superseded:
            with pytest.raises(StoreUnavailable, match="refused"):
                await self.redis.store.decide(batch, digests, outcomes)
        else:
            assert await self.redis.store.decide(batch, digests, outcomes) == expected

    async def check(self) -> None:
        digests = [each.digest for each in self.published]
        assert await self.redis.tokens.counters(digests) == [self.books.tokens[each].counter for each in digests]
        expected = itertools.chain.from_iterable(map(ledger_rows, self.books.rows))
        assert await rows_of(self.redis.onlooker) == list(expected)


def ledger_rows(row: ChangeRow | OutcomeRow) -> list[ledger.Row]:
    if isinstance(row, ChangeRow):
        return [ledger.Change(*row)]
    return ledger.read(b"\x91" + row.data + msgspec.msgpack.encode(row.at_ms))


TERMS = st.builds(
    Terms,
    state=st.sampled_from([*[State.ACTIVE] * 8, State.DISABLED, State.DELETED]),
    expires_ms=st.sampled_from([0, 0, 0, NOW_MS + 5_000]),
    per_minute=st.sampled_from([0, 1, 3, 10]),
    per_second=st.sampled_from([0, 0, 1, 2, 5]),
    concurrent=st.sampled_from([0, 0, 1, 3]),
)
COUNTERS = st.one_of(
    st.none(),
    st.builds(Counter, st.sampled_from([-1, 0, 1, 5, 40, AMOUNT_MAX]), st.sampled_from([1, AMOUNT_MAX]), st.just(1)),
)
PAUSES = st.sampled_from([0, 0, 1, 40, 100, 950, 1_000, 7_000, 16_000, 59_999, 61_000, 200_000, -300, -2_000, -70_000])
WORKERS = st.sampled_from(["one", "two", "three"])
AMOUNTS = st.one_of(st.integers(-5, 5), st.sampled_from([AMOUNT_MAX, -AMOUNT_MAX]))


@st.composite
def batches(draw: st.DrawFn, worker: str, number: int, now_ms: int, revisions: list[int]) -> Batch:
    """A batch about tokens of these revisions, and one that there is not."""
    places = st.integers(0, len(revisions))
    parts = [Part(draw(st.integers(0, 2)), True) for _ in range(len(revisions) + 1)]
    settlements = [
        Settlement(draw(places), draw(AMOUNTS), draw(st.sampled_from(list(Action)[1:4])), f"s{number}-{at}")
        for at in range(draw(st.integers(0, 3)))
    ]
    requests = []
    for at in range(draw(st.integers(0, 5))):
        place = draw(places)
        known = revisions[place] if place < len(revisions) else 0
        revision = draw(st.sampled_from([known] * 9 + [0]))
        requests.append(Request(place, revision, draw(st.sampled_from([0, 1, 1, 1, 3, AMOUNT_MAX])), f"r{number}-{at}"))
    return Batch(worker, number, False, now_ms, parts, settlements, requests)


@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_random_histories_are_decided_as_the_reference_decides_them(url: str, data: st.DataObject) -> None:
    async def story(redis: Redis) -> None:
        published = [
            PublishedToken(digest(at), AccessToken(f"tok_{at}", 1, unit), data.draw(TERMS), counter)
            for at in range(data.draw(st.integers(1, 3)))
            for counter in [data.draw(COUNTERS)]
            for unit in [None if counter is None else Unit.TOKENS]
        ]
        both = Both(redis, published)
        await both.begin()
        digests = [each.digest for each in published] + [digest(9)]
        for _ in range(data.draw(st.integers(1, 25))):
            both.now_ms += data.draw(PAUSES)
            worker = data.draw(WORKERS)
            last, _admitted = both.books.decided.get(worker, (0, []))
            match data.draw(st.sampled_from(["ask"] * 12 + ["edit", "again", "again", "late"])):
                case "edit":
                    await both.edit(data.draw(st.integers(0, len(published) - 1)), data.draw(TERMS))
                case "again" if worker in both.last:
                    before, same = both.last[worker]
                    withdrawals = [Withdrawal(each.place, each.cost, each.request_id) for each in before.requests]
                    number = before.number + data.draw(st.integers(0, 1))
                    changes: dict[str, Any] = {"again": True, "requests": [], "withdrawals": withdrawals}
                    await both.decide(
                        msgspec.structs.replace(before, number=number, now_ms=both.now_ms, **changes), same
                    )
                case "late" if worker in both.last:
                    before, same = both.last[worker]
                    number = max(1, last - data.draw(st.integers(0, 1)))
                    await both.decide(msgspec.structs.replace(before, number=number, again=False), same)
                case _:
                    revisions = [both.books.tokens[each.digest].record.revision for each in published]
                    await both.decide(data.draw(batches(worker, last + 1, both.now_ms, revisions)), digests)
        await both.check()

    play(url, story)


async def a_quota_is_shared(redis: Redis) -> None:
    await redis.fill(counted(1, 3, terms=Terms(per_minute=9, per_second=9, concurrent=9)), timed(2))
    requests = [Request(at % 2, 1, 1, f"r{at}") for at in range(8)]
    told = await redis.store.decide(asks(1, *requests, parts=2), [digest(1), digest(2)], [b""])
    assert [each.verdict for each in told.admissions] == [0, 0, 0, 0, 0, 0, Verdict.QUOTA, 0]
    assert told.admissions[0] == Admission(0, 2, 3, 9, 8, 60_000 + 1_000 - NOW_MS % 1_000, 0, 9, 1)
    assert told.admissions[1] == Admission(Verdict.ADMITTED)
    settled = Batch("w", 2, False, NOW_MS + 5, [Part(0, True)], [Settlement(0, 1, Action.REFUND, "r0")])
    assert await redis.store.decide(settled, [digest(1)], [outcome("r0")]) == Answer([], [])
    assert await rows_of(redis.onlooker) == [
        ledger.Change("tok_1", 2, Action.CONSUME, 3, 2, 3, "r0", NOW_MS),
        ledger.Change("tok_1", 3, Action.CONSUME, 2, 1, 3, "r2", NOW_MS),
        ledger.Change("tok_1", 4, Action.CONSUME, 1, 0, 3, "r4", NOW_MS),
        ledger.Change("tok_1", 5, Action.REFUND, 0, 1, 3, "r0", NOW_MS + 5),
        ledger.Outcome("tok_1", "r0", True, "", "", "exact", NOW_MS + 5),
    ]
    assert await redis.onlooker.xlen(METER_LEDGER) == 2
    assert not await redis.onlooker.exists(held_key_of(digest(1)))


def test_a_quota(url: str) -> None:
    play(url, a_quota_is_shared)


def test_the_same_in_a_cluster(tmp_path: Path) -> None:
    with cluster(tmp_path) as ports:
        play(f"redis+cluster://127.0.0.1:{ports[0]}", a_quota_is_shared)


def test_before_all_tokens_are_there_nothing_is_decided(url: str) -> None:
    async def story(redis: Redis) -> None:
        await redis.tokens.publish([counted(1, 3)])
        batch = Batch("w", 1, False, 0, [Part(0, False)], [Settlement(0, -1, Action.SETTLE, "s")], [])
        with pytest.raises(StoreUnavailable, match="not_ready"):
            await redis.store.decide(batch, [digest(1)], [outcome("s")])
        assert not await redis.onlooker.exists(METER_WORKERS)
        await redis.tokens.set_ready()
        await redis.store.decide(batch, [digest(1)], [outcome("s")])
        assert len(await rows_of(redis.onlooker)) == 2
        await redis.onlooker.delete(METER_READY)
        with pytest.raises(StoreUnavailable, match="not_ready"):
            await redis.store.decide(asks(2), [digest(1)], [b""])

    play(url, story)


def test_redis_says_what_time_it_is(url: str) -> None:
    async def story(redis: Redis) -> None:
        await redis.fill(counted(1, 3))
        await redis.store.decide(asks(1, Request(0, 1, 1, "r"), now_ms=0), [digest(1)], [b""])
        [row] = await rows_of(redis.onlooker)
        seconds, micros = await redis.onlooker.time()
        assert 0 <= seconds * 1000 + micros // 1000 - row.at_ms < 60_000

    play(url, story)


def test_what_redis_refuses_changes_nothing(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """The ledger is of another type, so its row cannot be written; neither is the counter then."""

    async def story(redis: Redis) -> None:
        await redis.fill(counted(1, 3, terms=Terms(per_minute=5, concurrent=5)))
        await redis.onlooker.set(METER_LEDGER, "no stream")
        batch = asks(1, Request(0, 1, 1, "r"))
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="refused"):
                await redis.store.decide(batch, [digest(1)], [b""])
        assert await redis.tokens.counters([digest(1)]) == [Counter(3, 3, 1)]
        names = (METER_WORKERS, rate_key_of(digest(1)), held_key_of(digest(1)))
        assert [await redis.onlooker.exists(name) for name in names] == [0, 0, 0]
        await redis.onlooker.delete(METER_LEDGER)
        assert (await redis.store.decide(batch, [digest(1)], [b""])).admissions[0].verdict == Verdict.ADMITTED

    play(url, story)
    assert caplog.text.count("redis does not decide about access tokens: ") == 1


def test_without_memory_nothing_changes(tmp_path: Path) -> None:
    async def story(redis: Redis) -> None:
        await redis.fill(counted(1, 3))
        await redis.onlooker.config_set("maxmemory", 1)
        with pytest.raises(StoreUnavailable):
            await redis.store.decide(asks(1, Request(0, 1, 1, "r")), [digest(1)], [b""])
        await redis.onlooker.config_set("maxmemory", 0)
        assert await redis.tokens.counters([digest(1)]) == [Counter(3, 3, 1)]
        assert await rows_of(redis.onlooker) == []

    with server(tmp_path, "--maxmemory-policy", "noeviction") as port:
        play(f"redis://127.0.0.1:{port}", story)


def test_a_record_that_this_version_cannot_read_is_no_answer(url: str) -> None:
    async def story(redis: Redis) -> None:
        await redis.fill(counted(1, 3))
        await redis.onlooker.hset(key_of(digest(1)), "record", b"\xffgarbage")
        with pytest.raises(StoreUnavailable, match="refused"):
            await redis.store.decide(asks(1, Request(0, 0, 1, "r")), [digest(1)], [b""])

    play(url, story)


def test_workers_that_were_silent_for_a_day_are_forgotten_by_the_next_new_one(url: str) -> None:
    async def story(redis: Redis) -> None:
        await redis.fill()
        for name, now_ms in (("old", NOW_MS), ("young", NOW_MS + 2), ("new", NOW_MS + DAY_MS + 1)):
            await redis.store.decide(asks(1, worker=name, now_ms=now_ms, parts=0), [], [b""])
        assert sorted(await redis.onlooker.hkeys(METER_WORKERS)) == [b"new", b"new:call", b"young", b"young:call"]

    play(url, story)


def test_windows_of_tokens_that_nobody_uses_do_not_stay(url: str) -> None:
    async def story(redis: Redis) -> None:
        await redis.fill(counted(1, 3, terms=Terms(per_minute=5)))
        await redis.store.decide(asks(1, Request(0, 1, 1, "r")), [digest(1)], [b""])
        assert 61_000 < await redis.onlooker.pttl(rate_key_of(digest(1))) <= 120_000

    play(url, story)


def test_ids_and_messages_of_any_length_and_text(url: str) -> None:
    async def story(redis: Redis) -> None:
        await redis.fill(counted(1, 3))
        name = "ä\0" * 100
        batch = Batch("w", 1, False, NOW_MS, [Part(0, False)], [Settlement(0, 2, Action.REFUND, name)])
        said = Outcome("tok_1", name, False, "type", "€" * 500, "unknown", 0)
        await redis.store.decide(batch, [digest(1)], [without_time(said)])
        assert await rows_of(redis.onlooker) == [
            ledger.Change("tok_1", 2, Action.REFUND, 3, 5, 3, name, NOW_MS),
            msgspec.structs.replace(said, at_ms=NOW_MS),
        ]

    play(url, story)


def test_without_redis() -> None:
    async def main() -> None:
        client = connect(f"redis://127.0.0.1:{free_port()}")
        with pytest.raises(StoreUnavailable, match="connection"):
            await MeterStore(client, guard_of(client)).decide(asks(1), [digest(1)], [b""])
        await client.aclose()

    asyncio.run(main())
