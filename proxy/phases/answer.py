"""Answer: the relay's own responses.

They are JSON, carry the request's id, and tell a cause in one word and one sentence.
"""

from typing import Any

import msgspec

from proxy.errors import METHOD_NOT_ALLOWED, NO_STATISTICS, Cause, RelayError
from proxy.exchange import Exchange
from proxy.rules.headers import Header

ALLOWED = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
UNREAD = frozenset((400, 408, 413))
"""Answers after which the rest of the connection cannot be trusted to be what it seems (RFC 9112 section 11.2)."""
encode = msgspec.json.Encoder().encode


async def answer_error(exchange: Exchange, cause: Cause) -> None:
    """Answers with `{"error": {"type", "message", "request_id"}}`.

    A 429 and a 503 say when to come again (RFC 9110 section 10.2.3), a 401 how to show a token (section 11.6.1).
    """
    request_id = exchange.request_id.decode()
    body = {"error": {"type": cause.word, "message": cause.message, "request_id": request_id}}
    extra = list(exchange.limits)
    if cause.status in (429, 503):
        extra.append((b"retry-after", b"%d" % exchange.retry_after_s))
    if cause.status == 401:
        extra.append((b"www-authenticate", b"Bearer"))
    if cause.status in UNREAD and exchange.scope["http_version"] != "2":
        extra.append((b"connection", b"close"))
    if cause.status == 405:
        extra.append((b"allow", ALLOWED))
    await answer_json(exchange, cause.status, body, extra)


async def answer_health(exchange: Exchange) -> None:
    """Answers `/healthz` and `/readyz`. A worker that can answer has a configuration, and so is ready."""
    if exchange.scope["method"] not in ("GET", "HEAD"):
        raise RelayError(METHOD_NOT_ALLOWED)
    await answer_json(exchange, 200, {"status": "ok"}, [])


async def answer_statistics(exchange: Exchange, summary: bytes | None) -> None:
    """Answers `server.stats_path` with a JSON document that somebody else has made. Raises RelayError without one."""
    if exchange.scope["method"] not in ("GET", "HEAD"):
        raise RelayError(METHOD_NOT_ALLOWED)
    if summary is None:
        raise RelayError(NO_STATISTICS)
    await answer_json(exchange, 200, msgspec.Raw(summary), [])


async def answer_json(exchange: Exchange, status: int, content: Any, extra: list[tuple[bytes, bytes]]) -> None:
    """Answers with a JSON document."""
    body = encode(content)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"server", b"relaygate"),
        (b"x-request-id", exchange.request_id),
        *extra,
    ]
    await answer(exchange, status, headers, body)


async def answer(exchange: Exchange, status: int, headers: list[Header], body: bytes) -> None:
    """Answers with a response that is whole.

    Of a WebSocket it refuses the handshake (ASGI's `websocket.http.response`).
    """
    prefix = "websocket." if exchange.scope["type"] == "websocket" else ""
    exchange.status = status
    exchange.response_started = True
    await exchange.send({"type": f"{prefix}http.response.start", "status": status, "headers": headers})
    await exchange.send({"type": f"{prefix}http.response.body", "body": body, "more_body": False})
