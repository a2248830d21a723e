"""WebSocket in bytes (RFC 6455 §5): frames of any shape, right or wrong, and a client that sends them."""

import base64
import os
import struct
from collections.abc import Sequence
from typing import NamedTuple

from tests.end_to_end.raw_client import BodyEnd, ClosedEarlyError, Header, RawClient, Response, request_bytes

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

FIN = 0x80
RSV1 = 0x40
MASKED = 0x80


class Frame(NamedTuple):
    fin: bool
    opcode: int
    payload: bytes


def encode_frame(opcode: int, payload: bytes, *, flags: int = FIN, mask: bytes | None = b"\x11\x22\x33\x44") -> bytes:
    """One frame; a client's frames are masked, `mask=None` leaves that out."""
    size = len(payload)
    masked = MASKED if mask is not None else 0
    if size < 126:
        length = bytes([masked | size])
    elif size < 65536:
        length = bytes([masked | 126]) + struct.pack(">H", size)
    else:
        length = bytes([masked | 127]) + struct.pack(">Q", size)
    if mask is None:
        return bytes([flags | opcode]) + length + payload
    return bytes([flags | opcode]) + length + mask + apply_mask(payload, mask)


def apply_mask(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def close_payload(code: int, reason: str = "") -> bytes:
    return struct.pack(">H", code) + reason.encode()


class WebSocketClient:
    """One WebSocket connection in bytes; nothing is answered, closed or put together unless the test says so."""

    def __init__(self, wire: RawClient) -> None:
        self.wire = wire
        self._buffer = bytearray()

    def handshake(self, target: str, headers: Sequence[Header] = ()) -> Response:
        """Send the opening handshake and return the answer, whatever it is."""
        key = base64.b64encode(os.urandom(16))
        opening = [
            (b"Connection", b"Upgrade"),
            (b"Upgrade", b"websocket"),
            (b"Sec-WebSocket-Version", b"13"),
            (b"Sec-WebSocket-Key", key),
        ]
        self.wire.send(request_bytes("GET", target, [*opening, *headers]))
        response = self.wire.read_head()
        if response.status != 101:
            self.wire.read_body(response)
        return response

    def send(self, opcode: int, payload: bytes, *, flags: int = FIN) -> None:
        self.wire.send(encode_frame(opcode, payload, flags=flags))

    def receive(self) -> Frame:
        """The next frame; raises ClosedEarlyError where the connection ends without one."""
        first, second = self._take(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", self._take(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", self._take(8))
        assert not second & MASKED, "a server's frame is masked"
        return Frame(bool(first & FIN), first & 0x0F, self._take(size))

    def receive_message(self) -> Frame:
        """The next data message or close frame, put together from its fragments; pings and pongs are passed over."""
        parts: list[Frame] = []
        while True:
            frame = self.receive()
            if frame.opcode in {PING, PONG}:
                continue
            parts.append(frame)
            if frame.fin:
                return Frame(True, parts[0].opcode, b"".join(part.payload for part in parts))

    def receive_close(self) -> tuple[int | None, str]:
        """Code and reason of the close frame (code 0: it has none), or None where the connection ends without one."""
        try:
            while (frame := self.receive()).opcode != CLOSE:
                pass
        except ClosedEarlyError:
            return None, ""
        if not frame.payload:
            return 0, ""
        return struct.unpack(">H", frame.payload[:2])[0], frame.payload[2:].decode()

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = self.wire.read_some()
            if not data:
                raise ClosedEarlyError(bytes(self._buffer), BodyEnd.CUT)
            self._buffer += data
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken
