"""Forward: one attempt to get an answer from an upstream, streamed both ways as it comes."""

import asyncio
import contextlib
from collections.abc import Awaitable, Sequence
from time import perf_counter
from types import CoroutineType, NoneType
from typing import Protocol

from proxy.dialects.usage import reader as usage_reader
from proxy.dialects.usage.readers import Reader
from proxy.errors import ClientGone, RelayError
from proxy.exchange import Exchange, http_version
from proxy.phases.receive import receive_piece
from proxy.rules.credential_fields import without_secret
from proxy.rules.forwarding import forwarding_headers
from proxy.rules.framing import CHUNKED, SIZED, STREAMED
from proxy.rules.headers import Header, ResponseHead
from proxy.rules.requests import (
    CHUNKED_FRAMING,
    LAST_CHUNK,
    METHODS_WITH_CONTENT,
    NO_FRAMING,
    chunk,
    content_length,
    request_bytes,
)
from proxy.upstream.connection import Connection, Push

CONTINUE_TIMEOUT_S = 1.0
"""How long a client's `Expect: 100-continue` waits for the upstream's word before the body is sent all the same."""

PIECES_AHEAD_MAX = 16
"""Granian 2.8.7 holds 4 pieces. Where so many have found a place it has had nothing left to take meanwhile, for to take
one is quicker than to give it."""
WRITTEN_TIMEOUT_S = 0.5
"""How long a client that takes nothing delays the end of an answer that is cut."""


class Judge(Protocol):
    """Looks at a response before it is relayed."""

    def accepts(self, head: ResponseHead) -> bool:
        """Tells whether it may be relayed as it comes."""

    async def judge(self, connection: Connection, head: ResponseHead) -> bytes:
        """Returns what it has read of the body, or raises where the response is not to be relayed."""


async def forward(exchange: Exchange, connection: Connection, judge: Judge | None = None) -> None:
    """Sends the request and streams the response to the client.

    Returns when the client has been given the whole response. Raises UpstreamClosed where no byte of an answer came,
    another RelayError where the upstream failed, ClientGone where the client did, and what `judge` raises.
    """
    settings = exchange.route.settings
    connection.begin(exchange.scope["method"])
    connection.write(upstream_request(exchange))
    exchange.was_sent = True
    if exchange.tally is not None and exchange.attempts == 1:
        exchange.sent_s = perf_counter()
    upload = None
    if exchange.body_received:
        connection.finish_request()
    elif not exchange.head.expects_continue or await connection.continue_or_head(CONTINUE_TIMEOUT_S) is None:
        upload = exchange.loop.create_task(send_rest(exchange, connection))
    try:
        head = await connection.head(settings.head_timeout_s)
        read = b"" if judge is None or judge.accepts(head) else await judge.judge(connection, head)
        await respond(exchange, connection, head, read)
    finally:
        if upload is not None:
            upload.cancel()


def upstream_request(exchange: Exchange) -> bytes:
    """Returns the head of the request and the first piece of its body, framed for HTTP/1.1."""
    head = exchange.head
    route = exchange.route
    method = exchange.scope["method"]
    piece = exchange.first_piece
    framing = NO_FRAMING
    if head.body is CHUNKED or (head.body is STREAMED and not exchange.body_received):
        framing = CHUNKED_FRAMING
        piece = chunk(piece) + (LAST_CHUNK if exchange.body_received else b"")
    elif head.body is STREAMED and (piece or method in METHODS_WITH_CONTENT):
        framing = content_length(len(piece))
    line = b"%b %b%b" % (method.encode(), exchange.target, exchange.hop.request_end)
    if route.changes_headers:
        return request_bytes(line, changed_headers(exchange), (), (), framing) + piece
    return request_bytes(line, head.received, head.dropped, head.added, framing) + piece


def changed_headers(exchange: Exchange) -> list[Header]:
    """Returns the request's fields with what its route adds: Host, forwarding fields, Via."""
    settings = exchange.route.settings
    scope = exchange.scope
    head = exchange.head
    headers = head.crossing()
    headers = forwarding_headers(
        settings.forwarded, headers, scope["client"][0].encode(), scope["scheme"].encode(), head.host
    )
    if settings.preserve_host:
        headers.insert(0, (b"host", head.host or exchange.hop.authority))
    if settings.via is not None:
        headers.append((b"via", b"%b %b" % (http_version(scope).encode(), settings.via.encode())))
    return headers


