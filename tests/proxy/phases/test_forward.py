"""Forward: a dialogue between a client, the relay and an upstream, message by message."""

import asyncio
from typing import Any

import pytest

from proxy.config import Forwarded
from proxy.errors import ClientGone, RelayError, UpstreamClosed
from proxy.exchange import Exchange
from proxy.phases import forward as forward_module
from proxy.phases.forward import PIECES_AHEAD_MAX, forward, pusher, upstream_request
from proxy.phases.receive import receive_piece
from proxy.phases.route import route
from proxy.rules.headers import Header
from proxy.snapshot import Snapshot
from tests.proxy.asgi import Client, Upstream, play, snapshot_of, turns

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
CHUNKED_OK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SIZED_5 = (b"content-length", b"5")
CHUNKED = (b"transfer-encoding", b"chunked")
START = b"POST /base HTTP/1.1\r\nhost: up.example\r\n"


class Dialogue:
    """One exchange, and the two that it is between."""

    def __init__(self, snapshot: Snapshot | None = None, /, **request: Any) -> None:
        self.client = Client()
        self.upstream = Upstream()
        self.exchange = self.client.exchange(**request)
        route(self.exchange, snapshot or snapshot_of())
        self.task: asyncio.Task[None]

    async def begin(self) -> None:
        connection = await self.upstream.connect(self.exchange.hop.pool.origin)
        self.task = asyncio.create_task(forward(self.exchange, connection))
        await turns()

    async def answer(self, data: bytes) -> None:
        self.upstream.answer(data)
        await turns()

    async def put(self, body: bytes, *, more: bool) -> None:
        self.client.put(body, more=more)
        await turns()

    @property
    def asked(self) -> bytes:
        """What the upstream has been sent."""
        return self.upstream.wire().sent

    @property
    def pieces(self) -> list[bytes]:
        """What the client has been given, piece by piece."""
        return [message["body"] for message in self.client.got[1:]]


# ---- the request ----------------------------------------------------------------------------------------------------


