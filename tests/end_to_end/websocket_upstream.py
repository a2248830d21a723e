"""A WebSocket upstream on aiohttp, one path a behaviour, and a few that break the protocol on the bare transport.

    /echo?protocols=a,b     sends every message back; chooses among the subprotocols it is told it knows
    /headers                sends the handshake's header fields as one JSON text, then closes
    /refuse                 answers 401 with a body and a repeated header
    /close?code=&reason=    closes at once; the reason in hex
    /abort                  sends "before" and drops the socket without a close frame
    /frames?hex=            sends "before", then these bytes as they are
    /count?bytes=           reads until so many bytes of payload have come, then sends how many
    /late?after_s=          reads nothing for so long, then everything
    /flood?bytes=&messages= sends so much as fast as it may

`closings` tells how each connection ended: path, close code (0: a close frame without one, None: no frame), reason.
"""

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import AsyncIterator, Iterator

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

MESSAGE_BYTES_MAX = 64 << 20


class WebSocketUpstream:
    """The server and what it has seen."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self.tls = tls
        self.port = 0
        self.closings: list[tuple[str, int | None, str]] = []
        self.open = 0
        self.flooded_bytes = 0
        self.loop = asyncio.new_event_loop()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def start(self) -> None:
        application = web.Application()
        application.router.add_get("/refuse", self._refuse)
        application.router.add_get("/plain", self._plain)
        for name in ("echo", "headers", "close", "abort", "frames", "count", "late", "flood"):
            application.router.add_get(f"/{name}", self._websocket)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self.tls)
        await site.start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _refuse(self, _request: web.Request) -> web.Response:
        refusal = web.json_response({"why": "no key"}, status=401, headers={"www-authenticate": "Bearer"})
        refusal.headers.add("set-cookie", "a=1")
        refusal.headers.add("set-cookie", "b=2")
        return refusal

    async def _plain(self, _request: web.Request) -> web.Response:
        return web.Response(text="not a websocket")

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        protocols = [name for name in request.query.get("protocols", "").split(",") if name]
        socket = web.WebSocketResponse(protocols=protocols, max_msg_size=MESSAGE_BYTES_MAX, autoping=True)
        self.open += 1  # before the client knows that it is, or a test could end in between
        try:
            await socket.prepare(request)
            await getattr(self, f"_play_{request.path.strip('/')}")(request, socket)
        finally:
            self.open -= 1
        return socket

    async def _messages(self, request: web.Request, socket: web.WebSocketResponse) -> AsyncIterator[WSMessage]:
        """Every data message; notes how the connection ended, which `async for` over the socket would swallow."""
        while True:
            message = await socket.receive()
            if message.type in {WSMsgType.TEXT, WSMsgType.BINARY}:
                yield message
                continue
            closed_by_frame = message.type is WSMsgType.CLOSE
            code, reason = (message.data, message.extra) if closed_by_frame else (None, None)
            self.closings.append((request.path, code, reason or ""))
            return

    async def _play_echo(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        async for message in self._messages(request, socket):
            if message.type is WSMsgType.TEXT:
                await socket.send_str(message.data)
            else:
                await socket.send_bytes(message.data)

    async def _play_headers(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        raw = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.raw_headers]
        await socket.send_str(json.dumps(raw))
        await socket.close()

    async def _play_close(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        await socket.close(code=int(request.query["code"]), message=bytes.fromhex(request.query.get("reason", "")))

    async def _play_abort(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        await socket.send_str("before")
        await asyncio.sleep(0.05)  # or the message is thrown away with the socket
        assert request.transport is not None
        request.transport.abort()

    async def _play_frames(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        await socket.send_str("before")
        assert request.transport is not None
        request.transport.write(bytes.fromhex(request.query["hex"]))
        async for _ in self._messages(request, socket):
            pass

    async def _play_count(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        received = 0
        async for message in self._messages(request, socket):
            received += len(message.data)
            if received >= int(request.query["bytes"]):
                await socket.send_str(str(received))

    async def _play_late(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        await asyncio.sleep(float(request.query["after_s"]))
        async for _ in self._messages(request, socket):
            pass

    async def _play_flood(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        size, self.flooded_bytes = int(request.query["bytes"]), 0
        for _ in range(int(request.query["messages"])):
            await socket.send_bytes(bytes(size))
            self.flooded_bytes += size
        await socket.close(code=WSCloseCode.OK)


@contextlib.contextmanager
def running_in_thread(tls: ssl.SSLContext | None = None) -> Iterator[WebSocketUpstream]:
    """Run it beside the caller until the block is left."""
    upstream = WebSocketUpstream(tls)
    thread = threading.Thread(target=upstream.loop.run_forever, name="websocket-upstream", daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(upstream.start(), upstream.loop).result(timeout=10)
    try:
        yield upstream
    finally:
        asyncio.run_coroutine_threadsafe(upstream.stop(), upstream.loop).result(timeout=10)
        upstream.loop.call_soon_threadsafe(upstream.loop.stop)
        thread.join(timeout=10)
        upstream.loop.close()
