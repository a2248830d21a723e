"""A backend over real sockets that is well, or ill in one of many ways."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum

from aiohttp import web


class Mode(Enum):
    """How it answers. REDIRECTS: to a path that is well; RESETS: it cuts the connection; HANGS: for ever."""

    GOOD = "good"
    REFUSES = "503"
    REDIRECTS = "302"
    HANGS = "hangs"
    HANGS_WITHIN = "hangs within its body"
    RESETS = "resets"


class CheckedBackend:
    """`asked` is when it was asked for what, by a clock that never goes back; `most` how often at once."""

    def __init__(self) -> None:
        self.mode = Mode.GOOD
        self.body = "it is well"
        self.asked: list[tuple[float, str]] = []
        self.fields: dict[str, str] = {}
        self.connections: set[object] = set()
        self.running = 0
        self.most = 0
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((time.monotonic(), request.path_qs))
        self.fields = dict(request.headers)
        assert request.transport is not None
        self.connections.add(request.transport.get_extra_info("peername"))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            return await self._answer(request)
        finally:
            self.running -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        match self.mode:
            case Mode.REFUSES:
                return web.Response(status=503, text=self.body)
            case Mode.REDIRECTS if request.path != "/elsewhere":
                return web.Response(status=302, headers={"location": "/elsewhere"})
            case Mode.HANGS:
                await asyncio.Event().wait()
            case Mode.HANGS_WITHIN:
                response = web.StreamResponse()
                await response.prepare(request)
                await response.write(self.body.encode())
                await asyncio.Event().wait()
            case Mode.RESETS:
                assert request.transport is not None
                request.transport.abort()
        return web.Response(text=self.body)


@asynccontextmanager
async def checked_backend(tls: ssl.SSLContext | None = None) -> AsyncIterator[CheckedBackend]:
    backend = CheckedBackend()
    app = web.Application()
    app.router.add_get("/{path:.*}", backend.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        scheme = "http" if tls is None else "https"
        backend.url = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}"
        yield backend
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await runner.cleanup()
