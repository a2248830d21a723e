"""WebSocket as plain values (RFC 6455): the handshake with an upstream, and frames between bytes and events.

Bytes go in, events come out, and whatever breaks the protocol is an error that knows its close code (section 7.4.1).
This is the client's end of a connection: what comes in is unmasked, what goes out is masked. Randomness is an argument.
"""

import codecs
from base64 import b64encode
from collections.abc import Collection, Iterable
from functools import lru_cache
from hashlib import sha1
from typing import NamedTuple

from proxy.errors import BAD_RESPONSE, RelayError
from proxy.rules.forwarding import TOKEN
from proxy.rules.headers import HOP_BY_HOP, Header

# ---- the handshake --------------------------------------------------------------------------------------------------

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
HANDSHAKE_DROPPED = HOP_BY_HOP | {
    b"sec-websocket-accept",
    b"sec-websocket-extensions",
    b"sec-websocket-key",
    b"sec-websocket-protocol",
    b"sec-websocket-version",
}
"""Fields of a client's handshake that are made anew, but not extensions: Granian has none, so no frame may use one."""


def handshake_end(received: Iterable[Header], key: bytes) -> bytes:
    """Returns the fields that make a request a handshake, and the end of its head. `key` is 16 random bytes in base64.

    The subprotocols that the client offers go into one field, since not every server looks at a second one.
    """
    offered = values(received, b"sec-websocket-protocol")
    return (
        b"upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-key: %b\r\nsec-websocket-version: 13\r\n%b\r\n"
        % (
            key,
            b"sec-websocket-protocol: %b\r\n" % b", ".join(offered) if offered else b"",
        )
    )


def accept_value(key: bytes) -> bytes:
    """Returns the `Sec-WebSocket-Accept` that proves that a key was understood (section 4.2.2)."""
    return b64encode(sha1(key + GUID, usedforsecurity=False).digest())


def chosen_protocol(answer: Collection[Header], key: bytes, offered: Collection[str]) -> str | None:
    """Checks the fields of a 101, names in lower case, and returns the subprotocol that the upstream chose.

    Raises RelayError(BAD_RESPONSE) where section 4.1 has a client fail the connection.
    """
    if tokens(answer, b"upgrade") != [b"websocket"] or b"upgrade" not in tokens(answer, b"connection"):
        raise RelayError(BAD_RESPONSE)
    if values(answer, b"sec-websocket-accept") != [accept_value(key)] or values(answer, b"sec-websocket-extensions"):
        raise RelayError(BAD_RESPONSE)
    chosen = values(answer, b"sec-websocket-protocol")
    if not chosen:
        return None
    # A name that is no token never reaches Granian, which would panic on a control byte in it.
    if len(chosen) > 1 or not TOKEN.fullmatch(chosen[0]) or chosen[0].decode() not in offered:
        raise RelayError(BAD_RESPONSE)
    return chosen[0].decode()


def values(headers: Iterable[Header], name: bytes) -> list[bytes]:
    """Returns the values of all fields of a name."""
    return [value for field, value in headers if field == name]


def tokens(headers: Iterable[Header], name: bytes) -> list[bytes]:
    """Returns the members of a list field, in lower case."""
    return [token.strip().lower() for value in values(headers, name) for token in value.split(b",")]


def refusal_headers(headers: Iterable[Header]) -> list[Header]:
    """Returns the fields of a refused handshake with no name twice, since Granian panics on a repeated one.

    Repeated fields are joined with commas (RFC 9110 section 5.3); of `Set-Cookie`, which cannot be joined, the first
    stays. The length is left to Granian, which also adds the accept value of its own hop.
    """
    joined: dict[bytes, bytes] = {}
    for name, value in headers:
        if name not in joined:
            joined[name] = value
        elif name != b"set-cookie":
            joined[name] += b", " + value
    return [pair for pair in joined.items() if pair[0] not in (b"content-length", b"sec-websocket-accept")]


# ---- frames ---------------------------------------------------------------------------------------------------------

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
OPCODES = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
FIN = 0x80
RESERVED_BITS = 0x70
MASKED = 0x80
CONTROL_BYTES_MAX = 125
SHORT_BYTES_MAX = 0xFFFF
XOR_BYTES_MAX = 1024

NORMAL = 1000
GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
NO_CODE = 1005  # never on the wire: what an API says of a close frame without a code
NOT_UTF8 = 1007
TOO_BIG = 1009
INTERNAL_ERROR = 1011
NOT_ON_THE_WIRE = frozenset((1004, NO_CODE, 1006, 1015))


