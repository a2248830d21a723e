"""Choose: what goes upstream in the place of the client's own secret, and when a request goes out once more."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from proxy.config import CredentialSource, Dialect
from proxy.config import KeyPool as Settings
from proxy.errors import NO_CREDENTIAL, ClientGone, RelayError, UpstreamClosed
from proxy.key_pool.pool import KeyPool
from proxy.phases.choose import UNUSABLE_MAX, Attempts
from proxy.phases.route import route as route_phase
from proxy.phases.tunnel import handshake
from proxy.pipeline import relay
from proxy.rules.credentials import Ban, BanCause, Credential, Kind
from proxy.snapshot import RouteCredentials
from tests.proxy.asgi import Client, Upstream, snapshot_of, turns
from tests.proxy.key_pool.stores import Clock, SharedStore, keys, worker

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHAT = b'{"model": "gpt", "messages": []}'
UNAUTHORIZED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\n\r\nbad!"
FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
QUOTA = b"HTTP/1.1 402 Payment Required\r\nContent-Length: 5\r\n\r\nbroke"
LIMITED = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 60\r\nContent-Length: 4\r\n\r\nslow"
BROKEN = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops"
BAD = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 4\r\n\r\nwhat"


class Story:
    """One client, the relay with some keys, and the upstream."""

    def __init__(self, upstream: Upstream, pool: KeyPool, **route: Any) -> None:
        self.upstream = upstream
        self.pool = pool
        route = {"credential": CredentialSource.POOL, "dialect": Dialect.OPENAI} | route
        self.snapshot = snapshot_of(key_pool=pool, **route)

    @property
    def credentials(self) -> RouteCredentials:
        [route] = self.snapshot.routes.routes()
        assert route.credentials is not None
        return route.credentials

    async def post(self, body: bytes = CHAT, **request: Any) -> tuple[Client, "asyncio.Task[None]"]:
        client = Client()
        client.put(body, more=False)
        headers = [(b"content-length", b"%d" % len(body)), *request.pop("headers", ())]
        self.exchange = client.exchange(method="POST", headers=headers, **request)
        task = asyncio.create_task(self._relay())
        await turns(20)
        return client, task

    async def _relay(self) -> None:
        await relay(self.exchange, self.snapshot)

    async def answer(self, data: bytes) -> None:
        self.upstream.answer(data)
        await turns(20)

    @property
    def asked(self) -> bytes:
        return self.upstream.wire().sent


def play(dialogue: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(5):
            await dialogue()

    asyncio.run(main())


def pool_of(*names: str, store: SharedStore | None = None, **settings: Any) -> KeyPool:
    pool = worker(store or SharedStore(), Clock(), *keys(*names))
    pool.use(Settings(retry_delay_ms=0, **settings))
    return pool


SECRETS = [
    (b"authorization", b"Bearer client"),
    (b"x-api-key", b"client"),
    (b"api-key", b"client"),
    (b"x-goog-api-key", b"client"),
    (b"x-auth-key", b"client"),
    (b"x-serverless-authorization", b"Bearer client"),
    (b"x-forwarded-access-token", b"client"),
]


@pytest.mark.parametrize(
    ("route", "shown"),
    [
        ({}, b"authorization: Bearer secret-a\r\n"),
        ({"dialect": Dialect.ANTHROPIC}, b"x-api-key: secret-a\r\n"),
        ({"dialect": Dialect.GEMINI}, b"x-goog-api-key: secret-a\r\n"),
        ({"credential_field": "X-Custom"}, b"x-custom: secret-a\r\n"),
        ({"credential_field": "?key"}, b"POST /base?a=1&key=secret-a HTTP/1.1\r\n"),
    ],
)
def test_the_credential_takes_the_place_of_the_client_s_secrets(
    upstream: Upstream, route: dict[str, Any], shown: bytes
) -> None:
    async def dialogue() -> None:
        story = Story(upstream, pool_of("a"), **route)
        client, task = await story.post(
            query=b"a=1&key=client&api_key=client&api_token=client&auth=client&jwt=client", headers=SECRETS
        )
        await story.answer(OK)
        await task
        assert shown in story.asked
        assert b"client" not in story.asked
        assert client.body == b"ok"

    play(dialogue)


@pytest.mark.parametrize("source", [CredentialSource.POOL, CredentialSource.FIXED])
def test_a_redirect_does_not_tell_the_client_the_credential(upstream: Upstream, source: CredentialSource) -> None:
    async def dialogue() -> None:
        pool = pool_of("a")
        pool.api_key = "secret-a"
        story = Story(upstream, pool, credential=source, credential_field="?key")
        client, task = await story.post()
        await story.answer(
            b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /base/?key=secret-a\r\nContent-Length: 0\r\n\r\n"
        )
        await task
        assert (b"location", b"/base/?key=***") in client.headers

    play(dialogue)


@pytest.mark.parametrize("spelled", [b"a%2Fb%2Bc%3D", b"a%2fb%2bc%3d", b"a/b+c=", b"a/b%2Bc=", b"%61/b+c%3d"])
def test_nor_where_the_upstream_spells_it_in_another_way(upstream: Upstream, spelled: bytes) -> None:
    async def dialogue() -> None:
        pool = pool_of()
        pool.api_key = "a/b+c="
        story = Story(upstream, pool, credential=CredentialSource.FIXED, credential_field="?key")
        client, task = await story.post()
        assert b"?key=a%2Fb%2Bc%3D " in story.asked
        await story.answer(
            b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /?key=%b&b=1\r\nContent-Length: 0\r\n\r\n" % spelled
        )
        await task
        assert (b"location", b"/?key=***&b=1") in client.headers

    play(dialogue)


@pytest.mark.parametrize("via", [None, "relay"])
def test_no_subprotocol_of_a_handshake_carries_the_client_s_secret(upstream: Upstream, via: str | None) -> None:
    async def dialogue() -> None:
        story = Story(upstream, pool_of("a"), via=via)
        client = Client()
        offered = b"realtime, openai-insecure-api-key.sk-client"
        exchange = client.exchange(headers=[(b"sec-websocket-protocol", offered)])
        exchange.scope["type"] = "websocket"
        route_phase(exchange, story.snapshot)
        await Attempts(exchange, story.credentials).choose_first()
        sent = handshake(exchange, b"key")
        assert b"sec-websocket-protocol: realtime\r\n" in sent
        assert b"client" not in sent

    play(dialogue)


@pytest.mark.parametrize("answer", [UNAUTHORIZED, QUOTA, LIMITED, BROKEN])
def test_an_answer_that_another_key_may_better_is_not_relayed(upstream: Upstream, answer: bytes) -> None:
    async def dialogue() -> None:
        story = Story(upstream, pool_of("a", "b"))
        client, task = await story.post()
        first = story.asked
        await story.answer(answer)
        second = story.asked.removeprefix(first)
        await story.answer(OK)
        await task
        assert client.status == 200
        shown = {part for sent in (first, second) for part in sent.split(b"\r\n") if part.startswith(b"authorization")}
        assert shown == {b"authorization: Bearer secret-a", b"authorization: Bearer secret-b"}
        assert second.endswith(CHAT)
        assert story.exchange.attempts == 2

    play(dialogue)


@pytest.mark.parametrize("answer", [UNAUTHORIZED, QUOTA, LIMITED, BROKEN])
def test_the_last_answer_is_relayed_as_it_was(upstream: Upstream, answer: bytes) -> None:
    async def dialogue() -> None:
        story = Story(upstream, pool_of("a"))
        client, task = await story.post()
        await story.answer(answer)
        await task
        assert client.status == int(answer[9:12])
        assert client.body == answer.rpartition(b"\r\n\r\n")[2]

    play(dialogue)


def test_when_all_keys_are_banned_the_relay_says_for_how_long(upstream: Upstream) -> None:
    async def dialogue() -> None:
        story = Story(upstream, pool_of("a"))
        _, task = await story.post()
        await story.answer(LIMITED)
        await task
        client, task = await story.post()
        with pytest.raises(RelayError) as caught:
            await task
        assert caught.value.cause is NO_CREDENTIAL
        assert story.exchange.retry_after_s == 60
        assert client.got == []
        assert len(upstream.connections) == 1

    play(dialogue)


def test_a_client_s_fault_is_relayed_at_once(upstream: Upstream) -> None:
    async def dialogue() -> None:
        story = Story(upstream, pool_of("a", "b"))
        client, task = await story.post()
        await story.answer(BAD)
        await task
        assert (client.status, client.body, story.exchange.attempts) == (400, b"what", 1)

    play(dialogue)


def test_what_is_forbidden_to_all_keys_is_asked_of_a_few_and_bans_none(upstream: Upstream) -> None:
    async def dialogue() -> None:
        store = SharedStore()
        story = Story(upstream, pool_of(*"abcdefgh", store=store, retry_max=2))
        for _ in range(10):
            client, task = await story.post()
            for _ in range(3):
                await story.answer(FORBIDDEN)
            await task
            assert (client.status, client.body, story.exchange.attempts) == (403, b"no", 3)
        assert store.bans == {}

    play(dialogue)


@pytest.mark.parametrize(("rest", "attempts"), [(b"/v1/messages", 3), (b"/v1/organizations/me", 2)])
def test_who_asks_for_what_wants_another_kind_of_key_bans_none(upstream: Upstream, rest: bytes, attempts: int) -> None:
    async def dialogue() -> None:
        store = SharedStore()
        story = Story(upstream, pool_of("a", "b", "c", store=store, retry_max=1), dialect=Dialect.ANTHROPIC)
        body = b'{"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}'
        client, task = await story.post(path=b"/up" + rest)
        for _ in range(attempts):
            await story.answer(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await task
        assert (client.status, client.body, story.exchange.attempts) == (401, body, attempts)
        assert {ban.cause for ban in store.bans.values()} == ({BanCause.DEAD} if attempts == 3 else set())

    play(dialogue)


def test_what_wants_another_kind_of_key_is_told_by_what_the_upstream_is_asked_for(upstream: Upstream) -> None:
    """Not by what the client asked for: a part of that path may stand in the route's target."""

    async def dialogue() -> None:
        store = SharedStore()
        target = "http://up.example/v1"
        story = Story(upstream, pool_of("a", store=store, ban_401=True), dialect=Dialect.OPENAI, target=target)
        client, task = await story.post(path=b"/up/organization/costs")
        assert story.asked.startswith(b"POST /v1/organization/costs ")
        await story.answer(UNAUTHORIZED)
        await task
        assert (client.status, store.bans) == (401, {})

    play(dialogue)


