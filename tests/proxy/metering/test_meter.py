"""A worker's requests and endings on their way to Redis: what joins, what is lost, and that all is counted once."""

import asyncio
import contextlib
import itertools
import random
import time
from collections import Counter as Tally
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from proxy.metering import meter as module
from proxy.metering.meter import BATCH_MAX, CLIENT_LEFT, SUCCESS, UNANSWERED, Ending, Meter
from proxy.rules.access_tokens import AccessToken, Action, Terms, Unit
from proxy.rules.batches import Admission, Answer, Asked, Batch, Verdict
from proxy.rules.metering import Books, ChangeRow, Counter, OutcomeRow, Token
from proxy.shared_state.breaker import Breaker, Guard
from proxy.shared_state.client import DEADLINE_S
from proxy.shared_state.keys import METER_TOKEN
from proxy.shared_state.ledger import Outcome, read
from proxy.shared_state.meter_store import MeterStore
from proxy.shared_state.tasks import end
from proxy.shared_state.unavailable import StoreUnavailable
from tests.proxy.shared_state.metering import counted, digest, guard_of, rows_of, tokens_of
from tests.redis_servers import EMBEDDED, connected, redis_at, until

D = digest(1)
TOKEN = AccessToken("tok_1", 3, Unit.REQUESTS)
NOW_MS = 1_763_700_000_000


def outcomes_in(row: bytes) -> list[Outcome]:
    return [each for each in read(b"\x91" + row + b"\0") if isinstance(each, Outcome)]


class Store:
    """Decides by the reference. `before` and `after` are what to do round a decision, each for one batch."""

    running: asyncio.Task[None]
    """The meter that asks."""

    def __init__(self) -> None:
        self.books = Books()
        self.batches: list[Batch] = []
        self.ended: list[int] = []
        """How many requests had ended, by batch."""
        self.before: list[Callable[[], Coroutine[object, object, None]]] = []
        self.after: list[Callable[[], Coroutine[object, object, None]]] = []
        self.add(D, TOKEN, Counter(10, 10, 1))

    def add(self, name: str, record: AccessToken, counter: Counter | None, terms: Terms | None = None) -> None:
        self.books.tokens[name] = Token(record, terms or Terms(), counter)

    async def decide(self, batch: Batch, digests: Sequence[str], outcomes: Sequence[bytes]) -> Answer:
        self.batches.append(batch)
        self.ended.append(len(outcomes_in(outcomes[0])) if outcomes[0] else 0)
        batch.now_ms = NOW_MS
        for step in self.before[:1]:
            del self.before[0]
            await step()
        answer = self.books.decide(batch, digests, outcomes)
        for step in self.after[:1]:
            del self.after[0]
            await step()
        await asyncio.sleep(0)
        return answer

    @property
    def changes(self) -> list[tuple[str, Action, int]]:
        rows = [row for row in self.books.rows if isinstance(row, ChangeRow)]
        return [(row.request_id, row.action, row.after - row.before) for row in rows]

    @property
    def outcomes(self) -> list[Outcome]:
        rows = [row.data for row in self.books.rows if isinstance(row, OutcomeRow)]
        return [outcome for row in rows for outcome in outcomes_in(row)]


def ended(request_id: str, ending: Ending, token: str = "tok_1") -> Outcome:
    return Outcome(token, request_id, *ending, 0)


def play(story: Callable[[Meter, Store], Coroutine[object, object, None]]) -> None:
    async def main() -> None:
        store = Store()
        meter = Meter(store, "w")
        store.running = asyncio.create_task(meter.run())
        await story(meter, store)
        await end(store.running)
        await meter.close()

    asyncio.run(main())


async def lose() -> None:
    raise StoreUnavailable("timeout")


async def refuse_to_ask() -> None:
    raise StoreUnavailable("open")


async def not_be_ready() -> None:
    raise StoreUnavailable("not_ready")


