"""One HTTP/1.1 connection to an upstream, carrying one exchange at a time.

The law of this file: bytes come in through `buffer_updated`, are parsed by llhttp, and wait here, at most a window of
them, until the exchange takes them; nothing is ever dropped, and no ending is ever made up. A response is complete only
where its own framing says so (RFC 9112 section 6.3, section 8).
"""

import asyncio
import contextlib
import os
import ssl
from collections.abc import Awaitable, Callable
from typing import cast

import httptools

from proxy.eager import resolve_now
from proxy.errors import BAD_RESPONSE, HEAD_TIMEOUT, IDLE_TIMEOUT, TRUNCATED, Cause, RelayError, UpstreamClosed
from proxy.rules.headers import HOP_BY_HOP, RESPONSE_SPECIAL, Header, ResponseHead, connection_options, response_head

WINDOW_BYTES = 32 * 1024
"""Reading stops while more than this waits to be taken, and writing while more than this waits to be sent."""

FIELDS_MAX = 10_000
"""More fields in a head are malice. Granian's worker dies of more than 24,576."""

STATUS_LINE_START = b"HTTP/1."
"""How an answer begins. llhttp takes HTTP/2.0, RTSP and ICE as well, which are nothing to relay."""


Push = Callable[[bytes], Awaitable[None] | None]
"""Takes a piece of a body; returns None, or what is to be awaited before the next."""

# One buffer serves all connections of a worker: what is read into it is parsed and copied before the loop reads again.
READ_BUFFER = memoryview(bytearray(WINDOW_BYTES))


