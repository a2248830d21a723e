"""The rival closest to home: the same proxy written the obvious way, Granian's ASGI in front of aiohttp's client.

It streams both ways, keeps connections alive and verifies certificates, so that what it costs more is the client
library and nothing else. Its whole configuration is the environment: `TARGET` (an origin) and, for https, `TARGET_CA`
(PEM).
"""

import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import aiohttp
from yarl import URL

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# RFC 9110, section 7.6.1; Host is the target's own.
NOT_FORWARDED = frozenset(
    (
        b"connection",
        b"host",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)


UNKNOWN_LENGTH_BYTES = -1


class NaiveProxy:
    """The ASGI callable of one worker."""

    def __init__(self, target: str, authority: str | None) -> None:
        self.target = target
        self.authority = authority
        self.session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.live(receive, send)
        elif scope["type"] == "http":
            await self.relay(scope, receive, send)

    async def live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=ssl.create_default_context(cafile=self.authority)),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        ) as self.session:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def relay(self, scope: Message, receive: Receive, send: Send) -> None:
        assert self.session is not None
        query = scope["query_string"].decode()
        url = self.target + scope["raw_path"].decode() + (f"?{query}" if query else "")
        headers = [(k.decode(), v.decode("latin-1")) for k, v in scope["headers"] if k not in NOT_FORWARDED]
        try:
            response = await self.session.request(
                scope["method"],
                URL(url, encoded=True),
                headers=headers,
                data=await request_body(scope, receive),
                allow_redirects=False,
            )
        except aiohttp.ClientError as error:
            await send({"type": "http.response.start", "status": 502, "headers": []})
            await send({"type": "http.response.body", "body": type(error).__name__.encode()})
            return
        async with response:
            kept = [(k.lower(), v) for k, v in response.raw_headers if k.lower() not in NOT_FORWARDED]
            await send({"type": "http.response.start", "status": response.status, "headers": kept})
            async for chunk in response.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


async def request_body(scope: Message, receive: Receive) -> bytes | AsyncIterator[bytes] | None:
    """What aiohttp is to send: nothing, the bytes of a body that came whole, or an iterator over one that did not."""
    headers = dict(scope["headers"])
    if b"content-length" not in headers and b"transfer-encoding" not in headers:
        return None
    first = await receive()
    # Granian may say "more" of a body that is complete; waiting for that would keep aiohttp from reusing the
    # connection, since the answer can come while the body still counts as unsent.
    length_bytes = int(headers.get(b"content-length", UNKNOWN_LENGTH_BYTES))
    if not first.get("more_body") or len(first["body"]) == length_bytes:
        return bytes(first.get("body", b""))
    return remaining_body(first, receive, length_bytes)


async def remaining_body(message: Message, receive: Receive, length_bytes: int) -> AsyncIterator[bytes]:
    sent_bytes = len(message["body"])
    yield message["body"]
    while message.get("more_body") and sent_bytes != length_bytes:
        message = await receive()
        sent_bytes += len(message.get("body", b""))
        yield message.get("body", b"")


app = NaiveProxy(os.environ.get("TARGET", ""), os.environ.get("TARGET_CA"))
