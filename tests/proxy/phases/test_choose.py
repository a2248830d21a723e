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
        task = asyncio.create_task(relay(self.exchange, self.snapshot))
        await turns(20)
        return client, task

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
        client, task = await story.post(query=b"a=1&key=client&api_key=client", headers=SECRETS)
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


@pytest.mark.parametrize("via", [None, "relay"])
def test_no_subprotocol_of_a_handshake_carries_the_client_s_secret(upstream: Upstream, via: str | None) -> None:
    async def dialogue() -> None:
        story = Story(upstream, pool_of("a"), via=via)
        client = Client()
        offered = b"realtime, openai-insecure-api-key.sk-client"
        exchange = client.exchange(headers=[(b"sec-websocket-protocol", offered)])
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
