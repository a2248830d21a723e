"""Backends of one upstream: HTTP servers that say who they are, remember what they have processed, and fail as told.

    /health                 200, or what `health_status` says
    /events                 an event stream that names the backend, until `end_streams`
    anything else           a request's own body, or its path where it has none, as soon as it has come
    a WebSocket, anywhere   the backend's id, and then each message back

Every answer names its backend in `x-backend`. All backends of a test run in one thread.
"""

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

from aiohttp import WSMsgType, web

from loadtests.processes import free_port
from tests.end_to_end.raw_client import RawClient, Response, request_bytes
from tests.end_to_end.waiting import eventually

T = TypeVar("T")

MARKER = "x-marker"
EVENT_INTERVAL_S = 0.02
CALL_S = 10.0
DEADLINE_S = 15.0
ACCEPT_EVENTS = [(b"Accept", b"text/event-stream")]
KNOCKS = 4
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: what is closed is reset."""


class Does(StrEnum):
    """What a backend does with requests."""

    WELL = "well"
    FAILS = "fails"  # answers 503
    SLOW = "slow"  # answers after `slow_s`
    HANGS = "hangs"  # takes requests and says nothing; they are never answered
    CLOSES = "closes"  # closes connections as soon as they come, and others at their next request
    DEAD = "dead"  # has reset all connections and refuses others
    GONE = "gone"  # as a machine without power: nothing answers, not even a SYN


class Took(NamedTuple):
    """A request that a backend has read whole. Its marker is the client's."""

    at_s: float
    method: str
    path: str
    marker: str
    authorization: str


class Backend:
    """One server on a port of its own, which it keeps whatever it does."""

    def __init__(self, name: str) -> None:
        self.id = name
        self.port = free_port()
        self.does = Does.WELL
        self.slow_s = 0.25
        self.health_status = 200
        self.took: list[Took] = []
        """All but health checks, whatever became of them."""
        self.reached_s = 0.0
        """When anything came last, health checks apart: a request, or a connection that was closed for that."""
        self.checked_s: list[float] = []
        """When it was asked for its health."""
        self.running = 0
        """Requests that are here and have no whole answer; open WebSockets, too."""
        self.running_max = 0
        self._streams_end = asyncio.Event()
        self._changed = asyncio.Event()
        self._server: web.Server
        self._socket: socket.socket
        self._accepting: set[asyncio.Task[None]] = set()
        self._knocks: list[socket.socket] = []
        self._loop: asyncio.AbstractEventLoop

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # For tests

    def becomes(self, does: Does) -> float:
        """Changes what it does; returns when that was done."""
        return self._call(self._become(does))

    def end_streams(self) -> None:
        """Ends the event streams that are open."""
        self._call(self._end_streams())

    def forget(self) -> None:
        """Begins its records anew."""
        self._call(self._forget())

    # In its thread

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = web.Server(self._handle, handler_cancellation=True, keepalive_timeout=75.0)
        self._listen()

    async def stop(self) -> None:
        await self._become(Does.DEAD)
        self._socket.close()
        await self._server.shutdown(1.0)

    async def _become(self, does: Does) -> float:
        before, self.does = self.does, does
        self._changed.set()
        self._changed = asyncio.Event()
        if Does.DEAD in (before, does) or Does.GONE in (before, does):
            self._close_listener()
            if does is Does.DEAD:
                self._bind()
                self._reset_connections()
            elif does is Does.GONE:
                self._bind()
                self._fill_backlog()
            else:
                self._listen()
        return time.monotonic()

    async def _end_streams(self) -> None:
        self._streams_end.set()
        self._streams_end = asyncio.Event()

    async def _forget(self) -> None:
        self.took = []
        self.running_max = self.running

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(CALL_S)

    # Its listener

    def _bind(self) -> None:
        """Without more, it keeps the port and refuses connections."""
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", self.port))

    def _listen(self) -> None:
        """A server of asyncio's does not survive to be closed while it accepts a connection, before Python 3.12."""
        self._bind()
        self._socket.setblocking(False)
        self._socket.listen(1024)
        self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            accepted, _ = self._socket.accept()
            accepted.setblocking(False)
            task = self._loop.create_task(self._begin(accepted))
            self._accepting.add(task)
            task.add_done_callback(self._accepting.discard)

    async def _begin(self, accepted: socket.socket) -> None:
        await self._loop.connect_accepted_socket(self._protocol, accepted)

    def _close_listener(self) -> None:
        for knock in self._knocks:
            knock.close()
        self._knocks = []
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _fill_backlog(self) -> None:
        """Once it is full, the kernel drops every SYN."""
        self._socket.listen(0)
        for _ in range(KNOCKS):
            knock = socket.socket()
            knock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                knock.connect(("127.0.0.1", self.port))
            self._knocks.append(knock)

    def _reset_connections(self) -> None:
        for connection in self._server.connections:
            transport = connection.transport
            if transport is not None:
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                transport.abort()

    def _protocol(self) -> asyncio.Protocol:
        if self.does in (Does.CLOSES, Does.DEAD):
            self.reached_s = time.monotonic()
            return Closing()
        return self._server()

    # Its answers

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/health":
            self.checked_s.append(time.monotonic())
            return await self._answer(request, web.Response(status=self.health_status))
        self.running += 1
        self.running_max = max(self.running_max, self.running)
        try:
            body = await request.read()
            self.reached_s = now_s = time.monotonic()
            fields = request.headers
            marker, authorization = fields.get(MARKER, ""), fields.get("authorization", "")
            self.took.append(Took(now_s, request.method, request.path_qs, marker, authorization))
            if fields.get("upgrade", "").lower() == "websocket" and self.does is Does.WELL:
                return await self._echo(request)
            if request.path == "/events" and self.does is Does.WELL:
                return await self._stream(request)
            return await self._answer(request, web.Response(body=body or request.path_qs.encode()))
        finally:
            self.running -= 1

    async def _answer(self, request: web.BaseRequest, response: web.Response) -> web.Response:
        """A whole answer, if it does not fail; in one piece, so that nothing ever breaks off within one."""
        response.headers["x-backend"] = self.id
        if self.does is Does.FAILS:
            return web.Response(status=503, text="unwell", headers={"x-backend": self.id})
        if self.does is Does.SLOW:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.slow_s):
                    await self._changed.wait()
        hangs = self.does in (Does.HANGS, Does.GONE)
        if hangs:
            await self._changed.wait()
        if (hangs or self.does is Does.CLOSES) and request.transport is not None:
            request.transport.close()
        return response

    async def _stream(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", "x-backend": self.id})
        await response.prepare(request)
        over = self._streams_end
        while not over.is_set():
            await response.write(f"data: {self.id}\n\n".encode())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVENT_INTERVAL_S):
                    await over.wait()
        await response.write(b"data: end\n\n")
        await response.write_eof()
        return response

    async def _echo(self, request: web.BaseRequest) -> web.StreamResponse:
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        await websocket.send_str(self.id)
        while (message := await websocket.receive()).type in (WSMsgType.TEXT, WSMsgType.BINARY):
            if message.type is WSMsgType.TEXT:
                await websocket.send_str(message.data)
            else:
                await websocket.send_bytes(message.data)
        return websocket