class Connection(asyncio.BufferedProtocol):
    """An upstream connection.

    Use: `begin`, `write` the request, `head`, `read` until `b""`, then hand back to the pool.
    """

    __slots__ = (
        "_blocked",
        "_buffered",
        "_chunks",
        "_complete",
        "_drained",
        "_error",
        "_head",
        "_head_bytes_max",
        "_headers",
        "_is_head_request",
        "_keeps_alive",
        "_loop",
        "_parser",
        "_push",
        "_reading_paused",
        "_special",
        "_transport",
        "_unbroken_bytes",
        "_version_unknown",
        "_waiter",
        "answered",
        "closed",
        "continued",
        "exchanges",
        "idle_until_s",
        "may_switch",
        "request_sent",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, head_bytes_max: int) -> None:
        self._loop = loop
        self._head_bytes_max = head_bytes_max
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._reading_paused = False
        self._headers: list[Header] = []
        self._special: dict[bytes, bytes] = {}
        self._unbroken_bytes = 0
        self._head: ResponseHead | None = None
        self._is_head_request = False
        self._complete = True
        self._keeps_alive = True
        self._version_unknown = False
        self._error: Exception | None = None
        self._push: Push | None = None
        self._blocked: Awaitable[None] | None = None
        self.answered = False
        """Whether any byte of an answer has come in this exchange."""
        self.continued = False
        """Whether the upstream answered `100 Continue`."""
        self.request_sent = True
        """Whether the whole request has been written."""
        self.may_switch = False
        """Whether a 101 is welcome; set, and unset, by whoever asks for another protocol."""
        self.closed = False
        self.exchanges = 0
        self.idle_until_s = 0.0

    # ---- for the exchange -------------------------------------------------------------------------------------------

    def begin(self, method: str) -> None:
        """Starts an exchange: what the last one left is forgotten."""
        self._is_head_request = method == "HEAD"
        self._head = None
        self._complete = False
        self._headers = []
        self._special = {}
        self._unbroken_bytes = 0
        self.answered = False
        self.continued = False
        self.request_sent = False
        self.exchanges += 1

    def write(self, data: bytes) -> None:
        """Sends bytes of the request; `drained` tells when more are welcome."""
        if self._transport is not None:
            self._transport.write(data)

    def finish_request(self) -> None:
        """Notes that the whole request has been written, which is when the wait for its answer begins to count."""
        self.request_sent = True
        self._wake()

    @property
    def congested(self) -> bool:
        """Whether more than a window of request bytes waits to be sent."""
        return self._drained is not None

    async def drained(self) -> None:
        """Waits while more than a window of request bytes waits to be sent.

        Raises RelayError if the connection fails.
        """
        while self._drained is not None:
            await self._drained
        if self._error is not None:
            raise self._error

    async def head(self, timeout_s: float | None) -> ResponseHead:
        """Waits for the final response head. The timeout runs from the end of the request.

        Raises RelayError; UpstreamClosed where no byte of an answer has come.
        """
        while self._head is None:
            if self._error is not None:
                raise self._error
            await self._wait(timeout_s if self.request_sent else None, HEAD_TIMEOUT)
        return self._head

    async def continue_or_head(self, timeout_s: float) -> ResponseHead | None:
        """Waits for `100 Continue` (returns None) or a final head.

        Returns None after `timeout_s` too (RFC 9110 section 10.1.1).
        """
        try:
            async with asyncio.timeout(timeout_s):
                while self._head is None and not self.continued:
                    if self._error is not None:
                        raise self._error
                    await self._wait(None, HEAD_TIMEOUT)
        except TimeoutError:
            return None
        return self._head

    async def read(self, timeout_s: float | None) -> bytes:
        """Returns the body bytes that have come, `b""` at the end of the body.

        Raises RelayError where it was cut short.
        """
        while not self._chunks:
            if self._complete:
                return b""
            if self._error is not None:
                raise self._error
            await self._wait(timeout_s, IDLE_TIMEOUT)
        return self.take()

    async def flow(self, push: Push, idle_timeout_s: float | None) -> bytes:
        """Gives the body to `push` as it comes, and returns its last bytes when the response is complete.

        `push` is called from within the loop's read, without waking the task that waits here, which saves a quarter of
        an event's cost in this thread. Where it returns something, the client takes no more for now: that is awaited,
        and a window of bytes waits here meanwhile. Raises RelayError where the body was cut short.
        """
        try:
            while not self._complete:
                if self._chunks:
                    blocked = push(self.take())
                    if blocked is not None:
                        await blocked
                    continue
                if self._error is not None:
                    raise self._error
                if idle_timeout_s is None:
                    self._push = push
                await self._wait(idle_timeout_s, IDLE_TIMEOUT)
                self._push = None
                blocked, self._blocked = self._blocked, None
                if blocked is not None:
                    await blocked
        finally:
            self._push = self._blocked = None
        return self.take()

    def take(self) -> bytes:
        """Returns the body bytes that wait here, without waiting for more."""
        chunks = self._chunks
        if not chunks:
            return b""
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._buffered = 0
        if self._reading_paused:
            self._reading_paused = False
            if self._transport is not None:
                self._transport.resume_reading()
        return data

    @property
    def complete(self) -> bool:
        """Whether the whole response has come in."""
        return self._complete

    @property
    def reusable(self) -> bool:
        """Whether another request may follow: both directions ended cleanly and the upstream keeps alive."""
        return self._complete and self._keeps_alive and self.request_sent and not self.closed and not self._chunks

    def idle_max_s(self, configured_s: float) -> float:
        """Returns how long this connection may idle.

        That is a second less than the upstream announced, so that ours is the first close.
        """
        announced_s = None if self._head is None else self._head.keep_alive_s
        return configured_s if announced_s is None else min(configured_s, max(announced_s - 1, 0))

    def tls_session(self) -> ssl.SSLSession | None:
        """Returns the TLS session that a later connection may resume, or None on plain TCP."""
        tls = None if self._transport is None else self._transport.get_extra_info("ssl_object")
        return None if tls is None else tls.session

    def hand_over(self, successor: asyncio.Protocol) -> None:
        """Passes the transport, and what came behind a 101, to another protocol; this ends here. Raises RelayError."""
        transport, self._transport = self._transport, None
        if transport is None:
            raise self._error or UpstreamClosed()
        self.closed = True
        self._parser = None
        transport.set_protocol(successor)
        successor.connection_made(transport)
        successor.data_received(b"".join(self._chunks))
        transport.resume_reading()

    def fail(self, error: Exception) -> None:
        """Ends the exchange as an error, unless its response is complete, and closes the connection at once."""
        if self._error is None and not self._complete:
            self._error = error
        self._keeps_alive = False
        self.abort()
        self._wake()

    def abort(self) -> None:
        """Closes the connection at once.

        What was not yet sent is lost, so the upstream never takes a part for the whole.
        """
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    # ---- for the event loop -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(WINDOW_BYTES)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the window is what may come at once
        return READ_BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        self.receive(READ_BUFFER[:nbytes])

    def receive(self, data: memoryview) -> None:
        """Takes bytes from the upstream."""
        if self._complete or self._parser is None:
            # Bytes that nobody asked for: a second response, or more body than was announced.
            self._keeps_alive = False
            self.abort()
            return
        if not self.answered:
            self.answered = True
            if data[:7] != STATUS_LINE_START:
                if not STATUS_LINE_START.startswith(data):
                    self.fail(RelayError(BAD_RESPONSE))
                    return
                self._version_unknown = True
        self._unbroken_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as switch:
            self._switch(bytes(data[switch.args[0] :]))
        except httptools.HttpParserError:
            self.fail(RelayError(BAD_RESPONSE))
        if self._unbroken_bytes > self._head_bytes_max and not self._complete:
            self.fail(RelayError(BAD_RESPONSE))
        push = self._push
        if push is not None and not self._complete and self._error is None:
            if not self._chunks:
                return
            self._blocked = push(self.take())
            if self._blocked is None:
                return
            self._push = None
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            # The last act of this method: the task may end the exchange, and the next one may begin, before it returns.
            resolve_now(self._loop, waiter, None)

    def eof_received(self) -> None:
        if self._complete:
            self.closed = True  # it may idle in the pool, and TLS takes some turns of the loop to end
        elif self._error is None and self._head is not None and self._ends_at_close():
            self._complete = True
            self._keeps_alive = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if exc is not None and not self._complete:
            self._read_last_words()
        if not self._complete and self._error is None:
            self._error = RelayError(TRUNCATED) if self.answered else UpstreamClosed()
        self._transport = None
        self._parser = None  # it holds this connection's methods, and so would keep it alive
        self._wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    # ---- for the parser ---------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete:
            # Another response begins behind this one, in the same read; what is kept of it would be the next one's.
            raise RelayError(BAD_RESPONSE)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head is not None:
            return  # a trailer: Granian can send none
        name = name.lower()
        if name in RESPONSE_SPECIAL:
            special = self._special
            # A repeated field is a list (RFC 9110 section 5.3).
            special[name] = value if name not in special else special[name] + b", " + value
            if name in HOP_BY_HOP:
                return
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        if self._complete or parser is None:
            raise RelayError(BAD_RESPONSE)
        status = parser.get_status_code()
        if self._version_unknown and not parser.get_http_version().startswith("1."):
            raise RelayError(BAD_RESPONSE)
        if status < 200:
            if status == 101 and self.may_switch:
                return
            # Granian cannot send 1xx, so 102 and 103 end here.
            if status == 101 or status < 100:
                raise RelayError(BAD_RESPONSE)
            self.continued = self.continued or status == 100
            self._headers = []
            self._special = {}
            return
        if (
            status > 999
            or len(self._headers) > FIELDS_MAX
            or (self._unbroken_bytes > self._head_bytes_max and head_bytes(self._headers) > self._head_bytes_max)
        ):
            raise RelayError(BAD_RESPONSE)
        self._head = response_head(status, self._headers, self._special)
        self._unbroken_bytes = 0
        if self._is_head_request:
            # llhttp would wait for the body that the Content-Length of an answer to HEAD only speaks of.
            self._complete = True
            self._keeps_alive = parser.should_keep_alive() or self._persists(parser.get_http_version())
            self._parser = httptools.HttpResponseParser(self)

    def on_body(self, body: bytes) -> None:
        if self._complete:
            raise RelayError(BAD_RESPONSE)
        self._chunks.append(body)
        self._unbroken_bytes = 0
        self._buffered += len(body)
        if self._buffered > WINDOW_BYTES and not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._head is None or self._complete or self._parser is None:
            return  # the end of an interim response
        self._complete = True
        self._keeps_alive = self._parser.should_keep_alive()

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _read_last_words(self) -> None:
        """Takes what had come before a write failed: an upstream that refuses a body answers, and closes.

        The loop does not read after a failed write. The socket is open until this callback returns; below TLS there is
        nothing to be had from it.
        """
        transport = self._transport
        if transport is None or transport.get_extra_info("ssl_object") is not None:
            return
        socket = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            while self._error is None and not self._complete and self._buffered <= WINDOW_BYTES:
                size = os.readv(socket.fileno(), (READ_BUFFER,))
                if not size:
                    break
                self.receive(READ_BUFFER[:size])

    def _switch(self, rest: bytes) -> None:
        """Makes a 101 the head of the exchange, all its fields in it, and keeps the bytes behind it for `hand_over`."""
        if not self.may_switch or self._transport is None:
            self.fail(RelayError(BAD_RESPONSE))
            return
        hop_by_hop = [pair for pair in self._special.items() if pair[0] in HOP_BY_HOP]
        self._head = ResponseHead(101, [*self._headers, *hop_by_hop], False, None, None)
        self._chunks = [rest]
        self._unbroken_bytes = 0
        self._transport.pause_reading()

    def _persists(self, version: str) -> bool:
        """Whether an answer without a body leaves the connection open (RFC 9112 section 9.3).

        llhttp asks for a length first.
        """
        return version == "1.1" and b"close" not in connection_options((self._special.get(b"connection", b""),))

    def _ends_at_close(self) -> bool:
        """Whether only the close ends the response: no length stated and not chunked (RFC 9112 section 6.3, 8)."""
        chunked = b"transfer-encoding" in self._special
        return not chunked and not any(name == b"content-length" for name, _ in self._headers)

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def _wait(self, timeout_s: float | None, cause: Cause) -> Awaitable[None]:
        """Returns what completes when something has come.

        With a timeout it ends as the error `cause` if nothing comes.
        """
        waiter = self._waiter = self._loop.create_future()
        return waiter if timeout_s is None else self._wait_at_most(waiter, timeout_s, cause)

    async def _wait_at_most(self, waiter: asyncio.Future[None], timeout_s: float, cause: Cause) -> None:
        timer = self._loop.call_later(timeout_s, self._time_out, waiter, cause)
        try:
            await waiter
        finally:
            timer.cancel()

    def _time_out(self, waiter: asyncio.Future[None], cause: Cause) -> None:
        if not waiter.done():
            self.fail(RelayError(cause))


def head_bytes(headers: list[Header]) -> int:
    """Returns the bytes that header fields take on the wire."""
    return sum(len(name) + len(value) + 4 for name, value in headers)
