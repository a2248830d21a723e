"""Tunnel: one attempt to open a WebSocket upstream, and then its messages both ways until one side ends it.

Both ends are told what became of the other: a close frame crosses as a close frame, a connection that broke off ends
the other without one. What Granian takes away (the client's reasons, the difference between 1005 and 1006) stands in
ARCHITECTURE.md; what is got back behind its back, in `client_sockets.py`.
"""

import asyncio
import os
from base64 import b64encode
from time import perf_counter
from typing import NamedTuple

from proxy.client_sockets import ClientSockets
from proxy.errors import BAD_REQUEST, BAD_RESPONSE, IDLE_TIMEOUT, TRUNCATED, RelayError
from proxy.exchange import Exchange
from proxy.phases.answer import answer
from proxy.phases.forward import Judge, changed_headers
from proxy.phases.route import route
from proxy.rules.credential_fields import without_secret
from proxy.rules.framing import NO_BODY
from proxy.rules.headers import ResponseHead
from proxy.rules.requests import request_bytes
from proxy.rules.websocket import (
    BINARY,
    GOING_AWAY,
    HANDSHAKE_DROPPED,
    INTERNAL_ERROR,
    NO_CODE,
    PROTOCOL_ERROR,
    TEXT,
    TOO_BIG,
    Close,
    ProtocolError,
    chosen_protocol,
    handshake_end,
    refusal_headers,
)
from proxy.snapshot import Snapshot
from proxy.upstream.connection import Connection
from proxy.upstream.websocket import WebSocket

SCHEMES = {"ws": "http", "wss": "https"}
REFUSAL_BYTES_MAX = 1024 * 1024
"""Granian wants the body of a refused handshake in one piece, so it waits here whole."""
REFUSAL_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 10.0
"""How long either side may take to accept the end of a tunnel, before its connection is cut."""
HURRIED_CLOSE_TIMEOUT_S = 1.0
"""The same where something waits for it: the relay's own shutdown, or the other side."""


class Ending(NamedTuple):
    """What each side of a tunnel gets at its end: a close frame, or None where its connection breaks off."""

    client: Close | None
    upstream: Close | None


NO_CODE_CLOSE = Close(None, "")
BROKEN_OFF = Ending(None, None)


def told_both(code: int, reason: str) -> Ending:
    """Returns the ending that closes both sides alike."""
    return Ending(Close(code, reason), Close(code, reason))


def route_handshake(exchange: Exchange, snapshot: Snapshot) -> None:
    """Routes a handshake as the GET that it is. Raises RelayError as `route` does, and for a body or an old HTTP."""
    scope = exchange.scope
    scope["method"] = "GET"
    scope["scheme"] = SCHEMES[scope["scheme"]]
    route(exchange, snapshot)
    if exchange.head.body is not NO_BODY or scope["http_version"] != "1.1":
        raise RelayError(BAD_REQUEST)


async def tunnel(
    exchange: Exchange, connection: Connection, judge: Judge | None = None, *, sockets: ClientSockets
) -> None:
    """Shakes hands with the upstream and relays its refusal, or its messages and the client's until either side ends.

    Raises UpstreamClosed where no byte of an answer came, another RelayError where the upstream gave none, and what
    `judge` raises.
    """
    key = b64encode(os.urandom(16))
    connection.begin("GET")
    connection.may_switch = True
    connection.write(handshake(exchange, key))
    exchange.was_sent = True
    if exchange.attempts == 1:
        exchange.sent_s = perf_counter()
    connection.finish_request()
    try:
        head = await connection.head(exchange.route.settings.head_timeout_s)
    finally:
        connection.may_switch = False
    exchange.head_s = perf_counter()
    read = b"" if judge is None or judge.accepts(head) else await judge.judge(connection, head)
    if head.status != 101:
        await refuse(exchange, connection, head, read)
        return
    protocol = chosen_protocol(head.headers, key, exchange.scope["subprotocols"])
    upstream = WebSocket(exchange.loop, exchange.route.settings.websocket_message_bytes_max)
    connection.hand_over(upstream)
    try:
        await converse(exchange, upstream, sockets, protocol)
    finally:
        upstream.abort()


def handshake(exchange: Exchange, key: bytes) -> bytes:
    """Returns the upstream's handshake: the client's fields, but those that belong to one hop made anew."""
    line = b"GET %b%b" % (exchange.target, exchange.hop.request_end)
    headers = changed_headers(exchange) if exchange.route.changes_headers else exchange.head.crossing()
    return request_bytes(line, headers, HANDSHAKE_DROPPED, (), handshake_end(headers, key))


async def refuse(exchange: Exchange, connection: Connection, head: ResponseHead, read: bytes) -> None:
    """Relays the answer of an upstream that will not switch protocols. Raises RelayError unless it comes whole.

    `read` is the beginning of its body that has been taken from the connection already.
    """
    body = bytearray(read)
    try:
        async with asyncio.timeout(REFUSAL_TIMEOUT_S):
            while piece := await connection.read(exchange.route.settings.idle_timeout_s):
                body += piece
                if len(body) > REFUSAL_BYTES_MAX:
                    raise RelayError(BAD_RESPONSE)
    except TimeoutError:
        raise RelayError(IDLE_TIMEOUT) from None
    exchange.response_bytes = len(body)
    own_id = b"x-request-id" if head.request_id is None else b"x-relaygate-request-id"
    headers = without_secret(head.headers, exchange.shown) if exchange.shown else head.headers
    await answer(exchange, head.status, [*refusal_headers(headers), (own_id, exchange.request_id)], bytes(body))