class Closing(asyncio.Protocol):
    """A connection that is closed as soon as it is there."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class Backends(Iterable[Backend]):
    """Those of one upstream."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        self._backends = tuple(backends)

    def __iter__(self) -> Iterator[Backend]:
        return iter(self._backends)

    def settings(self, **each: Any) -> list[dict[str, Any]]:
        """As `upstreams` has them."""
        return [{"id": backend.id, "url": backend.url, **each} for backend in self]

    def recover(self) -> None:
        """Has all be well and done with what they had to do, and their records begin anew."""
        for backend in self:
            backend.health_status = 200
            if backend.does is not Does.WELL:
                backend.becomes(Does.WELL)
            backend.end_streams()
        eventually(lambda: not any(backend.running for backend in self), DEADLINE_S, what="the end of all requests")
        for backend in self:
            backend.forget()

    def await_use(self) -> None:
        """Until each has had a request, from now on."""
        since_s = time.monotonic()
        eventually(lambda: all(backend.reached_s > since_s for backend in self), DEADLINE_S, what="the use of all")

    def processed(self) -> Counter[str]:
        """How often each marker has come."""
        return Counter(took.marker for backend in self for took in list(backend.took) if took.marker)


def open_stream(client: RawClient, path: str) -> Response:
    """The head of an event stream that goes on until its backend ends it."""
    client.send(request_bytes("GET", f"{path}/events", ACCEPT_EVENTS))
    return client.read_head()


def backend_of(response: Response) -> str:
    assert response.status == 200, response
    return response.value("x-backend").decode()


@contextlib.contextmanager
def running(*names: str) -> Iterator[Backends]:
    """Run backends beside the caller until the block is left."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="backends", daemon=True)
    thread.start()
    backends = [Backend(name) for name in names]
    for backend in backends:
        asyncio.run_coroutine_threadsafe(backend.start(), loop).result(CALL_S)
    try:
        yield Backends(backends)
    finally:
        for backend in backends:
            asyncio.run_coroutine_threadsafe(backend.stop(), loop).result(CALL_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(CALL_S)
        loop.close()