def test_a_connection_cut_before_the_first_byte_is_tried_with_another_key(upstream: Upstream) -> None:
    async def dialogue() -> None:
        story = Story(upstream, pool_of("a", "b"))
        client, task = await story.post()
        upstream.close()
        await turns(20)
        await story.answer(OK)
        await task
        assert (client.status, len(upstream.connections)) == (200, 2)

    play(dialogue)


def test_a_later_attempt_tells_what_became_of_a_ban_that_began_meanwhile(upstream: Upstream) -> None:
    async def dialogue() -> None:
        clock = Clock()
        pool = worker(None, clock, *keys("a", "b"))
        pool.use(Settings(retry_delay_ms=0))
        story = Story(upstream, pool)
        client, task = await story.post()
        clock.now_s += 1
        pool.ban_changed("b", "", Ban(BanCause.OVERLOADED, clock.now_s, clock.now_s + 5))
        clock.now_s += 1
        await story.answer(BROKEN)
        await story.answer(OK)
        await task
        await turns(20)
        assert client.status == 200
        assert pool.bans.get(("b", "")) is None

    play(dialogue)


def test_a_post_that_the_upstream_may_have_acted_on_goes_out_once_where_that_is_wanted(upstream: Upstream) -> None:
    async def dialogue() -> None:
        story = Story(upstream, pool_of("a", "b", retry_idempotent_only=True))
        client, task = await story.post()
        await story.answer(BROKEN)
        await task
        assert (client.status, story.exchange.attempts) == (500, 1)

    play(dialogue)