async def converse(exchange: Exchange, upstream: WebSocket, sockets: ClientSockets, protocol: str | None) -> None:
    """Lets the client in, and relays messages both ways at once. Whichever side ends first ends the other."""
    sides: list[asyncio.Task[Ending]] = []
    ending = told_both(INTERNAL_ERROR, "the relay failed")
    timeout_s = CLOSE_TIMEOUT_S
    try:
        await accept(exchange, protocol)
        sides.append(exchange.loop.create_task(upload(exchange, upstream, sockets)))
        sides.append(exchange.loop.create_task(download(exchange, upstream)))
        await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
        ending = next(side for side in sides if side.done()).result()
    except asyncio.CancelledError:
        ending = told_both(GOING_AWAY, "the relay is shutting down")
        timeout_s = HURRIED_CLOSE_TIMEOUT_S
        raise
    finally:
        for side in sides:
            side.cancel()
        await asyncio.gather(*sides, return_exceptions=True)
        exchange.truncated = None in ending
        await end(exchange, upstream, sockets, ending, timeout_s)


async def accept(exchange: Exchange, protocol: str | None) -> None:
    """Gives the client its 101. A cancellation waits for that: who has been let in is owed a close frame."""
    exchange.status = 101
    exchange.response_started = True
    accepting = asyncio.ensure_future(exchange.send({"type": "websocket.accept", "subprotocol": protocol}))
    try:
        await asyncio.shield(accepting)
    except asyncio.CancelledError:
        await accepting
        raise


async def upload(exchange: Exchange, upstream: WebSocket, sockets: ClientSockets) -> Ending:
    """Relays the client's messages until it ends. Granian gives them whole, so their limit is kept after the fact."""
    bytes_max = exchange.route.settings.websocket_message_bytes_max
    while True:
        message = await exchange.receive()
        if message["type"] != "websocket.receive":
            return await client_ending(exchange, sockets, message["code"])
        text = message.get("text")
        payload = message["bytes"] if text is None else text.encode()
        if len(payload) > bytes_max:
            return told_both(TOO_BIG, "message too big")
        exchange.request_bytes += len(payload)
        await upstream.send(BINARY if text is None else TEXT, payload)


async def client_ending(exchange: Exchange, sockets: ClientSockets, code: int) -> Ending:
    """Returns the ending that a client's close code stands for.

    Granian says 1005 of a close frame without a code, of a connection that broke off, and of a client that broke the
    protocol. One that broke off no longer stands. The other two are told alike: the upstream, that no code was given;
    the client, that it broke the protocol, which Granian keeps from a client that has closed already.
    """
    if code != NO_CODE:
        return told_both(code, "")
    if await sockets.stands(exchange.scope["client"]):
        return Ending(Close(PROTOCOL_ERROR, ""), NO_CODE_CLOSE)
    return BROKEN_OFF


async def download(exchange: Exchange, upstream: WebSocket) -> Ending:
    """Relays the upstream's messages until it ends."""
    send = exchange.send
    while True:
        try:
            event = await upstream.receive()
        except ProtocolError as error:
            exchange.cause = BAD_RESPONSE
            return told_both(error.code, error.reason)
        if isinstance(event, str):
            exchange.response_bytes += len(event) if event.isascii() else len(event.encode())
            await send({"type": "websocket.send", "text": event})
        elif isinstance(event, bytes):
            exchange.response_bytes += len(event)
            await send({"type": "websocket.send", "bytes": event})
        elif isinstance(event, Close):
            return Ending(event, event)
        else:
            exchange.cause = TRUNCATED
            return BROKEN_OFF


async def end(
    exchange: Exchange, upstream: WebSocket, sockets: ClientSockets, ending: Ending, timeout_s: float
) -> None:
    """Tells both sides, neither waiting for the other; returns when both connections are done with."""
    if ending.upstream is None:
        upstream.abort()
    else:
        upstream.close(ending.upstream)
    if ending.client == NO_CODE_CLOSE:
        # Granian sends such a frame when the application returns without closing, and only then.
        timeout_s = HURRIED_CLOSE_TIMEOUT_S
    await asyncio.gather(end_client(exchange, sockets, ending.client, timeout_s), upstream.finish(timeout_s))


async def end_client(exchange: Exchange, sockets: ClientSockets, close: Close | None, timeout_s: float) -> None:
    """Closes the client's side; cuts it where it must break off, or where the client does not take its close frame."""
    if close == NO_CODE_CLOSE:
        return
    try:
        if close is None:
            if await sockets.cut(exchange.scope["client"]):
                return
            close = Close(INTERNAL_ERROR, "")
        async with asyncio.timeout(timeout_s):
            await exchange.send({"type": "websocket.close", "code": close.code, "reason": close.reason})
    except TimeoutError:
        await sockets.cut(exchange.scope["client"])