def requested(
    *headers: Header,
    first: bytes = b"",
    received: str = "whole",
    method: str = "POST",
    version: str = "1.1",
    **settings: Any,
) -> bytes:
    async def main() -> bytes:
        exchange = Client().exchange(method=method, version=version, headers=headers)
        route(exchange, snapshot_of(**settings))
        exchange.first_piece = first
        exchange.body_received = received == "whole"
        return upstream_request(exchange)

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("headers", "first", "received", "version", "sent"),
    [
        ([], b"", "whole", "1.1", b"\r\n"),
        ([(b"content-length", b"0")], b"", "whole", "1.1", b"content-length: 0\r\n\r\n"),
        ([SIZED_5], b"hello", "whole", "1.1", b"content-length: 5\r\n\r\nhello"),
        ([SIZED_5], b"he", "part", "1.1", b"content-length: 5\r\n\r\nhe"),
        ([CHUNKED], b"hello", "whole", "1.1", b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        ([CHUNKED], b"", "whole", "1.1", b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ([CHUNKED], b"he", "part", "1.1", b"transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n"),
        ([CHUNKED], b"", "part", "1.1", b"transfer-encoding: chunked\r\n\r\n"),
        ([], b"hello", "whole", "2", b"content-length: 5\r\n\r\nhello"),
        ([], b"", "whole", "2", b"content-length: 0\r\n\r\n"),
        ([], b"he", "part", "2", b"transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n"),
        ([SIZED_5], b"hello", "whole", "2", b"content-length: 5\r\n\r\nhello"),
    ],
)
def test_a_body_is_framed_as_it_came_or_as_it_must_be(
    headers: list[Header], first: bytes, received: str, version: str, sent: bytes
) -> None:
    """C26, C27."""
    assert requested(*headers, first=first, received=received, version=version) == START + sent


def test_a_get_over_http_2_without_a_body_has_none() -> None:
    assert requested(method="GET", version="2") == START.replace(b"POST", b"GET") + b"\r\n"


def test_fields_cross_in_order_without_those_of_this_hop() -> None:
    """C10, C13, C14."""
    headers = [(b"a", b"1"), (b"connection", b"close, b"), (b"b", b""), (b"te", b"trailers"), (b"a", b"\xff")]
    assert requested(*headers) == START + b"a: 1\r\na: \xff\r\nte: trailers\r\nconnection: te\r\n\r\n"


def test_a_route_may_keep_the_host_and_tell_of_this_hop() -> None:
    """C14, C15, C16."""
    sent = requested((b"a", b"1"), version="1", preserve_host=True, forwarded=Forwarded.REPLACE, via="gw")
    assert sent.split(b"\r\n") == [
        b"POST /base HTTP/1.1",
        b"host: relay.example",
        b"a: 1",
        b"forwarded: for=192.0.2.7;proto=http;host=relay.example",
        b"x-forwarded-for: 192.0.2.7",
        b"x-forwarded-proto: http",
        b"x-forwarded-host: relay.example",
        b"via: 1.0 gw",
        b"",
        b"",
    ]


def test_a_host_that_a_client_of_http_1_0_does_not_give_is_the_upstreams() -> None:
    """C14."""

    async def main() -> bytes:
        exchange = Client().exchange(method="GET", version="1", headers=())
        exchange.scope["headers"] = [(b"host", b"")]
        route(exchange, snapshot_of(preserve_host=True))
        return upstream_request(exchange)

    assert asyncio.run(main()).split(b"\r\n")[1] == START.split(b"\r\n")[1]


# ---- dialogues ------------------------------------------------------------------------------------------------------


def test_a_response_goes_to_the_client_as_it_comes() -> None:
    """C54: nothing is held back, and nothing is waited for."""

    async def dialogue() -> None:
        told = Dialogue()
        await told.begin()
        assert told.asked == b"GET /base HTTP/1.1\r\nhost: up.example\r\n\r\n"
        assert told.client.got == []
        await told.answer(CHUNKED_OK)
        assert told.client.status == 200
        assert told.client.headers == [(b"server", b"relaygate"), (b"x-request-id", b"relay-id")]
        assert told.pieces == [b""], "the head must not wait for the first event"
        for event in (b"one", b"two", b"three"):
            await told.answer(b"%x\r\n%b\r\n" % (len(event), event))
        assert told.pieces == [b"", b"one", b"two", b"three"]
        assert not told.client.has_ended()
        await told.answer(b"0\r\nX-Trailer: y\r\n\r\n")
        await told.task
        assert told.client.has_ended()
        assert told.client.body == b"onetwothree"
        assert (told.exchange.status, told.exchange.response_bytes) == (200, 11)

    play(dialogue)


def test_a_response_that_is_there_at_once_is_one_piece() -> None:
    async def dialogue() -> None:
        told = Dialogue()
        await told.begin()
        await told.answer(OK + b"hello")
        await told.task
        assert told.pieces == [b"hello"]
        assert told.client.has_ended()
        assert told.exchange.response_bytes == 5

    play(dialogue)


@pytest.mark.parametrize("length", [b"Content-Length: 5\r\n", b""])
def test_an_answer_to_head_has_no_body_and_keeps_its_length(length: bytes) -> None:
    """C42."""

    async def dialogue() -> None:
        told = Dialogue(method="HEAD")
        await told.begin()
        await told.answer(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n")
        await told.task
        assert told.pieces == [b"", b""], "for a single last piece Granian would state a length of 0"
        assert told.client.has_ended()
        assert ((b"content-length", b"5") in told.client.headers) is bool(length)
        assert told.upstream.connections[0].reusable

    play(dialogue)


def test_an_upstreams_own_request_id_stays_and_ours_has_another_name() -> None:
    async def dialogue() -> None:
        told = Dialogue()
        await told.begin()
        await told.answer(b"HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\nServer: x\r\nContent-Length: 0\r\n\r\n")
        await told.task
        assert (b"x-request-id", b"theirs") in told.client.headers
        assert told.client.headers[-1] == (b"x-relaygate-request-id", b"relay-id")

    play(dialogue)


def test_a_body_that_is_cut_short_does_not_end() -> None:
    """C44, C45."""

    async def dialogue() -> None:
        for head in (OK, CHUNKED_OK + b"5\r\n"):
            told = Dialogue()
            await told.begin()
            await told.answer(head + b"hel")
            told.upstream.close()
            with pytest.raises(RelayError, match="truncated"):
                await told.task
            assert told.client.body == b"hel"
            assert not told.client.has_ended()
            assert told.exchange.response_bytes == 3

    play(dialogue)


def test_an_upstream_that_closes_without_a_word_may_be_asked_again() -> None:
    async def dialogue() -> None:
        told = Dialogue()
        await told.begin()
        told.upstream.close()
        with pytest.raises(UpstreamClosed):
            await told.task
        assert told.client.got == []

    play(dialogue)


def test_an_upload_is_passed_on_piece_by_piece() -> None:
    """C25."""

    async def dialogue() -> None:
        told = Dialogue(method="POST", headers=[CHUNKED])
        told.client.put(b"one", more=True)
        told.exchange.first_piece = await receive_piece(told.exchange)
        await told.begin()
        head = START + b"transfer-encoding: chunked\r\n\r\n3\r\none\r\n"
        assert told.asked == head
        await told.put(b"two", more=True)
        assert told.asked == head + b"3\r\ntwo\r\n"
        await told.put(b"", more=True)
        assert told.asked == head + b"3\r\ntwo\r\n"
        await told.put(b"", more=False)
        assert told.asked == head + b"3\r\ntwo\r\n0\r\n\r\n"
        await told.answer(OK + b"hello")
        await told.task
        assert told.upstream.connections[0].reusable

    play(dialogue)


def test_an_upload_of_known_length_ends_with_its_last_byte() -> None:
    async def dialogue() -> None:
        told = Dialogue(method="POST", headers=[SIZED_5])
        await told.begin()
        await told.put(b"hel", more=True)
        await told.put(b"lo", more=True)
        assert told.asked == START + b"content-length: 5\r\n\r\nhello"
        await told.answer(OK + b"hello")
        await told.task
        assert told.upstream.connections[0].reusable

    play(dialogue)


def test_a_client_that_stops_in_the_middle_of_its_body_takes_the_connection_with_it() -> None:
    """C28."""

    async def dialogue() -> None:
        told = Dialogue(method="POST", headers=[CHUNKED])
        await told.begin()
        await told.put(b"one", more=True)
        wire = told.upstream.wire()
        told.client.leave()
        with pytest.raises(ClientGone):
            await told.task
        assert wire.aborted
        assert not wire.sent.endswith(b"0\r\n\r\n")

    play(dialogue)


def test_a_body_over_its_limit_ends_the_exchange_with_413() -> None:
    """C30."""

    async def dialogue() -> None:
        told = Dialogue(snapshot_of(body_bytes_max=4), method="POST", headers=[CHUNKED])
        await told.begin()
        told.client.put(b"hello", more=True)
        with pytest.raises(RelayError, match="body_too_large"):
            await told.task
        assert told.upstream.wire().aborted

    play(dialogue)


def test_an_answer_before_the_end_of_the_body_is_relayed_and_the_connection_not_used_again() -> None:
    """C29."""

    async def dialogue() -> None:
        told = Dialogue(method="POST", headers=[CHUNKED])
        await told.begin()
        await told.answer(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await told.task
        assert told.client.status == 413
        assert told.client.has_ended()
        assert not told.upstream.connections[0].reusable

    play(dialogue)


def test_an_upload_waits_while_its_upstream_takes_no_more() -> None:
    """C31."""

    async def dialogue() -> None:
        told = Dialogue(method="POST", headers=[CHUNKED])
        await told.begin()
        connection = told.upstream.connections[0]
        connection.pause_writing()
        await told.put(b"one", more=True)
        await told.put(b"two", more=False)
        assert (told.exchange.congested, told.exchange.request_bytes) == (True, 3)
        connection.resume_writing()
        await turns()
        assert (told.exchange.congested, told.exchange.request_bytes) == (False, 6)
        await told.answer(OK + b"hello")
        await told.task

    play(dialogue)


EXPECTS = [(b"expect", b"100-continue"), SIZED_5]


def test_a_body_that_waits_for_leave_is_asked_for_when_the_upstream_gives_it() -> None:
    """C17."""

    async def dialogue() -> None:
        told = Dialogue(method="POST", headers=EXPECTS)
        told.client.put(b"hello", more=False)
        await told.begin()
        assert told.asked == START + b"expect: 100-continue\r\ncontent-length: 5\r\n\r\n"
        assert told.exchange.request_bytes == 0, "to ask for the body is to give leave"
        await told.answer(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert told.asked.endswith(b"\r\n\r\nhello")
        await told.answer(OK + b"hello")
        await told.task
        assert told.client.status == 200

    play(dialogue)


def test_a_final_answer_in_place_of_leave_is_relayed_and_the_body_never_read() -> None:
    """C17."""

    async def dialogue() -> None:
        told = Dialogue(method="POST", headers=EXPECTS)
        told.client.put(b"hello", more=False)
        await told.begin()
        await told.answer(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
        await told.task
        assert (told.client.status, told.exchange.request_bytes) == (401, 0)
        assert not told.upstream.connections[0].reusable

    play(dialogue)


def test_an_upstream_that_says_nothing_gets_the_body_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """C17."""
    monkeypatch.setattr(forward_module, "CONTINUE_TIMEOUT_S", 0.02)

    async def dialogue() -> None:
        told = Dialogue(method="POST", headers=EXPECTS)
        told.client.put(b"hello", more=False)
        await told.begin()
        await asyncio.sleep(0.05)
        assert told.asked.endswith(b"\r\n\r\nhello")
        await told.answer(OK + b"hello")
        await told.task

    play(dialogue)


def test_silence_of_an_upstream_ends_in_its_time() -> None:
    async def dialogue() -> None:
        told = Dialogue(snapshot_of(head_timeout_s=0.02, idle_timeout_s=0.02))
        await told.begin()
        with pytest.raises(RelayError, match="head_timeout"):
            await told.task
        told = Dialogue(snapshot_of(head_timeout_s=9, idle_timeout_s=0.02))
        await told.begin()
        await told.answer(OK + b"hel")
        with pytest.raises(RelayError, match="idle_timeout"):
            await told.task
        assert told.client.body == b"hel"

    play(dialogue)


def test_a_request_that_is_cancelled_leaves_no_upload_behind() -> None:
    """C63."""

    async def dialogue() -> None:
        told = Dialogue(method="POST", headers=[CHUNKED])
        await told.begin()
        told.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await told.task

    play(dialogue)


# ---- what a server's send returns -----------------------------------------------------------------------------------


class Settled:
    """What Granian's `send` returns where there is nothing to wait for."""

    def __await__(self) -> Any:
        return iter(())


class Granian:
    """Takes a few pieces ahead of a client; whoever gives more has to wait until they have been written."""

    def __init__(self, exchange: Exchange) -> None:
        self.given: list[dict[str, Any]] = []
        self.room = exchange.loop.create_future()
        exchange.send = self.send

    def send(self, message: dict[str, Any]) -> Any:
        self.given.append(message)
        return self.room if len(self.given) == PIECES_AHEAD_MAX else Settled()


async def cut(told: Dialogue) -> None:
    """Breaks an answer off, with its first piece on the way to the client."""
    await told.begin()
    await told.answer(OK + b"hel")
    told.upstream.close()
    await turns()


def test_a_cut_answer_ends_when_its_client_has_been_sent_what_came() -> None:
    async def dialogue() -> None:
        told = Dialogue()
        granian = Granian(told.exchange)
        await cut(told)
        assert not told.task.done()
        granian.room.set_result(None)
        with pytest.raises(RelayError, match="truncated"):
            await told.task
        assert b"".join(message["body"] for message in granian.given[1:]) == b"hel"

    play(dialogue)


def test_a_cut_answer_ends_though_its_client_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward_module, "WRITTEN_TIMEOUT_S", 0.01)

    async def dialogue() -> None:
        told = Dialogue()
        Granian(told.exchange)
        await cut(told)
        with pytest.raises(RelayError, match="truncated"):
            await told.task

    play(dialogue)


def test_a_cut_answer_in_http_2_is_reset_behind_what_came() -> None:
    async def dialogue() -> None:
        told = Dialogue(version="2")
        granian = Granian(told.exchange)
        await cut(told)
        with pytest.raises(RelayError, match="truncated"):
            await told.task
        assert [message["body"] for message in granian.given[1:]] == [b"hel"]

    play(dialogue)


def test_only_a_send_that_has_not_acted_is_waited_for() -> None:
    async def dialogue() -> None:
        loop = asyncio.get_running_loop()
        blocked: asyncio.Future[None] = loop.create_future()
        returned: list[Any] = [Settled(), blocked]
        exchange = Exchange({}, Client().receive, lambda _: returned.pop(0), loop)
        push = pusher(exchange, Settled)
        assert push(b"one") is None
        assert push(b"three") is blocked
        assert exchange.response_bytes == 8

    play(dialogue)


def test_a_send_that_acts_when_it_is_awaited_is_awaited() -> None:
    async def dialogue() -> None:
        client = Client()
        exchange = client.exchange()
        head = client.send({"type": "http.response.start", "status": 200, "headers": []})
        push = pusher(exchange, type(head))
        await head
        sent = push(b"one")
        assert sent is not None
        await sent
        assert (client.body, exchange.response_bytes) == (b"one", 3)

    play(dialogue)
