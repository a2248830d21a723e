"""An upstream WebSocket over a real socket, against a peer that sends and reads exactly what the test says."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvloop

from proxy.rules.websocket import (
    BINARY,
    CLOSE,
    FIN,
    GOING_AWAY,
    PING,
    PONG,
    PROTOCOL_ERROR,
    TEXT,
    TOO_BIG,
    Close,
    ProtocolError,
    masked,
)
from proxy.upstream.connection import WINDOW_BYTES
from proxy.upstream.websocket import WebSocket

MESSAGE_BYTES_MAX = 1 << 20
DEADLINE_S = 5.0


class Peer:
    """The upstream's end of the connection, in frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, opcode: int, payload: bytes) -> None:
        size = len(payload)
        length = bytes((size,)) if size < 126 else b"\x7f" + struct.pack(">Q", size)
        self.writer.write(bytes((FIN | opcode,)) + length + payload)

    async def receive(self) -> tuple[int, bytes]:
        """The next frame: its opcode, and its payload without the mask."""
        first, second = await self.reader.readexactly(2)
        assert first & FIN
        assert second & 0x80, "a client's frame is not masked"
        size = second & 0x7F
        if size > 125:
            size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
        mask = await self.reader.readexactly(4)
        return first & 0x0F, masked(await self.reader.readexactly(size), mask)


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[tuple[WebSocket, Peer]]:
    """A WebSocket and its peer, past the handshake."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[Peer] = loop.create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set_result(Peer(reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    _, socket = await loop.create_connection(lambda: WebSocket(loop, MESSAGE_BYTES_MAX), "127.0.0.1", port)
    peer = await arrived
    try:
        yield socket, peer
    finally:
        socket.abort()
        peer.writer.close()
        server.close()
        await server.wait_closed()


def dialogue(play: Callable[[WebSocket, Peer], Awaitable[None]]) -> None:
    """Plays it out; fails where it leaves a task behind."""

    async def main() -> None:
        async with asyncio.timeout(DEADLINE_S), connected() as (socket, peer):
            await play(socket, peer)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_messages_go_both_ways_in_order() -> None:
    async def play(socket: WebSocket, peer: Peer) -> None:
        for number in range(50):
            peer.send(TEXT, b"%d" % number)
            peer.send(BINARY, b"%d" % number)
        for number in range(50):
            assert await socket.receive() == str(number)
            assert await socket.receive() == b"%d" % number
        await socket.send(TEXT, "ä".encode())
        await socket.send(BINARY, bytes(MESSAGE_BYTES_MAX))
        assert await peer.receive() == (TEXT, "ä".encode())
        assert await peer.receive() == (BINARY, bytes(MESSAGE_BYTES_MAX))

    dialogue(play)


def test_pings_are_answered_and_not_told() -> None:
    async def play(socket: WebSocket, peer: Peer) -> None:
        peer.send(PING, b"one")
        peer.send(PONG, b"unasked")
        peer.send(TEXT, b"message")
        assert await socket.receive() == "message"
        assert await peer.receive() == (PONG, b"one")

    dialogue(play)


def test_a_close_frame_is_answered_once_and_told() -> None:
    async def play(socket: WebSocket, peer: Peer) -> None:
        peer.send(TEXT, b"last")
        peer.send(CLOSE, struct.pack(">H", 4000) + b"done")
        assert await socket.receive() == "last"
        assert await socket.receive() == Close(4000, "done")
        socket.close(Close(GOING_AWAY, "too late"))
        await socket.send(TEXT, b"too late")
        assert await peer.receive() == (CLOSE, struct.pack(">H", 4000) + b"done")
        peer.writer.close()
        await socket.finish(DEADLINE_S)
        assert await peer.reader.read() == b""

    dialogue(play)


@pytest.mark.parametrize("end", ["fin", "reset"])
def test_an_end_without_a_close_frame_is_no_close(end: str) -> None:
    async def play(socket: WebSocket, peer: Peer) -> None:
        peer.send(TEXT, b"before")
        assert await socket.receive() == "before"
        if end == "reset":
            peer.writer.transport.abort()
        else:
            peer.writer.close()
        assert await socket.receive() is None
        await socket.send(TEXT, b"to nobody")
        socket.close(Close(1000, ""))
        await socket.finish(DEADLINE_S)

    dialogue(play)


def test_what_came_before_the_end_is_told_before_it() -> None:
    async def play(socket: WebSocket, peer: Peer) -> None:
        for _ in range(10):
            peer.send(BINARY, bytes(WINDOW_BYTES))
        peer.writer.write(b"\x82\x05half")
        peer.writer.close()
        for _ in range(10):
            assert await socket.receive() == bytes(WINDOW_BYTES)
            await asyncio.sleep(0.01)
        assert await socket.receive() is None

    dialogue(play)


@pytest.mark.parametrize(
    ("data", "code"), [(b"\x83\x00", PROTOCOL_ERROR), (b"\x82\x7f" + struct.pack(">Q", MESSAGE_BYTES_MAX + 1), TOO_BIG)]
)
def test_a_peer_that_breaks_the_protocol_is_told_so(data: bytes, code: int) -> None:
    async def play(socket: WebSocket, peer: Peer) -> None:
        peer.writer.write(data + bytes(1000))
        with pytest.raises(ProtocolError) as caught:
            await socket.receive()
        assert caught.value.code == code
        finishing = asyncio.create_task(socket.finish(DEADLINE_S))
        opcode, payload = await peer.receive()
        assert (opcode, payload[:2]) == (CLOSE, struct.pack(">H", code))
        assert payload[2:]
        peer.send(TEXT, b"unheard")
        peer.writer.close()
        await finishing

    dialogue(play)


def test_closing_waits_for_the_peers_close_frame_and_drops_what_comes_before_it() -> None:
    async def play(socket: WebSocket, peer: Peer) -> None:
        socket.close(Close(1000, "bye"))
        finishing = asyncio.create_task(socket.finish(DEADLINE_S))
        assert await peer.receive() == (CLOSE, struct.pack(">H", 1000) + b"bye")
        for _ in range(20):
            peer.send(BINARY, bytes(WINDOW_BYTES))
        await asyncio.sleep(0.05)
        assert not finishing.done()
        peer.send(CLOSE, struct.pack(">H", 1000))
        peer.writer.close()
        await finishing

    dialogue(play)


def test_a_peer_that_does_not_close_is_left_after_the_timeout() -> None:
    async def play(socket: WebSocket, peer: Peer) -> None:
        socket.close(Close(1000, ""))
        await socket.finish(0.05)
        assert await peer.receive() == (CLOSE, struct.pack(">H", 1000))
        with contextlib.suppress(ConnectionResetError):
            assert await peer.reader.read() == b""

    dialogue(play)


def test_a_peer_is_not_read_faster_than_its_messages_are_taken() -> None:
    async def play(socket: WebSocket, peer: Peer) -> None:
        message = bytes(256 * 1024)
        for _ in range(200):
            peer.send(BINARY, message)
        await asyncio.sleep(0.2)
        held_back = peer.writer.transport.get_write_buffer_size()
        assert held_back > 30 << 20, "of 50 MiB more has left than sockets hold"
        for _ in range(200):
            assert await socket.receive() == message
        assert peer.writer.transport.get_write_buffer_size() == 0

    dialogue(play)


def test_a_peer_that_does_not_read_holds_the_sender_back() -> None:
    """And of its pings, which come all the same, only the last is answered."""

    async def play(socket: WebSocket, peer: Peer) -> None:
        sent = 0

        async def send_on() -> None:
            nonlocal sent
            while True:
                await socket.send(BINARY, bytes(256 * 1024))
                sent += 1

        sending = asyncio.create_task(send_on())
        listening = asyncio.create_task(socket.receive())
        await asyncio.sleep(0.2)
        stopped_at = sent
        for number in range(100):
            peer.send(PING, b"%d" % number)
        await asyncio.sleep(0.2)
        assert sent == stopped_at
        assert sent < 100
        sending.cancel()
        opcodes = []
        while True:
            opcode, payload = await peer.receive()
            if opcode == PONG:
                break
            opcodes.append(opcode)
        assert payload == b"99"
        assert set(opcodes) == {BINARY}
        listening.cancel()
        await asyncio.gather(sending, listening, return_exceptions=True)

    dialogue(play)


def test_a_peer_that_leaves_frees_a_sender_that_waits() -> None:
    async def play(socket: WebSocket, peer: Peer) -> None:
        async def send_on() -> None:
            for _ in range(100):
                await socket.send(BINARY, bytes(256 * 1024))

        sending = asyncio.create_task(send_on())
        await asyncio.sleep(0.1)
        assert not sending.done()
        peer.writer.transport.abort()
        await sending

    dialogue(play)