def test_nothing_is_repeated_after_the_first_byte(upstream: Upstream) -> None:
    async def dialogue() -> None:
        story = Story(upstream, pool_of("a", "b"))
        client, task = await story.post()
        await story.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        upstream.close()
        with pytest.raises(RelayError, match="truncated"):
            await task
        assert not client.has_ended()
        assert len(upstream.connections) == 1

    play(dialogue)


def test_an_idle_close_is_nobody_s_fault_and_costs_the_key_nothing(upstream: Upstream) -> None:
    async def dialogue() -> None:
        store = SharedStore()
        story = Story(upstream, pool_of("a", store=store))
        _, task = await story.post()
        await story.answer(OK)
        await task
        client, task = await story.post()
        upstream.close()
        await turns(20)
        assert len(upstream.connections) == 2
        await story.answer(OK)
        await task
        assert client.status == 200
        assert store.bans == {}

    play(dialogue)


def test_a_request_that_went_out_again_after_an_idle_close_is_told_of_once(upstream: Upstream) -> None:
    async def dialogue() -> None:
        story = Story(upstream, pool_of("a"))
        for _ in range(2):
            _, task = await story.post()
            await story.answer(OK)
            await task
        _, task = await story.post()
        story.exchange.request_id = b"again"
        upstream.close()
        await turns(20)
        await story.answer(OK)
        await task
        [trace] = story.pool.traces.find("again")
        assert [(attempt.status, attempt.says) for attempt in trace.tries] == [(0, "nothing"), (200, "success")]
        [counts] = story.pool.figures.take_counts()
        assert (counts.requests, counts.successes, counts.errors) == (3, 3, 0)

    play(dialogue)


@pytest.mark.parametrize(("method", "attempts"), [("GET", 2), ("POST", 1)])
def test_an_idle_close_costs_no_idempotent_request_its_answer_whatever_is_retried_otherwise(
    upstream: Upstream, method: str, attempts: int
) -> None:
    async def dialogue() -> None:
        story = Story(upstream, pool_of("a", "b", retry_enabled=False))
        _, task = await story.post()
        await story.answer(OK)
        await task
        client = Client()
        exchange = client.exchange(method=method)
        task = asyncio.create_task(relay(exchange, story.snapshot))
        await turns(20)
        upstream.close()
        await turns(20)
        if attempts == 2:
            await story.answer(OK)
            await task
            assert client.status == 200
        else:
            with pytest.raises(UpstreamClosed):
                await task
        assert exchange.attempts == attempts

    play(dialogue)


def test_a_repeat_after_an_idle_close_does_not_count_as_a_retry(upstream: Upstream) -> None:
    async def dialogue() -> None:
        story = Story(upstream, pool_of("a", "b", retry_max=1))
        for _ in range(2):  # one idle connection, whichever key is next
            _, task = await story.post()
            await story.answer(OK)
            await task
        client, task = await story.post()
        upstream.close()
        await turns(20)
        upstream.close()
        await turns(20)
        await story.answer(OK)
        await task
        assert (client.status, story.exchange.attempts) == (200, 3)

    play(dialogue)


def test_idle_closes_are_not_believed_for_ever(upstream: Upstream) -> None:
    async def dialogue() -> None:
        story = Story(upstream, pool_of("a"), max_connections=1)
        _, task = await story.post()
        attempts = Attempts(story.exchange, story.credentials)
        await attempts.choose_first()
        for _ in range(2):
            story.exchange.attempts += 1
            await attempts.failed(UpstreamClosed(), reused=True)
        story.exchange.attempts += 1
        with pytest.raises(UpstreamClosed):
            await attempts.failed(UpstreamClosed(), reused=True)
        await story.answer(OK)
        await task

    play(dialogue)


def test_a_long_body_streams_and_is_sent_once(upstream: Upstream) -> None:
    async def dialogue() -> None:
        story = Story(upstream, pool_of("a", "b", retry_body_bytes_max=10))
        client = Client()
        exchange = client.exchange(method="POST", headers=[(b"content-length", b"12")])
        client.put(b"first ", more=True)
        task = asyncio.create_task(relay(exchange, story.snapshot))
        await turns(20)
        assert story.asked.endswith(b"first ")
        client.put(b"second", more=False)
        await turns(20)
        assert story.asked.endswith(b"first second")
        await story.answer(QUOTA)
        await task
        assert (client.status, exchange.attempts) == (402, 1)

    play(dialogue)


@pytest.mark.parametrize(("bytes_max", "attempts"), [(len(CHAT), 2), (len(CHAT) - 1, 1), (0, 1)])
def test_a_body_over_the_limit_is_sent_once_even_where_it_came_whole(
    upstream: Upstream, bytes_max: int, attempts: int
) -> None:
    async def dialogue() -> None:
        story = Story(upstream, pool_of("a", "b", retry_body_bytes_max=bytes_max))
        client, task = await story.post()
        for _ in range(attempts):
            await story.answer(QUOTA)
        await task
        assert (client.status, story.exchange.attempts) == (402, attempts)

    play(dialogue)


def test_a_body_of_http_2_that_begins_with_nothing_is_kept_all_the_same(upstream: Upstream) -> None:
    async def dialogue() -> None:
        story = Story(upstream, pool_of("a", "b"))
        client = Client()
        client.put(b"", more=True)
        client.put(CHAT, more=False)
        exchange = client.exchange(method="POST", version="2")
        task = asyncio.create_task(relay(exchange, story.snapshot))
        await turns(20)
        assert b"content-length: %d\r\n" % len(CHAT) in story.asked
        assert story.asked.endswith(b"\r\n\r\n" + CHAT)
        await story.answer(QUOTA)
        await story.answer(OK)
        await task
        assert (client.status, exchange.attempts) == (200, 2)

    play(dialogue)


def test_a_client_that_leaves_says_nothing_of_the_key(upstream: Upstream) -> None:
    async def dialogue() -> None:
        store = SharedStore()
        story = Story(upstream, pool_of("a", store=store))
        _, task = await story.post()
        task.cancel()
        await asyncio.wait([task])
        assert store.bans == {}
        [trace] = story.pool.traces.find("relay-id")
        assert trace.tries[-1].error == "client_left"

    play(dialogue)


def test_a_body_that_does_not_come_whole_chooses_no_key(upstream: Upstream) -> None:
    async def dialogue() -> None:
        story = Story(upstream, pool_of("a"))
        client = Client()
        client.put(b"half", more=True)
        client.leave()
        exchange = client.exchange(method="POST", headers=[(b"content-length", b"12")])
        with pytest.raises(ClientGone):
            await relay(exchange, story.snapshot)
        assert upstream.connections == []

    play(dialogue)


def test_each_use_and_each_success_is_counted_once(upstream: Upstream) -> None:
    """Of the first request, which has to look for a key, and of the next, which gets the one that comes."""

    async def dialogue() -> None:
        pool = pool_of("a")
        story = Story(upstream, pool)
        for _ in range(2):
            _, task = await story.post()
            taken = pool.figures.take_counts()
            await story.answer(OK)
            await task
            taken += pool.figures.take_counts()
            assert (sum(one.requests for one in taken), sum(one.successes for one in taken)) == (1, 1)

    play(dialogue)


def test_a_trace_tells_what_was_tried_and_why(upstream: Upstream) -> None:
    async def dialogue() -> None:
        story = Story(upstream, pool_of("a", "b"))
        _, task = await story.post()
        await story.answer(QUOTA)
        await story.answer(OK)
        await task
        [trace] = story.pool.traces.find("relay-id")
        assert (trace.route, trace.model, [attempt.status for attempt in trace.tries]) == ("/up", "gpt", [402, 200])
        assert trace.looks[-1].banned == {BanCause.OUT_OF_QUOTA: 1}

    play(dialogue)


@pytest.mark.parametrize("source", [CredentialSource.FIXED, CredentialSource.AUTO])
def test_the_fixed_credential_comes_first(upstream: Upstream, source: CredentialSource) -> None:
    async def dialogue() -> None:
        pool = pool_of("a")
        pool.api_key = "fixed"
        story = Story(upstream, pool, credential=source)
        _, task = await story.post(headers=SECRETS)
        assert b"authorization: Bearer fixed\r\n" in story.asked
        assert b"client" not in story.asked
        await story.answer(OK)
        await task

    play(dialogue)


