"""One connection to the fake upstream: every byte in and out of it, and the exchange that a behaviour plays on it.

The law of this file: what arrives is recorded exactly as it came, and what a behaviour sends goes out exactly so.
"""

import asyncio
import contextlib
import hashlib
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from typing import Any, Protocol, cast

from loadtests.fake_requests import (
    Ending,
    Fate,
    Framing,
    MalformedRequestError,
    Query,
    Recorded,
    body_framing,
    parse_head,
)

READ_WINDOW_BYTES = 65536
BODY_KEPT_BYTES_MAX = 1 << 20
ARRIVALS_KEPT_MAX = 10_000
HEAD_BYTES_MAX = 4 << 20
# Time for sent bytes to leave before a reset throws away what is still queued.
FLUSH_BEFORE_RESET_S = 0.05


class PeerGoneError(Exception):
    """The peer closed before what was waited for."""


class Upstream(Protocol):
    """What a connection asks of the server that it belongs to."""

    def received(self, recorded: Recorded) -> None: ...

    def connection_opened(self, connection: "Connection") -> int: ...

    def connection_closed(self, connection: "Connection") -> None: ...

    def play(self, exchange: "Exchange") -> Awaitable[None]: ...


class Connection(asyncio.Protocol):
    """One accepted socket: reads requests one after another and plays the behaviour each asks for."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.number = 0
        self.idle = True
        self.idle_limit_s: float | None = None
        self.requests_seen = 0
        self.current: Recorded | None = None
        self._buffer = bytearray()
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._fate = Fate()
        self._reading_paused = False
        self.task: asyncio.Task[None] | None = None

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.number = self.upstream.connection_opened(self)
        self.task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= READ_WINDOW_BYTES and not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()
        self._arrived.set()

    def eof_received(self) -> None:
        self._peer_has_gone()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._peer_has_gone()
        self.upstream.connection_closed(self)
        if self.task is not None:
            self.task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _peer_has_gone(self) -> None:
        """No relay half-closes: an end of input means nobody waits for the rest of the answer."""
        if not self.gone:
            self._fate.closed_s = time.monotonic()
            self._arrived.set()

    @property
    def gone(self) -> bool:
        return self._fate.closed_s is not None

    # Reading

    async def receive_some(self) -> None:
        """Wait until the buffer has grown. Raises PeerGoneError at the end of input."""
        if self._reading_paused and len(self._buffer) < READ_WINDOW_BYTES:
            self._reading_paused = False
            self.transport.resume_reading()
        if self.gone:
            raise PeerGoneError
        self._arrived.clear()
        await self._arrived.wait()

    async def wait_until_gone(self) -> None:
        with contextlib.suppress(PeerGoneError):
            while True:
                await self.receive_some()

    async def read_head(self) -> bytes:
        """A request's head. A first byte that can begin no method (TLS to a plain port, say) is refused at once."""
        while not self._buffer:
            await self.receive_some()
        if not self._buffer[:1].isalpha():
            raise MalformedRequestError("the first byte is no request's")
        return await self.read_until(b"\r\n\r\n", HEAD_BYTES_MAX)

    async def read_until(self, mark: bytes, bytes_max: int) -> bytes:
        searched = 0
        while (found := self._buffer.find(mark, max(0, searched - len(mark)))) < 0:
            searched = len(self._buffer)
            if searched > bytes_max:
                raise MalformedRequestError("no end of the line or head")
            if self._reading_paused:  # a head may be larger than the window of bodies
                self._reading_paused = False
                self.transport.resume_reading()
            await self.receive_some()
        return self._take(found + len(mark))

    async def read_at_most(self, size: int) -> bytes:
        while not self._buffer:
            await self.receive_some()
        return self._take(min(size, len(self._buffer)))

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    # Writing

    async def send(self, data: bytes) -> None:
        """Write and wait until the peer has room. Raises PeerGoneError when nobody reads any more."""
        if self.gone:
            raise PeerGoneError
        self.transport.write(data)
        await self._writable.wait()
        await asyncio.sleep(0)  # or an endless answer never lets the loop see that its peer has gone

    async def reset(self) -> None:
        await asyncio.sleep(FLUSH_BEFORE_RESET_S)
        tcp = self.transport.get_extra_info("socket")
        if tcp is not None:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    async def end(self, ending: Ending) -> None:
        if ending is Ending.FIN:
            self.transport.close()
        elif ending is Ending.BARE_FIN:
            await asyncio.sleep(FLUSH_BEFORE_RESET_S)
            self.transport.abort()
        elif ending is Ending.RST:
            await self.reset()
        elif ending is Ending.HOLD:
            await self.wait_until_gone()
            self.transport.close()

    # Serving

    async def _serve(self) -> None:
        try:
            while not self.transport.is_closing():
                await self._serve_one()
        except PeerGoneError:
            pass
        except MalformedRequestError as error:
            self._record_malformed(str(error))
        except ValueError as error:  # of a parameter; the test that sent it must see why
            self.transport.write(response_head(500, [("x-bad-parameter", str(error)), ("connection", "close")]))
        finally:
            self.transport.close()

    async def _serve_one(self) -> None:
        self.idle, self.current = not self._buffer, None
        try:
            async with asyncio.timeout(self.idle_limit_s):
                head = await self.read_head()
        except TimeoutError:
            raise PeerGoneError from None
        self.idle = False
        self.idle_limit_s = None
        self.requests_seen += 1
        recorded = Recorded(self.number, self.requests_seen, head, time.monotonic(), self._fate)
        self.current = recorded
        self.upstream.received(recorded)
        await self._play(recorded)

    async def _play(self, recorded: Recorded) -> None:
        request = parse_head(recorded.head)
        recorded.method, recorded.target, recorded.headers = request.method, request.target, request.headers
        recorded.framing, length = body_framing(request.headers)
        exchange = Exchange(self, recorded, length)
        await self.upstream.play(exchange)
        if not self.transport.is_closing():
            await exchange.read_all()
        if request.version == b"HTTP/1.0" or b"close" in [value.lower() for value in recorded.values("connection")]:
            self.transport.close()

    def _record_malformed(self, what: str) -> None:
        if self.current is None:
            self.current = Recorded(
                self.number, self.requests_seen + 1, bytes(self._buffer), time.monotonic(), self._fate
            )
            self.upstream.received(self.current)
        self.current.malformed = what
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")