class ProtocolError(Exception):
    """The upstream broke the protocol. `code` is the close code that says how; the text is a reason for both peers."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Ping(NamedTuple):
    """A ping, to be answered with its payload."""

    payload: bytes


class Close(NamedTuple):
    """A close frame: its code, None where it has none, and its reason."""

    code: int | None
    reason: str


Event = str | bytes | Ping | Close
"""What frames amount to: a whole text message, a whole binary one, a ping, a close. Pongs mean nothing here."""


class FrameParser:
    """Makes events of bytes. `feed` takes bytes as they come; `next_event` works them off, one event at a time.

    Holds what has been fed and not yet become an event, so whoever stops feeding it bounds its memory.
    """

    __slots__ = ("_buffer", "_decoder", "_message_bytes", "_message_bytes_max", "_opcode", "_pieces", "_texts")

    def __init__(self, message_bytes_max: int) -> None:
        self._message_bytes_max = message_bytes_max
        self._buffer = bytearray()
        # of a fragmented message: its kind (CONTINUATION: there is none) and what has come of it
        self._opcode = CONTINUATION
        self._message_bytes = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._pieces: list[bytes] = []
        self._texts: list[str] = []

    @property
    def buffered(self) -> int:
        """Bytes that wait to become events."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Adds bytes as they came from the wire."""
        self._buffer += data

    def next_event(self) -> Event | None:
        """Returns the next event, or None where it takes more bytes. Raises ProtocolError."""
        while (frame := self._next_frame()) is not None:
            opcode, fin, payload = frame
            if opcode == PING:
                return Ping(payload)
            if opcode == CLOSE:
                return close_event(payload)
            if opcode != PONG and (message := self._message(opcode, payload, fin=fin)) is not None:
                return message
        return None

    def _next_frame(self) -> tuple[int, bool, bytes] | None:
        """Takes a whole frame off the buffer. Raises ProtocolError as soon as its head shows one."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, length = buffer[0], buffer[1]
        opcode, fin = first & 0x0F, bool(first & FIN)
        if first & RESERVED_BITS:
            raise ProtocolError(PROTOCOL_ERROR, "reserved bits are set")
        if opcode not in OPCODES:
            raise ProtocolError(PROTOCOL_ERROR, "unknown opcode")
        if length & MASKED:
            raise ProtocolError(PROTOCOL_ERROR, "masked frame from a server")
        start = 2
        if opcode >= CLOSE:
            if not fin or length > CONTROL_BYTES_MAX:
                raise ProtocolError(PROTOCOL_ERROR, "control frame fragmented or too long")
        else:
            if (opcode == CONTINUATION) is (self._opcode == CONTINUATION):
                raise ProtocolError(PROTOCOL_ERROR, "fragment out of order")
            if length > CONTROL_BYTES_MAX:
                start = 4 if length == 126 else 10
                if len(buffer) < start:
                    return None
                length = int.from_bytes(buffer[2:start], "big")
            if self._message_bytes + length > self._message_bytes_max:
                raise ProtocolError(TOO_BIG, "message too big")
        end = start + length
        if len(buffer) < end:
            return None
        with memoryview(buffer) as view:
            payload = bytes(view[start:end])
        del buffer[:end]
        return opcode, fin, payload

    def _message(self, opcode: int, payload: bytes, *, fin: bool) -> str | bytes | None:
        """Adds a frame to its message; returns the message if it is whole."""
        kind = opcode or self._opcode
        if kind == BINARY:
            self._pieces.append(payload)
        else:
            try:
                self._texts.append(self._decoder.decode(payload, fin))
            except UnicodeDecodeError:
                raise ProtocolError(NOT_UTF8, "text is not UTF-8") from None
        if not fin:
            self._opcode = kind
            self._message_bytes += len(payload)
            return None
        self._opcode = CONTINUATION
        self._message_bytes = 0
        message: str | bytes
        if kind == BINARY:
            message = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces.clear()
        else:
            message = self._texts[0] if len(self._texts) == 1 else "".join(self._texts)
            self._texts.clear()
        return message


def close_event(payload: bytes) -> Close:
    """Returns what the payload of a close frame says (section 5.5.1). Raises ProtocolError where it must not say so."""
    if not payload:
        return Close(None, "")
    code = int.from_bytes(payload[:2], "big")
    # 1016 to 2999 are reserved for the protocol and its extensions, below 1000 nothing is defined (section 7.4.2).
    if len(payload) == 1 or not (NORMAL <= code < 1016 or 3000 <= code < 5000) or code in NOT_ON_THE_WIRE:
        raise ProtocolError(PROTOCOL_ERROR, "bad close code")
    try:
        return Close(code, payload[2:].decode())
    except UnicodeDecodeError:
        raise ProtocolError(NOT_UTF8, "close reason is not UTF-8") from None


def close_payload(close: Close) -> bytes:
    """Returns the payload of a close frame."""
    return b"" if close.code is None else close.code.to_bytes(2, "big") + close.reason.encode()


def frame(opcode: int, payload: bytes, mask: bytes) -> bytes:
    """Returns a whole, masked frame. `mask` is 4 random bytes."""
    size = len(payload)
    if size <= CONTROL_BYTES_MAX:
        head = bytes((FIN | opcode, MASKED | size))
    elif size <= SHORT_BYTES_MAX:
        head = bytes((FIN | opcode, MASKED | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((FIN | opcode, MASKED | 127)) + size.to_bytes(8, "big")
    return head + mask + masked(payload, mask)


def masked(payload: bytes, mask: bytes) -> bytes:
    """Returns a payload under a mask (section 5.3).

    One XOR of two long integers costs about 1 µs, and grows faster than its length; a table for each byte of the mask
    goes at 500 MB/s whatever the length. A C extension does better and costs megabytes of memory for its package.
    """
    size = len(payload)
    if size <= XOR_BYTES_MAX:
        key = (mask * (size // 4 + 1))[:size]
        return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")
    result = bytearray(payload)
    for lane in range(4):
        result[lane::4] = payload[lane::4].translate(xor_table(mask[lane]))
    return bytes(result)


@lru_cache(maxsize=256)
def xor_table(byte: int) -> bytes:
    """Returns what `bytes.translate` needs to XOR with one byte."""
    return bytes(value ^ byte for value in range(256))
