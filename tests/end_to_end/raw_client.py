"""An HTTP/1.1 client in bytes: it sends exactly what it is given, and tells how a response ended."""

import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

import orjson

DEADLINE_S = 10.0
HEAD_BYTES_MAX = 4 << 20

Header = tuple[bytes, bytes]


class BodyEnd(StrEnum):
    """How a response's body ended. Only COMPLETE is a clean end."""

    COMPLETE = "complete"
    CUT = "cut"  # the connection was closed before the end that the framing promised
    RESET = "reset"
    MALFORMED = "malformed"  # the chunked framing itself is wrong


@dataclass(slots=True)
class Response:
    """One response as it came."""

    version: bytes
    status: int
    reason: bytes
    headers: list[Header]
    head: bytes
    interim: list[int]
    body: bytes = b""
    framing: str = ""  # length, chunked, close or none
    end: BodyEnd = BodyEnd.COMPLETE
    head_s: float = 0.0
    arrivals: list[tuple[float, int]] = field(default_factory=list)  # (time, body bytes so far)

    def values(self, name: str) -> list[bytes]:
        """All values of a header field, in order."""
        wanted = name.lower().encode()
        return [value for key, value in self.headers if key.lower() == wanted]

    def value(self, name: str) -> bytes:
        (value,) = self.values(name)
        return value

    def json(self) -> Any:
        return orjson.loads(self.body)

    def error_type(self) -> str:
        """The word of one of the relay's own errors."""
        return str(self.json()["error"]["type"])

    @property
    def failed(self) -> bool:
        """Whether a client can tell that this is not the whole answer."""
        return self.status in {502, 504} or self.end is not BodyEnd.COMPLETE


class ClosedEarlyError(Exception):
    """The relay closed the connection before a response head; `received` is what came of it."""

    def __init__(self, received: bytes, end: BodyEnd) -> None:
        super().__init__(f"{end} after {received!r}")
        self.received = received
        self.end = end


