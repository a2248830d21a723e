"""An open WebSocket to an upstream, on the transport of the connection that shook hands.

aiohttp's client would do, but it hides the body of a refusal, spells the fields of a handshake anew and costs 12 MB a
worker; here a handshake is an exchange on a connection of the pool, and frames are values of `rules/websocket.py`.

The law of this file: at most a window of bytes, or one message, waits here in each direction; a close frame is sent
once; a connection that ends without one is never taken for closed.
"""

import asyncio
import os
from typing import cast

from proxy.rules.websocket import CLOSE, PONG, Close, FrameParser, Ping, ProtocolError, close_payload, frame
from proxy.upstream.connection import WINDOW_BYTES


class WebSocket(asyncio.Protocol):
    """Use: `receive` until it returns a Close or None, `send`; then `close` and `finish`, or `abort`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, message_bytes_max: int) -> None:
        self._loop = loop
        self._frames = FrameParser(message_bytes_max)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._reading_paused = False
        self._pong_due: bytes | None = None
        self._close_sent = False
        self._deaf = False
        """Whether nothing that may still come matters: the upstream has closed, or broken the protocol."""

    # ---- for the tunnel ---------------------------------------------------------------------------------------------

    async def receive(self) -> str | bytes | Close | None:
        """Returns the next message, how the upstream closed, or None where it ended without a close frame.

        Pings and close frames are answered here. Raises ProtocolError, of which the upstream has then been told.
        """
        while True:
            try:
                event = self._frames.next_event()
            except ProtocolError as error:
                self._deaf = True
                self.close(Close(error.code, error.reason))
                raise
            if event is None:
                if self._transport is None:
                    return None
                await self._more()
            elif isinstance(event, Ping):
                self._answer(event)
            else:
                if isinstance(event, Close):
                    self._deaf = True
                    self.close(event)
                return event

    async def send(self, opcode: int, payload: bytes) -> None:
        """Waits while more than a window of bytes waits to be sent, then sends a whole message.

        The waiting comes first so that, meanwhile, the tunnel asks for the next message and sees its client leave.
        """
        while self._drained is not None:
            await self._drained
        if not self._close_sent:
            self._write(opcode, payload)

    def close(self, close: Close) -> None:
        """Sends a close frame, unless one has been sent."""
        if not self._close_sent:
            self._close_sent = True
            self._write(CLOSE, close_payload(close))

    async def finish(self, timeout_s: float) -> None:
        """Waits for what completes the closing handshake (section 7.1.1), then closes the connection.

        Messages that come before the upstream's close frame are dropped; after it the upstream is the first to close.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not self._deaf and await self.receive() is not None:
                    pass
                while self._transport is not None:
                    await self._more()
        except (TimeoutError, ProtocolError):
            pass
        finally:
            self.abort()

    def abort(self) -> None:
        """Closes the connection at once; what was not yet sent is lost."""
        if self._transport is not None:
            self._transport.abort()

    # ---- for the event loop -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(WINDOW_BYTES)

    def data_received(self, data: bytes) -> None:
        if not self._deaf:
            self._frames.feed(data)
        if self._waiter is not None:
            self._wake()
        elif self._frames.buffered > WINDOW_BYTES and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - how it was lost makes no difference
        self._transport = None
        self._close_sent = True
        self._wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)
        if self._pong_due is not None:
            payload, self._pong_due = self._pong_due, None
            self._write(PONG, payload)

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _write(self, opcode: int, payload: bytes) -> None:
        if self._transport is not None:
            self._transport.write(frame(opcode, payload, os.urandom(4)))

    def _answer(self, ping: Ping) -> None:
        """Sends a pong; while the upstream does not read, only its newest ping is kept for that (section 5.5.3)."""
        if self._drained is not None:
            self._pong_due = ping.payload
        elif not self._close_sent:
            self._write(PONG, ping.payload)

    async def _more(self) -> None:
        """Waits until something has come, be it the end."""
        if self._reading_paused and self._transport is not None:
            self._reading_paused = False
            self._transport.resume_reading()
        self._waiter = self._loop.create_future()
        await self._waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