class Exchange:
    """One request and its answer, as a behaviour sees them."""

    def __init__(self, connection: Connection, recorded: Recorded, declared_bytes: int) -> None:
        self.connection = connection
        self.recorded = recorded
        self.query = Query(recorded.target)
        self._left_bytes = declared_bytes
        self._digest = hashlib.sha256()
        self._pieces: AsyncIterator[bytes] | None = None
        if recorded.framing is Framing.NONE or (recorded.framing is Framing.LENGTH and declared_bytes == 0):
            self._body_is_complete()

    def path(self) -> str:
        return self.recorded.target.decode("latin-1").partition("?")[0]

    # The request's body

    async def read_as_told(self) -> None:
        """`read=all` (the default), `none`, or `slow` at `read_bytes_per_s`; `expect=none` withholds the 100."""
        manner = self.query.text("read", "all")
        if manner == "none":
            return
        if self.query.text("expect", "100") == "100" and not self.recorded.complete:
            await self._send_continue()
        if manner == "slow":
            await self._read_slowly(self.query.integer("read_bytes_per_s", 65536))
        else:
            await self.read_all()

    async def read_all(self) -> None:
        async for _ in self._body():
            pass

    async def _read_slowly(self, bytes_per_s: int) -> None:
        async for piece in self._body():
            await asyncio.sleep(len(piece) / bytes_per_s)

    async def _send_continue(self) -> None:
        if b"100-continue" in [value.lower() for value in self.recorded.values("expect")]:
            await self.connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _body(self) -> AsyncIterator[bytes]:
        if self._pieces is None:
            chunked = self.recorded.framing is Framing.CHUNKED
            self._pieces = self._chunked_pieces() if chunked else self._length_pieces()
        return self._pieces

    async def _length_pieces(self) -> AsyncIterator[bytes]:
        while self._left_bytes:
            yield await self._read_piece()
        self._body_is_complete()

    async def _chunked_pieces(self) -> AsyncIterator[bytes]:
        connection = self.connection
        while self._left_bytes_of_chunk(await connection.read_until(b"\r\n", 4096)):
            while self._left_bytes:
                yield await self._read_piece()
            if await connection.read_until(b"\r\n", 4096) != b"\r\n":
                raise MalformedRequestError("a chunk is longer than it says")
        while (line := await connection.read_until(b"\r\n", READ_WINDOW_BYTES)) != b"\r\n":
            self.recorded.trailers += line
        self._body_is_complete()

    def _left_bytes_of_chunk(self, line: bytes) -> int:
        size = line[:-2]
        if not size or len(size) > 16 or size.strip(b"0123456789abcdefABCDEF"):
            raise MalformedRequestError("chunk size")
        self._left_bytes = int(size, 16)
        return self._left_bytes

    async def _read_piece(self) -> bytes:
        piece = await self.connection.read_at_most(min(self._left_bytes, READ_WINDOW_BYTES))
        recorded = self.recorded
        self._left_bytes -= len(piece)
        self._digest.update(piece)
        recorded.body += piece[: BODY_KEPT_BYTES_MAX - len(recorded.body)]
        recorded.body_bytes += len(piece)
        if len(recorded.arrivals) < ARRIVALS_KEPT_MAX:
            recorded.arrivals.append((time.monotonic(), recorded.body_bytes))
        return piece

    def _body_is_complete(self) -> None:
        self.recorded.body_sha256 = self._digest.hexdigest()
        self.recorded.complete = True

    def json_body(self) -> dict[str, Any]:
        try:
            document = json.loads(bytes(self.recorded.body) or b"{}")
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}

    # The answer

    async def send(self, data: bytes) -> None:
        await self.connection.send(data)

    async def send_document(self, document: Any, status: int = 200, headers: Sequence[tuple[str, str]] = ()) -> None:
        """A plain JSON answer with a Content-Length; none of its body to HEAD."""
        body = json.dumps(document, ensure_ascii=False).encode()
        lines = [("content-type", "application/json"), ("content-length", str(len(body))), *headers]
        await self.send(response_head(status, lines) + (b"" if self.recorded.method == "HEAD" else body))

    async def send_events(self, events: Iterator[bytes]) -> None:
        """A chunked event stream: one chunk an event, or an event in `segments` chunks; cut as the query says."""
        query = self.query
        interval_s, segments = query.seconds("interval_ms"), query.integer("segments", 1)
        cut_after = query.optional_integer("cut_after_events")
        head = [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache")]
        await self.send(response_head(200, [*head, ("transfer-encoding", "chunked")]))
        for number, event in enumerate(events):
            if number == cut_after:
                await self.connection.end(query.ending())
                return
            for piece in split_evenly(event, segments):
                await self.send(chunk(piece))
                if segments > 1:
                    await asyncio.sleep(0.002)  # or the kernel makes one segment of them again
            if interval_s:  # before the next event is made, for events carry the time of their making
                await asyncio.sleep(interval_s)
        await self.send(LAST_CHUNK)
        await self.connection.end(query.ending())


LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def split_evenly(data: bytes, count: int) -> list[bytes]:
    size = -(-len(data) // count)
    return [data[start : start + size] for start in range(0, len(data), size)]


def response_head(status: int, headers: Sequence[tuple[str, str]], reason: str = "Fake", version: str = "1.1") -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/{version} {status} {reason}\r\n{lines}\r\n".encode("latin-1")