async def send_rest(exchange: Exchange, connection: Connection) -> None:
    """Sends the rest of the body as it comes; whatever goes wrong fails the connection, and so reaches the exchange."""
    chunked = exchange.head.body is not SIZED
    try:
        while not exchange.body_received:
            piece = await receive_piece(exchange)
            connection.write(chunk(piece) if chunked else piece)
            if connection.congested:
                exchange.congested = True
                await connection.drained()
                exchange.congested = False
        if chunked:
            connection.write(LAST_CHUNK)
        connection.finish_request()
    except (ClientGone, RelayError) as error:
        connection.fail(error)


async def respond(exchange: Exchange, connection: Connection, head: ResponseHead, read: bytes) -> None:
    """Streams a response to the client: its head at once, its body as it comes, its ending as it was.

    `read` is the beginning of the body that has been taken from the connection already.
    """
    send = exchange.send
    exchange.status = head.status
    if exchange.tally is not None:
        exchange.head_s = perf_counter()
    headers = head.headers if not exchange.shown else without_secret(head.headers, exchange.shown)
    if exchange.limits:
        headers += own_limits(exchange.limits, headers)
    headers.append((b"x-request-id" if head.request_id is None else b"x-relaygate-request-id", exchange.request_id))
    sent = send({"type": "http.response.start", "status": head.status, "headers": headers})
    await sent
    exchange.response_started = True
    body = read + connection.take()
    reader = None
    if exchange.reservation is not None and exchange.scope["method"] == "POST":
        fields = [(name.lower(), value) for name, value in head.headers]
        reader = exchange.reader = usage_reader(exchange.target, head.status, fields)
        if reader is not None:
            reader.feed(body)
    if not connection.complete or exchange.scope["method"] == "HEAD":
        # An empty first piece is sent too: Granian holds the head back until it has one, and would state a length
        # of 0 in an answer to HEAD that consists of a last piece alone.
        exchange.response_bytes = len(body)
        await send({"type": "http.response.body", "body": body, "more_body": True})
        push = pusher(exchange, type(sent), reader)
        try:
            body = await connection.flow(push, exchange.route.settings.idle_timeout_s)
        except RelayError:
            if exchange.scope["http_version"] != "2":
                await written(push)
            raise
        if reader is not None:
            reader.feed(body)
    exchange.response_bytes += len(body)
    await send({"type": "http.response.body", "body": body, "more_body": False})


def own_limits(limits: Sequence[Header], headers: Sequence[Header]) -> list[Header]:
    """Returns the fields that tell a client its rate, under names of the relay's own where the upstream tells its."""
    names = {name.lower() for name, _ in headers}
    return [(b"x-relaygate-" + name[2:] if name in names else name, value) for name, value in limits]


def pusher(exchange: Exchange, settled: type, reader: Reader | None = None) -> Push:
    """Returns what sends a piece to the client, and then has it read.

    Granian's `send` acts when it is called. What it returns for a piece is of the type `settled`, which it returned
    for the head, or a future if the client is slow: only then is there something to wait for.
    """
    send = exchange.send
    if settled is CoroutineType:
        settled = NoneType  # a server whose `send` acts when it is awaited: every piece is

    def push(piece: bytes) -> Awaitable[None] | None:
        exchange.response_bytes += len(piece)
        sent = send({"type": "http.response.body", "body": piece, "more_body": True})
        return None if type(sent) is settled else sent

    def push_and_read(piece: bytes) -> Awaitable[None] | None:
        blocked = push(piece)
        reader.feed(piece)  # type: ignore[union-attr]
        return blocked

    return push if reader is None else push_and_read


async def written(push: Push) -> None:
    """Waits until a client on HTTP/1.1 has been sent what Granian has been given, if it takes that soon.

    Granian writes when there is nothing more for it to take, and where it finds the break by then it writes nothing:
    the client would see a connection close without an answer, and ask again for what has been done. An empty piece
    sends nothing, and one that has to wait for its place gets it after those before it have been written.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WRITTEN_TIMEOUT_S):
            for _ in range(PIECES_AHEAD_MAX):
                blocked = push(b"")
                if blocked is not None:
                    await blocked
                    break
