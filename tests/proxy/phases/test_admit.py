"""Who is let in with an access token, what that costs it, and how it ends. Redis's decisions are the reference's."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from proxy.config import AccessSettings, Config, ModelPrice, Prices
from proxy.errors import (
    CONNECT_REFUSED,
    NO_PRICE,
    NO_TOKEN,
    NOT_FOR_MODEL,
    NOT_FOR_ROUTE,
    NOT_METERED,
    QUOTA_EXCEEDED,
    RATE_LIMITED,
    TOKEN_DISABLED,
    TOKEN_EXPIRED,
    TOO_MANY_AT_ONCE,
    WRONG_TOKEN,
    WRONG_TOKENS,
    Cause,
    RelayError,
)
from proxy.exchange import Exchange
from proxy.metering.gate import Gate
from proxy.phases.account import settle
from proxy.phases.admit import KEPT_BYTES_MAX, USED_UP_RETRY_S, admit, count
from proxy.phases.route import route
from proxy.rules.access_tokens import AccessToken, Action, OnStoreOutage, State, Terms, Unit, digest_of
from proxy.rules.batches import Answer, Batch
from proxy.rules.headers import Header
from proxy.rules.metering import Books, ChangeRow, Counter, OutcomeRow, Token
from proxy.rules.prices import table
from proxy.shared_state.unavailable import StoreUnavailable
from tests.proxy.asgi import Client, snapshot_of

SECRET = b"flow_secret"
DIGEST = digest_of(SECRET)
SHOWN: Header = (b"authorization", b"Bearer " + SECRET)
NOW_MS = 1_700_000_000_000
NO_BOUNDS = Terms()
PIECE_BYTES = 512 * 1024
SETTINGS = AccessSettings()


async def let_in(exchange: Exchange, gate: Gate) -> None:
    if digest := admit(exchange, gate):
        await count(exchange, gate, digest)


@dataclass
class Redis:
    """Decides by the reference, unless it is away."""

    books: Books = field(default_factory=Books)
    away: bool = False
    calls: int = 0

    async def decide(self, batch: Batch, digests: Sequence[str], outcomes: Sequence[bytes]) -> Answer:
        self.calls += 1
        await asyncio.sleep(0)
        if self.away:
            raise StoreUnavailable("open")
        batch.now_ms = NOW_MS
        return self.books.decide(batch, digests, outcomes)

    def put(self, token: AccessToken, terms: Terms = NO_BOUNDS, remaining: int | None = 10) -> Token:
        counter = None if remaining is None else Counter(remaining, remaining, 1)
        found = self.books.tokens[DIGEST] = Token(token, terms, counter)
        return found

    @property
    def outcomes(self) -> int:
        return sum(isinstance(row, OutcomeRow) for row in self.books.rows)

    @property
    def changes(self) -> list[tuple[Action, int]]:
        return [(row.action, row.after - row.before) for row in self.books.rows if isinstance(row, ChangeRow)]


@dataclass
class Play:
    redis: Redis
    gate: Gate

    def exchange(self, *fields: Header, body: bytes = b"", path: bytes = b"/up/v1") -> tuple[Exchange, Client]:
        client = Client()
        if body:
            for start in range(0, len(body), PIECE_BYTES):
                client.put(body[start : start + PIECE_BYTES], more=start + PIECE_BYTES < len(body))
            fields = (*fields, (b"content-length", b"%d" % len(body)))
        exchange = client.exchange(path=path, headers=fields, method="POST")
        route(exchange, snapshot_of(gate=self.gate, target="http://api.openai.com", access="token"))
        return exchange, client

    async def let_in(self, *fields: Header, body: bytes = b"") -> Exchange:
        exchange, _ = self.exchange(*(fields or (SHOWN,)), body=body)
        await let_in(exchange, self.gate)
        return exchange

    async def refused(self, *fields: Header, body: bytes = b"") -> tuple[Cause, Exchange]:
        exchange, _ = self.exchange(*(fields or (SHOWN,)), body=body)
        with pytest.raises(RelayError) as caught:
            await let_in(exchange, self.gate)
        assert exchange.meter is None
        return caught.value.cause, exchange

    async def settled(self, exchange: Exchange) -> None:
        assert exchange.meter is not None
        settle(exchange, exchange.meter)
        told = self.redis.outcomes
        while self.redis.outcomes == told:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


def play(story: Callable[[Play], Awaitable[None]], settings: AccessSettings = SETTINGS) -> None:
    async def main() -> None:
        redis, gate = Redis(), Gate()
        gate.use(Config(access=settings))
        async with running(gate, redis), asyncio.timeout(10):
            await story(Play(redis, gate))

    asyncio.run(main())


@contextlib.asynccontextmanager
async def running(gate: Gate, redis: Redis) -> AsyncIterator[None]:
    task = asyncio.create_task(gate.share(redis, "worker").run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def token(revision: int = 1, unit: Unit | None = Unit.REQUESTS, **bounds: object) -> AccessToken:
    return AccessToken("tok_1", revision, unit, **bounds)  # type: ignore[arg-type]


def test_an_admitted_request_is_counted_and_its_token_stays_here() -> None:
    async def story(stage: Play) -> None:
        stage.redis.put(token())
        exchange = await stage.let_in(SHOWN, (b"x-mine", b"1"))
        assert exchange.head.crossing() == [(b"x-mine", b"1")]
        exchange.was_sent, exchange.status = True, 200
        await stage.settled(exchange)
        assert stage.redis.changes == [(Action.CONSUME, -1)]

    play(story)


def test_a_known_token_costs_one_question() -> None:
    async def story(stage: Play) -> None:
        stage.redis.put(token())
        await stage.let_in()
        asked = stage.redis.calls
        await stage.let_in()
        assert (asked, stage.redis.calls) == (2, 3)

    play(story)


@pytest.mark.parametrize("fields", [((b"x-mine", b"1"),), ((b"authorization", b"Basic dTpw"),)])
def test_who_shows_none_is_told_so(fields: tuple[Header, ...]) -> None:
    async def story(stage: Play) -> None:
        assert (await stage.refused(*fields))[0] is NO_TOKEN
        assert stage.redis.calls == 0

    play(story)


def test_an_address_that_guesses_is_refused_unless_it_shows_a_token_that_is_known() -> None:
    async def story(stage: Play) -> None:
        stage.redis.put(token())
        await stage.let_in()
        for number in range(3):
            assert (await stage.refused((b"x-api-key", b"wrong-%d" % number)))[0] is WRONG_TOKEN
        asked = stage.redis.calls
        cause, exchange = await stage.refused((b"x-api-key", b"wrong-4"))
        assert cause is WRONG_TOKENS
        assert 0 < exchange.retry_after_s <= 61
        assert stage.redis.calls == asked
        await stage.let_in()

    play(story, AccessSettings(wrong_tokens_max=3))


def test_without_redis_named_every_token_is_wrong_but_that_of_the_settings() -> None:
    async def main() -> None:
        gate = Gate()
        gate.use(Config(access=AccessSettings(api_key=SECRET.decode())))
        stage = Play(Redis(), gate)
        exchange = await stage.let_in()
        assert exchange.meter is None
        assert (await stage.refused((b"x-api-key", b"other")))[0] is WRONG_TOKEN

    asyncio.run(main())


@pytest.mark.parametrize("bounds", [{"routes": ("/other",)}, {"networks": ("10.0.0.0/8",)}], ids=["routes", "networks"])
def test_what_a_token_does_not_open_costs_nothing(bounds: dict[str, Any]) -> None:
    async def story(stage: Play) -> None:
        stage.redis.put(token(**bounds))
        for _ in range(2):
            assert (await stage.refused())[0] is NOT_FOR_ROUTE
        assert stage.redis.changes == []

    play(story)


def test_a_token_for_some_models_looks_into_the_body_which_goes_out_all_the_same() -> None:
    async def story(stage: Play) -> None:
        stage.redis.put(token(models=("gpt-4o",)))
        exchange = await stage.let_in(SHOWN, body=b'{"model":"gpt-4o"}')
        assert (exchange.first_piece, exchange.body_received) == (b'{"model":"gpt-4o"}', True)
        assert (await stage.refused(SHOWN, body=b'{"model":"o3"}'))[0] is NOT_FOR_MODEL
        assert (await stage.refused(SHOWN, body=b"{"))[0] is NOT_FOR_MODEL
        assert stage.redis.changes == [(Action.CONSUME, -1)]

    play(story)


def test_a_change_is_looked_at_before_the_next_request_is_admitted() -> None:
    async def story(stage: Play) -> None:
        stage.redis.put(token())
        await stage.let_in()
        stage.redis.put(token(2, routes=("/other",)))
        assert (await stage.refused())[0] is NOT_FOR_ROUTE
        stage.redis.put(token(3))
        await stage.let_in()

    play(story)


def test_a_token_that_changes_without_end_is_not_asked_for_without_end() -> None:
    async def story(stage: Play) -> None:
        revisions = iter(range(1, 1000))
        decide = stage.redis.decide

        async def changing(batch: Batch, digests: Sequence[str], outcomes: Sequence[bytes]) -> Answer:
            stage.redis.put(token(next(revisions)))
            return await decide(batch, digests, outcomes)

        stage.redis.decide = changing  # type: ignore[method-assign]
        assert (await stage.refused())[0] is NOT_METERED
        assert stage.redis.calls < 10

    play(story)


@pytest.mark.parametrize(
    ("terms", "remaining", "cause"),
    [
        (Terms(state=State.DISABLED), 10, TOKEN_DISABLED),
        (Terms(state=State.DELETED), 10, WRONG_TOKEN),
        (Terms(expires_ms=NOW_MS), 10, TOKEN_EXPIRED),
        (Terms(), 0, QUOTA_EXCEEDED),
    ],
)
def test_what_redis_refuses(terms: Terms, remaining: int, cause: Cause) -> None:
    async def story(stage: Play) -> None:
        stage.redis.put(token(), terms, remaining)
        assert (await stage.refused())[0] is cause
        assert stage.redis.changes == []

    play(story)


def test_a_quota_that_is_used_up_is_no_reason_to_ask_again_at_once() -> None:
    async def story(stage: Play) -> None:
        stage.redis.put(token(), Terms(per_minute=5), remaining=1)
        await stage.let_in()
        cause, exchange = await stage.refused()
        assert cause is QUOTA_EXCEEDED
        assert exchange.retry_after_s == USED_UP_RETRY_S
        assert (b"x-should-retry", b"false") in exchange.limits
        assert (b"x-ratelimit-remaining", b"4") in exchange.limits

    play(story)


def test_a_rate_is_told_to_who_is_let_in_and_to_who_is_not() -> None:
    async def story(stage: Play) -> None:
        stage.redis.put(token(), Terms(per_minute=2), remaining=None)
        first, second = [await stage.let_in() for _ in range(2)]
        cause, third = await stage.refused()
        assert [dict(each.limits)[b"x-ratelimit-remaining"] for each in (first, second, third)] == [b"1", b"0", b"0"]
        assert dict(third.limits)[b"x-ratelimit-limit"] == b"2"
        assert cause is RATE_LIMITED
        assert 59 <= third.retry_after_s <= 61

    play(story)


def test_as_many_at_once_as_are_allowed() -> None:
    async def story(stage: Play) -> None:
        stage.redis.put(token(), Terms(concurrent=1))
        exchange = await stage.let_in()
        assert (await stage.refused())[0] is TOO_MANY_AT_ONCE
        exchange.was_sent, exchange.status = True, 200
        await stage.settled(exchange)
        await stage.let_in()

    play(story)


@pytest.mark.parametrize(
    ("refunds", "was_sent", "changes"),
    [
        (True, False, [(Action.CONSUME, -1), (Action.REFUND, 1)]),
        (True, True, [(Action.CONSUME, -1)]),
        (False, False, [(Action.CONSUME, -1)]),
    ],
)
def test_what_never_went_out_is_given_back_where_the_token_says_so(
    *, refunds: bool, was_sent: bool, changes: list[tuple[Action, int]]
) -> None:
    async def story(stage: Play) -> None:
        stage.redis.put(token(refunds=refunds))
        exchange = await stage.let_in()
        exchange.was_sent, exchange.cause = was_sent, CONNECT_REFUSED
        await stage.settled(exchange)
        assert stage.redis.changes == changes

    play(story)


def test_without_redis_a_request_is_refused_and_told_when_to_come_again() -> None:
    async def story(stage: Play) -> None:
        stage.redis.put(token())
        await stage.let_in()
        stage.redis.away = True
        cause, exchange = await stage.refused()
        assert (cause, exchange.retry_after_s) == (NOT_METERED, 1)

    play(story)


def test_a_token_may_be_good_for_a_few_requests_without_redis_which_are_counted_later() -> None:
    async def story(stage: Play) -> None:
        stage.redis.put(token(on_store_outage=OnStoreOutage.ALLOW))
        await stage.let_in()
        stage.redis.away = True
        exchanges = [await stage.let_in() for _ in range(3)]
        assert (await stage.refused())[0] is NOT_METERED
        stage.redis.away = False
        for exchange in exchanges:
            exchange.was_sent, exchange.status = True, 200
            await stage.settled(exchange)
        assert stage.redis.changes == [(Action.CONSUME, -1)] * 4

    play(story, AccessSettings(outage_requests_max=3))


def test_without_redis_no_more_is_admitted_than_was_left() -> None:
    async def story(stage: Play) -> None:
        stage.redis.put(token(on_store_outage=OnStoreOutage.ALLOW), remaining=2)
        await stage.let_in()
        stage.redis.away = True
        await stage.let_in()
        assert (await stage.refused())[0] is NOT_METERED

    play(story)


def test_without_redis_a_token_that_has_expired_is_good_for_nothing() -> None:
    async def story(stage: Play) -> None:
        stage.redis.put(token(on_store_outage=OnStoreOutage.ALLOW, expires_ms=NOW_MS + 1000))
        await stage.let_in()
        stage.redis.away = True
        assert (await stage.refused())[0] is NOT_METERED  # by the worker's clock, which is far ahead of the tests' own

    play(story)


def test_without_redis_a_quota_of_tokens_has_as_many_requests_as_another_one() -> None:
    """What a request costs is a number of tokens, the bound is one of requests."""

    async def story(stage: Play) -> None:
        stage.redis.put(token(unit=Unit.TOKENS, on_store_outage=OnStoreOutage.ALLOW), remaining=30_000)
        await stage.let_in()  # 1000 + 4096, as estimated
        stage.redis.away = True
        for _ in range(2):
            await stage.let_in()
        assert (await stage.refused())[0] is NOT_METERED

    play(story, AccessSettings(outage_requests_max=2))


def test_without_redis_no_more_tokens_are_admitted_than_were_left() -> None:
    async def story(stage: Play) -> None:
        stage.redis.put(token(unit=Unit.TOKENS, on_store_outage=OnStoreOutage.ALLOW), remaining=12_000)
        await stage.let_in()
        stage.redis.away = True
        await stage.let_in()
        assert (await stage.refused())[0] is NOT_METERED

    play(story)


@pytest.mark.parametrize(
    ("terms", "remaining"),
    [(Terms(state=State.DISABLED), 9), (Terms(state=State.DELETED), 9), (Terms(expires_ms=NOW_MS), 9), (Terms(), 0)],
    ids=["disabled", "deleted", "expired", "used up"],
)
def test_without_redis_what_it_has_refused_stays_refused(terms: Terms, remaining: int) -> None:
    async def story(stage: Play) -> None:
        stage.redis.put(token(on_store_outage=OnStoreOutage.ALLOW))
        await stage.let_in()
        stage.redis.put(token(2, on_store_outage=OnStoreOutage.ALLOW), terms, remaining)
        await stage.refused()
        stage.redis.away = True
        assert (await stage.refused())[0] is NOT_METERED

    play(story)


@pytest.mark.parametrize(
    ("models", "body", "cause"),
    [
        (("*", "o1"), b'{"model": "o1", "Model": "gpt-4o-mini"}', NO_PRICE),
        (("*", "o1"), b'{"model": "o1", "pad": "' + b"x" * KEPT_BYTES_MAX + b'"}', NO_PRICE),
        (("*", "o1"), b'{"model": "gpt-4o-mini", "models": ["o1"]}', NO_PRICE),
        (("*", "o1"), b'{"model": "o1"}', None),
        (("*", "o1"), b'{"model": "gpt-4o-mini"}', None),
        (("*",), b'{"model": "o1", "Model": "gpt-4o-mini"}', None),
    ],
    ids=["named twice", "too long to be read", "with alternatives", "named", "another", "all cost the same"],
)
def test_a_model_that_cannot_be_told_does_not_cost_what_the_others_do(
    models: tuple[str, ...], body: bytes, cause: Cause | None
) -> None:
    async def story(stage: Play) -> None:
        stage.gate.prices = table(Prices(models={name: ModelPrice(input=1, output=1) for name in models}))
        stage.redis.put(token(unit=Unit.NANO_USD), remaining=10**12)
        exchange, _ = stage.exchange(SHOWN, body=body, path=b"/up/v1/chat/completions")
        if cause is None:
            await let_in(exchange, stage.gate)
            return
        with pytest.raises(RelayError) as caught:
            await let_in(exchange, stage.gate)
        assert caught.value.cause is cause
        assert stage.redis.changes == []

    play(story)