class RawClient:
    """One connection to the relay."""

    def __init__(
        self, host: str, port: int, tls: ssl.SSLContext | None = None, *, receive_buffer_bytes: int = 0
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        plain = socket.socket(family, socket.SOCK_STREAM)
        plain.settimeout(DEADLINE_S)
        if receive_buffer_bytes:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            plain.connect((host, port))
            self.socket = plain if tls is None else tls.wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise
        self._buffer = bytearray()
        self._sent = b""  # the beginning of what was sent last

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Leave with a RST, as a killed program with unread data does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.socket.close()

    def send(self, data: bytes) -> None:
        self._sent = data[:200]
        self.socket.sendall(data)

    def request(
        self,
        method: str,
        target: str | bytes,
        headers: Sequence[Header] = (),
        body: bytes | None = None,
    ) -> Response:
        """Send a well-formed request and read its response."""
        self.send(request_bytes(method, target, headers, body))
        return self.read_response(method)

    def read_response(self, method: str = "GET") -> Response:
        """Read one response; interim ones are only noted. Raises ClosedEarlyError where there is none."""
        response = self.read_head()
        self.read_body(response, method)
        return response

    def read_head(self) -> Response:
        """Read up to the end of the final response's head; the body is left to `read_body`."""
        interim: list[int] = []
        while True:
            head = self._until(b"\r\n\r\n")
            status_line, *lines = head[:-4].split(b"\r\n")
            version, _, rest = status_line.partition(b" ")
            code, _, reason = rest.partition(b" ")
            headers = [split_field(line) for line in lines]
            if 100 <= int(code) < 200 and int(code) != 101:
                interim.append(int(code))
                continue
            return Response(version, int(code), reason, headers, head, interim, head_s=time.monotonic())

    def read_body(self, response: Response, method: str = "GET") -> None:
        """Read the body by the rules of RFC 9112 §6.3, and note how it ended."""
        response.framing = framing_of(response, method)
        try:
            if response.framing == "length":
                self._read_exactly(response, int(response.value("content-length")))
            elif response.framing == "chunked":
                self._read_chunked(response)
            elif response.framing == "close":
                self._read_until_closed(response)
        except ClosedEarlyError as error:
            response.end = error.end
        except ValueError:
            response.end = BodyEnd.MALFORMED

    def read_some(self) -> bytes:
        """What has come, or comes next; empty at the end, be it FIN or RST."""
        try:
            if not self._buffer and not self._receive():
                return b""
        except ConnectionResetError:
            return b""
        taken = bytes(self._buffer)
        self._buffer.clear()
        return taken

    def read_until_closed(self) -> bytes:
        """All the rest, whether it ends by FIN or by RST."""
        try:
            while self._receive():
                pass
        except ConnectionResetError:
            pass
        taken = bytes(self._buffer)
        self._buffer.clear()
        return taken

    def receive_more(self) -> None:
        """Take from the socket once, for whoever reads later."""
        self._receive()

    def buffered(self) -> bytes:
        """What has been received and not been read."""
        return bytes(self._buffer)

    def is_closed_by_peer(self) -> bool:
        """Whether the relay has closed this connection (nothing may be left to read)."""
        self.socket.settimeout(0.01)
        try:
            return not self._receive()
        except TimeoutError:
            return False
        except ConnectionResetError:
            return True
        finally:
            self.socket.settimeout(DEADLINE_S)

    def _receive(self) -> bool:
        data = self.socket.recv(65536)
        self._buffer += data
        return bool(data)

    def _receive_or_raise(self) -> None:
        try:
            more = self._receive()
        except TimeoutError:
            text = f"no byte within {DEADLINE_S} s, after {self._sent!r} was sent and {bytes(self._buffer)!r} came"
            raise TimeoutError(text) from None
        except ConnectionResetError:
            raise ClosedEarlyError(bytes(self._buffer), BodyEnd.RESET) from None
        except ssl.SSLEOFError:
            raise ClosedEarlyError(bytes(self._buffer), BodyEnd.CUT) from None
        if not more:
            raise ClosedEarlyError(bytes(self._buffer), BodyEnd.CUT)

    def _until(self, mark: bytes) -> bytes:
        while (found := self._buffer.find(mark)) < 0:
            assert len(self._buffer) < HEAD_BYTES_MAX, "an endless head"
            self._receive_or_raise()
        taken = bytes(self._buffer[: found + len(mark)])
        del self._buffer[: found + len(mark)]
        return taken

    def _read_exactly(self, response: Response, size: int) -> None:
        pieces = []
        try:
            while size:
                if not self._buffer:
                    self._receive_or_raise()
                piece = bytes(self._buffer[:size])
                del self._buffer[: len(piece)]
                size -= len(piece)
                pieces.append(piece)
                so_far = response.arrivals[-1][1] if response.arrivals else 0
                response.arrivals.append((time.monotonic(), so_far + len(piece)))
        finally:
            response.body += b"".join(pieces)

    def _read_chunked(self, response: Response) -> None:
        while size := int(self._until(b"\r\n")[:-2], 16):
            self._read_exactly(response, size)
            if self._until(b"\r\n") != b"\r\n":
                raise ValueError("chunk without its end")
        while self._until(b"\r\n") != b"\r\n":
            pass

    def _read_until_closed(self, response: Response) -> None:
        try:
            while self._buffer or self._receive():
                response.body += self._buffer
                self._buffer.clear()
                response.arrivals.append((time.monotonic(), len(response.body)))
        except ConnectionResetError:
            raise ClosedEarlyError(b"", BodyEnd.RESET) from None


def split_field(line: bytes) -> Header:
    name, colon, value = line.partition(b":")
    assert colon, f"not a header field: {line!r}"
    return name, value.strip(b" \t")


def framing_of(response: Response, method: str) -> str:
    """How the body's end is told (RFC 9112 §6.3)."""
    if method == "HEAD" or response.status in {101, 204, 304}:
        return "none"
    if response.values("transfer-encoding"):
        return "chunked"
    return "length" if response.values("content-length") else "close"


def request_bytes(method: str, target: str | bytes, headers: Sequence[Header] = (), body: bytes | None = None) -> bytes:
    """A request with `Host: relay.test` and, for a body, its Content-Length, unless the headers say otherwise."""
    path = target.encode("latin-1") if isinstance(target, str) else target
    names = {name.lower() for name, _ in headers}
    fields = list(headers)
    if b"host" not in names:
        fields.insert(0, (b"Host", b"relay.test"))
    if body is not None and not names & {b"content-length", b"transfer-encoding"}:
        fields.append((b"Content-Length", b"%d" % len(body)))
    lines = b"".join(b"%b: %b\r\n" % one for one in fields)
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method.encode(), path, lines, body or b"")


def chunked(*pieces: bytes) -> bytes:
    """A whole chunked body of these pieces."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