def test_of_several_sources_the_first_that_there_is(upstream: Upstream) -> None:
    async def dialogue() -> None:
        pool = pool_of()
        story = Story(upstream, pool, credential=CredentialSource.AUTO)
        for credential, shown in [
            (None, b"Bearer client"),
            (Credential("oauth", "access", kind=Kind.OAUTH), b"Bearer access"),
            (Credential("a", "secret-a"), b"Bearer secret-a"),
        ]:
            if credential is not None:
                pool.credentials_changed([credential], [])
            before = story.asked if upstream.connections else b""
            _, task = await story.post(headers=SECRETS[:1])
            assert b"authorization: %b\r\n" % shown in story.asked.removeprefix(before)
            await story.answer(OK)
            await task

    play(dialogue)


@pytest.mark.parametrize(("answer", "told"), [(OK, []), (UNAUTHORIZED, [("oauth", 1, 401)]), (FORBIDDEN, [])])
def test_a_refused_access_token_is_told_and_the_answer_relayed_as_it_was(
    upstream: Upstream, answer: bytes, told: list[tuple[str, int, int]]
) -> None:
    async def dialogue() -> None:
        pool = pool_of("a")
        pool.credentials_changed([Credential("oauth", "access", kind=Kind.OAUTH)], [])
        story = Story(upstream, pool, credential=CredentialSource.OAUTH)
        client, task = await story.post()
        await story.answer(answer)
        await task
        assert (client.body, story.exchange.attempts) == (answer[answer.index(b"\r\n\r\n") + 4 :], 1)
        counts = pool.figures.take_counts()
        assert [(each.id, each.errors, each.last_error_status) for each in counts] == told
        assert pool.figures.take_bans() == []
        assert pool.oauth() is not None

    play(dialogue)


def test_until_the_keys_are_known_the_client_s_own_secret_does_not_stand_in_for_them(upstream: Upstream) -> None:
    async def dialogue() -> None:
        pool = pool_of()
        pool.complete = False
        story = Story(upstream, pool, credential=CredentialSource.AUTO)
        _, task = await story.post(headers=SECRETS)
        with pytest.raises(RelayError) as caught:
            await task
        assert caught.value.cause is NO_CREDENTIAL
        assert upstream.connections == []

    play(dialogue)


def test_nor_does_it_where_no_key_can_be_decrypted(upstream: Upstream) -> None:
    def broken(_secret: str, _purpose: str) -> str:
        raise LookupError("another secret key")

    async def dialogue() -> None:
        pool = KeyPool(broken, Clock())
        pool.credentials_changed(keys("a"), [])
        story = Story(upstream, pool, credential=CredentialSource.AUTO)
        for _ in range(2):
            _, task = await story.post(headers=SECRETS)
            with pytest.raises(RelayError) as caught:
                await task
            assert caught.value.cause is NO_CREDENTIAL
        pool.credentials_changed([], ["a"])
        _, task = await story.post(headers=SECRETS)
        assert b"Bearer client" in story.asked
        await story.answer(OK)
        await task

    play(dialogue)


def test_a_route_whose_credential_is_missing_says_so(upstream: Upstream) -> None:
    async def dialogue() -> None:
        story = Story(upstream, pool_of(), credential=CredentialSource.OAUTH)
        _, task = await story.post(headers=SECRETS)
        with pytest.raises(RelayError) as caught:
            await task
        assert caught.value.cause is NO_CREDENTIAL
        assert upstream.connections == []

    play(dialogue)


def test_a_request_does_not_go_through_all_keys_that_cannot_be_decrypted(upstream: Upstream) -> None:
    async def dialogue() -> None:
        seen: list[str] = []

        def fail(_secret: str, purpose: str) -> str:
            seen.append(purpose)
            raise LookupError(purpose)

        pool = KeyPool(fail, Clock(), lambda: 0.0)
        pool.credentials_changed(keys(*map(str, range(3 * UNUSABLE_MAX))), [])
        for request in (1, 2):
            _, task = await Story(upstream, pool).post()
            with pytest.raises(RelayError) as caught:
                await task
            assert caught.value.cause is NO_CREDENTIAL
            assert request * UNUSABLE_MAX <= len(set(seen)) <= request * UNUSABLE_MAX + request

    play(dialogue)
