"""An upstream that lists models for keys that it knows, over real sockets."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web


class ModelsUpstream:
    """`statuses` are what each key is answered with in turn, the last for ever; without any, 401.

    A status of 0 cuts the connection.
    """

    def __init__(self) -> None:
        self.statuses: dict[str, list[int]] = {}
        self.asked: Counter[str] = Counter()
        self.running = 0
        self.most = 0
        self.gate: asyncio.Event | None = None
        """Requests wait for it: those with the keys in `held`, all where that is empty."""
        self.held: set[str] = set()
        self.pause_s = 0.0
        self.url = ""
        self.document: dict[str, object] = {"data": []}

    async def answer(self, request: web.Request) -> web.Response:
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        self.asked[key] += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.gate is not None and (not self.held or key in self.held):
                await self.gate.wait()
            await asyncio.sleep(self.pause_s)
        finally:
            self.running -= 1
        statuses = self.statuses.get(key, [401])
        status = statuses[min(self.asked[key], len(statuses)) - 1]
        if status == 0:
            assert request.transport is not None
            request.transport.abort()
        headers = {"location": "/elsewhere"} if status == 302 else {}
        return web.json_response({**self.document, "secret": key}, status=status or 500, headers=headers)


@asynccontextmanager
async def models_upstream() -> AsyncIterator[ModelsUpstream]:
    upstream = ModelsUpstream()
    app = web.Application()
    app.router.add_get("/v1/models", upstream.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        upstream.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield upstream
    finally:
        await runner.cleanup()