async def admitted(meter: Meter, request_id: str, cost: int = 1) -> Admission:
    answer = await meter.admit(Asked(D, TOKEN, cost, request_id))
    assert answer.verdict == Verdict.ADMITTED
    return answer


async def ask(meter: Meter, asked: Asked) -> Admission:
    return await meter.admit(asked)


async def settled(meter: Meter) -> None:
    async def nothing_waits() -> bool:
        return not meter.waiting

    await until(nothing_waits)


async def given_back(store: Store) -> bool:
    return any(action is Action.REFUND for _, action, _ in store.changes)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of a second are of ten milliseconds."""
    for name in ("RETRY_S", "BEAT_S", "SETTLE_S"):
        monkeypatch.setattr(module, name, 0.01)


def test_a_token_is_learned_and_then_asked_about_by_its_revision() -> None:
    async def story(meter: Meter, store: Store) -> None:
        assert meter.known(D) is None
        assert (await meter.admit(Asked(D, None, 1, "r"))).verdict == Verdict.STALE
        assert meter.known(D) == TOKEN
        asked = Asked(D, meter.known(D), 4, "r")
        answer = await meter.admit(asked)
        assert answer == Admission(Verdict.ADMITTED, 6, 10, asked=asked)
        meter.settle(answer, SUCCESS)
        store.books.tokens[D].record = AccessToken("tok_1", 4, Unit.REQUESTS, ("/openai",))
        assert (await meter.admit(Asked(D, meter.known(D), 1, "s"))).verdict == Verdict.STALE
        assert meter.known(D) == store.books.tokens[D].record
        del store.books.tokens[D]
        assert (await meter.admit(Asked(D, meter.known(D), 1, "s"))).verdict == Verdict.UNKNOWN
        assert meter.known(D) is None

    play(story)


def test_only_so_many_tokens_are_remembered_those_learned_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KNOWN_MAX", 2)

    async def story(meter: Meter, store: Store) -> None:
        for name in ("a", "b", "c"):
            store.add(name, TOKEN, None)
        await meter.admit(Asked("a", None, 1, "r"))
        await meter.admit(Asked("b", None, 1, "r"))
        await meter.admit(Asked("c", None, 1, "r"))
        assert [meter.known(name) is not None for name in ("a", "b", "c")] == [False, True, True]

    play(story)


def test_requests_of_one_turn_join_one_batch_and_those_that_come_meanwhile_the_next() -> None:
    async def story(meter: Meter, store: Store) -> None:
        later: list[asyncio.Task[Admission]] = []

        async def more() -> None:
            later.extend(asyncio.create_task(admitted(meter, f"later {at}")) for at in range(3))
            await asyncio.sleep(0)

        store.before = [more]
        first = await asyncio.gather(*(admitted(meter, f"first {at}") for at in range(4)))
        second = await asyncio.gather(*later)
        assert [len(batch.requests) for batch in store.batches] == [4, 3]
        assert [each.remaining for each in (*first, *second)] == [9, 8, 7, 6, 5, 4, 3]
        for each in (*first, *second):
            meter.settle(each, SUCCESS)
        await settled(meter)
        assert store.ended == [0, 0, 7]
        assert [batch.number for batch in store.batches] == [1, 2, 3]

    play(story)


def test_many_are_asked_about_in_batches_that_are_not_too_large() -> None:
    async def story(meter: Meter, store: Store) -> None:
        store.add(D, TOKEN, Counter(1000, 1000, 1))
        answers = await asyncio.gather(*(admitted(meter, f"{at}") for at in range(2 * BATCH_MAX + 1)))
        for each in answers:
            meter.settle(each, SUCCESS)
        await settled(meter)
        assert [len(batch.requests) for batch in store.batches if batch.requests] == [BATCH_MAX, BATCH_MAX, 1]
        assert [count for count in store.ended if count] == [BATCH_MAX, BATCH_MAX, 1]

    play(story)


def test_each_ending_has_its_rows() -> None:
    async def story(meter: Meter, store: Store) -> None:
        one, two, three = [await admitted(meter, name, 3) for name in ("one", "two", "three")]
        failed = Ending(False, "connect_refused", "nobody listens there", "unknown")
        meter.settle(one, SUCCESS)
        meter.settle(two, Ending(True, usage="exact"), used=5)
        meter.refund(three, failed)
        meter.replay(Asked(D, TOKEN, 2, "four"), SUCCESS)
        await settled(meter)
        assert store.changes[3:] == [
            ("two", Action.SETTLE, -2),
            ("three", Action.REFUND, 3),
            ("four", Action.CONSUME, -2),
        ]
        assert store.outcomes == [
            ended("one", SUCCESS),
            ended("two", Ending(True, usage="exact")),
            ended("three", failed),
            ended("four", SUCCESS),
        ]

    play(story)


def test_what_is_not_counted_has_no_rows() -> None:
    async def story(meter: Meter, store: Store) -> None:
        token = AccessToken("tok_2", 1)
        store.add("timed", token, None)
        answer = await meter.admit(Asked("timed", token, 1, "r"))
        assert (answer.verdict, answer.remaining) == (Verdict.ADMITTED, None)
        meter.settle(answer, SUCCESS)
        meter.replay(Asked("timed", token, 1, "s"), SUCCESS)
        assert not meter.waiting
        assert store.books.rows == []

    play(story)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("lost", ["on the way", "on the way back"])
def test_a_batch_without_an_answer_is_counted_once(lost: str) -> None:
    async def story(meter: Meter, store: Store) -> None:
        before = await admitted(meter, "before")
        (store.before if lost == "on the way" else store.after).append(lose)
        meter.settle(before, SUCCESS, used=3)
        with pytest.raises(StoreUnavailable, match="timeout"):
            await meter.admit(Asked(D, TOKEN, 1, "lost"))
        assert meter.waiting == 1
        store.before = [lose, lose]  # nor is it confirmed at once
        await settled(meter)
        taken = [("lost", Action.CONSUME, -1)] if lost == "on the way back" else []
        given_back = [("lost", Action.REFUND, 1)] if lost == "on the way back" else []
        settlement = [("before", Action.SETTLE, -2)]
        assert store.changes == [("before", Action.CONSUME, -1), *settlement, *taken, *given_back]
        assert store.outcomes == [ended("before", SUCCESS)] + [ended("lost", UNANSWERED)] * bool(taken)
        assert [(batch.number, batch.again) for batch in store.batches[1:]] == [(2, False)] + [(2, True)] * 3
        assert (await admitted(meter, "after")).remaining == 6

    play(story)


def test_of_a_lost_batch_nothing_runs_on_where_few_may_run_at_once(tmp_path: Path) -> None:
    """Redis stands still past the deadline, and decides the batch when nobody waits for it any more."""

    async def main(url: str) -> None:
        async with connected(url) as onlooker, connected(url, DEADLINE_S) as redis:
            other: Any = onlooker
            tokens = tokens_of(onlooker)
            await tokens.publish([counted(1, 100, terms=Terms(concurrent=1))])
            await tokens.set_ready()
            token = counted(1, 100).record
            store = MeterStore(redis, Guard(redis, Breaker(), DEADLINE_S))
            meter = Meter(store, "w")
            running = asyncio.create_task(meter.run())

            async def nothing_runs() -> bool:
                return not (meter._lost or meter._capped or await other.exists(METER_TOKEN + D + ":held"))

            meter.settle(await meter.admit(Asked(D, token, 1, "before")), SUCCESS)
            await until(nothing_runs)
            standing = asyncio.create_task(other.eval(STAND_STILL, 0))
            await asyncio.sleep(0)
            with pytest.raises(StoreUnavailable):
                await meter.admit(Asked(D, token, 1, "lost"))
            await standing
            await until(nothing_runs)
            await end(running)
            await meter.close()
            store.close()

    with redis_at(EMBEDDED, tmp_path) as url:
        asyncio.run(main(url))


@pytest.mark.usefixtures("quick")
def test_until_a_lost_batch_is_confirmed_requests_are_refused_and_endings_wait() -> None:
    async def story(meter: Meter, store: Store) -> None:
        one, two = await admitted(meter, "one"), await admitted(meter, "two")
        store.after = [lose]
        with pytest.raises(StoreUnavailable):
            await meter.admit(Asked(D, TOKEN, 1, "lost"))
        store.before = [refuse_to_ask]
        with pytest.raises(StoreUnavailable, match="open"):
            await meter.admit(Asked(D, TOKEN, 1, "too early"))
        meter.settle(one, SUCCESS)
        meter.refund(two, SUCCESS)
        await settled(meter)
        assert [(row[0], row[2]) for row in store.changes] == [
            ("one", -1),
            ("two", -1),
            ("lost", -1),
            ("lost", 1),
            ("two", 1),
        ]

    play(story)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("refuse", [refuse_to_ask, not_be_ready])
def test_what_was_certainly_not_decided_is_no_loss(refuse: Callable[[], Coroutine[object, object, None]]) -> None:
    async def story(meter: Meter, store: Store) -> None:
        one, two = await admitted(meter, "one"), await admitted(meter, "two")
        meter.refund(one, SUCCESS)
        meter.refund(two, SUCCESS)
        store.before = [refuse]
        with pytest.raises(StoreUnavailable):
            await meter.admit(Asked(D, TOKEN, 1, "refused"))
        await settled(meter)
        assert [batch.again for batch in store.batches] == [False] * len(store.batches)
        assert store.changes[2:] == [("one", Action.REFUND, 1), ("two", Action.REFUND, 1)]

    play(story)


@pytest.mark.usefixtures("quick")
def test_a_failure_that_nobody_thought_of_leaves_nobody_waiting(caplog: pytest.LogCaptureFixture) -> None:
    """Neither one of the call, nor one of what is made of its answer."""

    async def fail() -> None:
        raise ZeroDivisionError

    async def story(meter: Meter, store: Store) -> None:
        store.after = [fail]
        with pytest.raises(StoreUnavailable, match="failed"):
            await meter.admit(Asked(D, TOKEN, 1, "one"))

        async def confirmed() -> bool:
            return meter._lost is None

        await until(confirmed)
        decided = meter._decided
        meter._decided = lambda _call, _answer: 1 // 0  # type: ignore[method-assign,assignment]
        with pytest.raises(StoreUnavailable, match="failed"):
            await meter.admit(Asked(D, TOKEN, 1, "two"))
        meter._decided = decided  # type: ignore[method-assign]
        meter.settle(await admitted(meter, "three"), SUCCESS)
        assert ("one", Action.REFUND, 1) in store.changes
        assert store.changes[-1] == ("three", Action.CONSUME, -1)

    play(story)
    assert "a batch about access tokens failed" in caplog.text
    assert "what was decided about access tokens cannot be used" in caplog.text


def test_a_client_that_leaves_before_its_answer_gets_its_unit_back() -> None:
    async def story(meter: Meter, store: Store) -> None:
        task = asyncio.create_task(ask(meter, Asked(D, TOKEN, 1, "r")))

        async def leave() -> None:
            task.cancel()
            await asyncio.sleep(0)

        store.after = [leave]
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: given_back(store))
        assert store.changes == [("r", Action.CONSUME, -1), ("r", Action.REFUND, 1)]
        assert store.outcomes == [ended("r", CLIENT_LEFT)]

    play(story)


def test_a_client_that_leaves_as_its_answer_comes_has_it_first() -> None:
    """Or nobody would give its unit back."""

    async def story(meter: Meter, store: Store) -> None:
        answer = meter.admit(Asked(D, TOKEN, 1, "r"))
        seen = []

        async def ask() -> None:
            seen.append(await answer)
            await asyncio.sleep(60)

        task = asyncio.create_task(ask())
        await asyncio.sleep(0)
        found = meter._decided

        def leave(call: Any, answer: Answer) -> None:
            found(call, answer)
            task.cancel()

        meter._decided = leave  # type: ignore[method-assign]
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [each.verdict for each in seen] == [Verdict.ADMITTED]
        assert store.changes == [("r", Action.CONSUME, -1)]
        meter.refund(seen[0], CLIENT_LEFT)

    play(story)


def test_a_client_that_leaves_before_the_batch_is_made_is_not_asked_about() -> None:
    async def story(meter: Meter, store: Store) -> None:
        task = asyncio.create_task(ask(meter, Asked(D, TOKEN, 1, "r")))
        await asyncio.sleep(0)
        task.cancel()
        await admitted(meter, "other")
        assert [[each.request_id for each in batch.requests] for batch in store.batches if batch.requests] == [
            ["other"]
        ]

    play(story)


@pytest.mark.usefixtures("quick")
def test_running_requests_that_are_bounded_are_told_of_for_as_long_as_they_run() -> None:
    async def story(meter: Meter, store: Store) -> None:
        token = AccessToken("tok_2", 1)
        store.add("capped", token, None, Terms(concurrent=2))
        first, second, third = [await meter.admit(Asked("capped", token, 1, "r")) for _ in range(3)]
        assert [each.verdict for each in (first, second, third)] == [0, 0, Verdict.CONCURRENT]
        store.books.tokens["capped"].held.clear()  # as when Redis has lost it

        async def told(running: int) -> bool:
            return store.books.tokens["capped"].held == {"w": running}

        await until(lambda: told(2))
        meter.settle(first, SUCCESS)
        await until(lambda: told(1))
        store.before = [lose, refuse_to_ask]
        meter.settle(second, SUCCESS)
        await until(lambda: told(0))

        async def nothing_to_tell() -> bool:
            return not meter._capped and not meter._untold

        await until(nothing_to_tell)

    play(story)


def test_of_too_many_endings_the_newest_are_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "SETTLEMENTS_MAX", 2)

    async def story(meter: Meter, store: Store) -> None:
        answers = [await admitted(meter, name) for name in ("a", "b", "c", "d")]
        for each in answers:
            meter.refund(each, SUCCESS)
        assert (meter.waiting, meter.dropped) == (2, 2)
        await settled(meter)
        assert [row[0] for row in store.changes[4:]] == ["a", "b"]

    play(story)
    assert caplog.text.count("away for too long") == 1


def test_closing_sends_what_is_left_and_refuses_what_comes() -> None:
    async def story(meter: Meter, store: Store) -> None:
        answer = await admitted(meter, "r")
        store.before = [lambda: asyncio.sleep(60)]
        waiting = asyncio.create_task(ask(meter, Asked(D, TOKEN, 1, "under way")))

        async def under_way() -> bool:
            return len(store.batches) == 2

        await until(under_way)
        late = asyncio.create_task(ask(meter, Asked(D, TOKEN, 1, "behind")))
        await asyncio.sleep(0)
        await end(store.running)
        for each in (waiting, late, ask(meter, Asked(D, TOKEN, 1, "after"))):
            with pytest.raises(StoreUnavailable, match="closed"):
                await each
        meter.refund(answer, SUCCESS)
        await meter.close()
        assert store.changes == [("r", Action.CONSUME, -1), ("r", Action.REFUND, 1)]
        assert not meter.waiting

    play(story)


def test_closing_without_redis_ends_soon_and_says_what_is_not_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "FINISH_S", 0.1)

    async def story(meter: Meter, store: Store) -> None:
        meter.refund(await admitted(meter, "r"), SUCCESS)
        store.before = [lose] * 100

    play(story)
    assert "how 1 requests with access tokens ended" in caplog.text


class Unreliable:
    """Loses some batches on their way, and some answers. A lost batch may still arrive later."""

    def __init__(self, store: MeterStore, chance: random.Random) -> None:
        self._store = store
        self._chance = chance
        self.late: list[asyncio.Task[object]] = []
        self.lost = 0
        self.reliable = False

    async def decide(self, batch: Batch, digests: Sequence[str], outcomes: Sequence[bytes]) -> Answer:
        fate = 0.0 if self.reliable else self._chance.random()
        if fate < 0.6:
            return await self._store.decide(batch, digests, outcomes)
        self.lost += 1
        if fate < 0.75:
            self.late.append(asyncio.create_task(self._arrive_late(batch, digests, outcomes)))
        elif fate < 0.9:
            await self._store.decide(batch, digests, outcomes)
        raise StoreUnavailable("timeout")

    async def _arrive_late(self, batch: Batch, digests: Sequence[str], outcomes: Sequence[bytes]) -> None:
        await asyncio.sleep(self._chance.random() / 50)
        with contextlib.suppress(StoreUnavailable):  # where it was sent again in the meantime
            await self._store.decide(batch, digests, outcomes)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_lost_each_unit_is_accounted_for(tmp_path: Path, seed: int) -> None:
    """On a real server: 400 requests of three workers, of which two in five batches are lost, for a quota of 250."""
    chance = random.Random(seed)
    used: dict[str, int] = {}
    refused = Tally[str]()

    async def client(meter: Meter, name: str) -> None:
        await asyncio.sleep(chance.random() / 5)
        token = counted(1, 250).record
        try:
            answer = await meter.admit(Asked(D, token, 1, name))
        except StoreUnavailable:
            refused["unavailable"] += 1
            return
        if answer.verdict != Verdict.ADMITTED:
            assert answer.verdict == Verdict.QUOTA
            refused["quota"] += 1
            return
        await asyncio.sleep(chance.random() / 20)
        if chance.random() < 0.3:
            meter.refund(answer, CLIENT_LEFT)
            used[name] = 0
        else:
            used[name] = chance.choice([0, 1, 1, 2])
            meter.settle(answer, SUCCESS, used[name])

    async def main(url: str) -> None:
        async with connected(url) as redis:
            tokens = tokens_of(redis)
            await tokens.publish([counted(1, 250)])
            await tokens.set_ready()
            own = [MeterStore(redis, guard_of(redis)) for _ in range(3)]
            stores = [Unreliable(store, chance) for store in own]
            meters = [Meter(store, f"w{at}") for at, store in enumerate(stores)]
            running = [asyncio.create_task(meter.run()) for meter in meters]
            await asyncio.gather(*(client(meters[at % 3], f"r{at}") for at in range(400)))
            for meter, task, store in zip(meters, running, stores, strict=True):
                await end(task)
                store.reliable = True
                await meter.close()
                assert not meter.waiting
                await asyncio.gather(*store.late)
                assert store.lost
            for each in own:
                each.close()
            [counter] = await tokens.counters([D])
            rows = await rows_of(redis)
        net, outcomes, remaining = Tally[str](), Tally[str](), 250
        for row in rows:
            if isinstance(row, Outcome):
                outcomes[row.request_id] += 1
            else:
                assert row.before == remaining
                remaining = row.after
                net[row.request_id] -= row.after - row.before
        assert counter is not None
        assert counter.remaining == remaining == 250 - sum(used.values())
        assert {name: net[name] for name in used} == used
        assert not any(count for name, count in net.items() if name not in used)
        assert set(outcomes.values()) == {1}
        assert outcomes.keys() == net.keys()
        assert refused["unavailable"]

    with redis_at(EMBEDDED, tmp_path) as url:
        asyncio.run(main(url))


STAND_STILL = """
local function now() local time = redis.call('TIME') return time[1] * 1000 + time[2] / 1000 end
local began = now()
while now() < began + 400 do end
"""


@pytest.mark.usefixtures("quick")
def test_a_redis_that_stands_still_decides_late_and_nothing_twice(tmp_path: Path) -> None:
    """It reads what was sent to it only after the worker has given up, and closed that connection."""

    served: list[str] = []

    async def ask(meter: Meter, name: str) -> None:
        with contextlib.suppress(StoreUnavailable):
            meter.settle(await meter.admit(Asked(D, counted(1, 100).record, 1, name)), SUCCESS)
            served.append(name)

    async def main(url: str) -> None:
        async with connected(url) as onlooker, connected(url, DEADLINE_S) as redis:
            other: Any = onlooker
            tokens = tokens_of(onlooker)
            await tokens.publish([counted(1, 100)])
            await tokens.set_ready()
            store = MeterStore(redis, Guard(redis, Breaker(), DEADLINE_S))
            meter = Meter(store, "w")
            running = asyncio.create_task(meter.run())
            await ask(meter, "first")
            for number in range(3):
                standing = asyncio.create_task(other.eval(STAND_STILL, 0))
                await asyncio.sleep(0)
                await asyncio.gather(*(ask(meter, f"{number} {at}") for at in range(5)))
                await standing

                async def confirmed() -> bool:
                    return meter._lost is None

                await until(confirmed)
            await end(running)
            await meter.close()
            store.close()
            rows = [row for row in await rows_of(onlooker) if not isinstance(row, Outcome)]
            [counter] = await tokens.counters([D])
        assert counter is not None
        assert counter.remaining == 100 - len(served)
        given_back = Tally(row.request_id for row in rows if row.action is Action.REFUND)
        taken = Tally(row.request_id for row in rows if row.action is Action.CONSUME)
        assert taken - given_back == Tally(served)
        assert {*taken.values(), *given_back.values()} == {1}
        assert given_back

    with redis_at(EMBEDDED, tmp_path) as url:
        asyncio.run(main(url))


def test_two_workers_keep_a_rate_by_the_clock(tmp_path: Path) -> None:
    """As many requests as they can make for three seconds, of which 20 a second are allowed."""

    async def ask(meter: Meter, end_s: float, name: str) -> None:
        token = counted(1, 10_000).record
        for number in itertools.count():
            answer = await meter.admit(Asked(D, token, 1, f"{name} {number}"))
            if answer.verdict == Verdict.ADMITTED:
                meter.settle(answer, SUCCESS)
            elif time.monotonic() + answer.retry_ms / 1000 > end_s:
                return
            else:
                assert answer.verdict == Verdict.PER_SECOND
                await asyncio.sleep(answer.retry_ms / 1000)

    async def main(url: str) -> list[int]:
        async with connected(url) as redis:
            tokens = tokens_of(redis)
            await tokens.publish([counted(1, 10_000, terms=Terms(per_second=20))])
            await tokens.set_ready()
            stores = [MeterStore(redis, guard_of(redis)) for _ in range(2)]
            meters = [Meter(store, f"w{at}") for at, store in enumerate(stores)]
            running = [asyncio.create_task(meter.run()) for meter in meters]
            end_s = time.monotonic() + 3
            await asyncio.gather(*(ask(meters[at % 2], end_s, f"{at}") for at in range(6)))
            for meter, task, store in zip(meters, running, stores, strict=True):
                await end(task)
                await meter.close()
                store.close()
            return [row.at_ms for row in await rows_of(redis) if not isinstance(row, Outcome)]

    with redis_at(EMBEDDED, tmp_path) as url:
        times_ms = asyncio.run(main(url))
    assert len(times_ms) > 20
    for first_ms, later_ms in zip(times_ms, times_ms[20:], strict=False):
        assert later_ms - first_ms >= 1000
