"""What the fake upstream has received and was asked for, as plain values; the strict reading of a request's head.

Pure: bytes in, values or MalformedRequestError out. Whatever two parsers could read in two ways is malformed here.
"""

import base64
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple


class Framing(StrEnum):
    """How a body's end is told (RFC 9112 §6)."""

    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"
    NONE = "none"


class Ending(StrEnum):
    """What becomes of the connection after the answer."""

    KEEP = "keep"
    FIN = "fin"  # under TLS: announced by close_notify
    BARE_FIN = "bare_fin"  # under TLS: not announced
    RST = "rst"
    HOLD = "hold"


class MalformedRequestError(Exception):
    """The bytes received are not a request. Whoever sent them is at fault."""


@dataclass(slots=True)
class Fate:
    """What became of a connection; shared by all requests that came on it."""

    closed_s: float | None = None


@dataclass(slots=True)
class Recorded:
    """One request as it came. Times are `time.monotonic()`, comparable between processes of one machine."""

    connection: int
    number_on_connection: int
    head: bytes
    received_s: float
    fate: Fate
    method: str = ""
    target: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    framing: Framing = Framing.NONE
    body: bytearray = field(default_factory=bytearray)  # the first BODY_KEPT_BYTES_MAX bytes
    body_bytes: int = 0
    body_sha256: str = ""
    arrivals: list[tuple[float, int]] = field(default_factory=list)  # (time, body bytes so far)
    trailers: bytes = b""
    complete: bool = False
    malformed: str = ""

    @property
    def peer_closed_s(self) -> float | None:
        """When the peer closed the connection, if it has."""
        return self.fate.closed_s

    def values(self, name: str) -> list[bytes]:
        """All values of a header field, in order."""
        wanted = name.lower().encode()
        return [value for key, value in self.headers if key.lower() == wanted]

    def names(self) -> list[bytes]:
        return [key.lower() for key, _ in self.headers]

    def document(self) -> dict[str, Any]:
        """The record as JSON: bytes in latin-1, the body in base64."""
        return {
            "connection": self.connection,
            "number_on_connection": self.number_on_connection,
            "method": self.method,
            "target": self.target.decode("latin-1"),
            "head": self.head.decode("latin-1"),
            "headers": [[key.decode("latin-1"), value.decode("latin-1")] for key, value in self.headers],
            "framing": self.framing,
            "body_base64": base64.b64encode(self.body).decode(),
            "body_bytes": self.body_bytes,
            "body_sha256": self.body_sha256,
            "trailers": self.trailers.decode("latin-1"),
            "complete": self.complete,
            "malformed": self.malformed,
            "received_s": self.received_s,
            "peer_closed_s": self.peer_closed_s,
        }


class Query:
    """The parameters of one request. A value is percent-decoded to latin-1, so that any byte can be asked for."""

    def __init__(self, target: bytes) -> None:
        _, _, query = target.decode("latin-1").partition("?")
        self._values = urllib.parse.parse_qs(query, keep_blank_values=True, encoding="latin-1")

    def texts(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def text(self, name: str, default: str) -> str:
        return self._values.get(name, [default])[0]

    def integer(self, name: str, default: int) -> int:
        return int(self.text(name, str(default)))

    def optional_integer(self, name: str) -> int | None:
        return int(self._values[name][0]) if name in self._values else None

    def seconds(self, name_ms: str) -> float:
        return float(self.text(name_ms, "0")) / 1000

    def ending(self) -> Ending:
        return Ending(self.text("end", Ending.KEEP))


class RequestHead(NamedTuple):
    method: str
    target: bytes
    version: bytes
    headers: list[tuple[bytes, bytes]]


def parse_head(head: bytes) -> RequestHead:
    """Split a head that ends with its empty line. As strict as RFC 9112: a relay must not send less."""
    request_line, *lines = head[:-4].split(b"\r\n")
    parts = request_line.split(b" ")
    if len(parts) != 3 or not all(parts) or not parts[2].startswith(b"HTTP/1."):
        raise MalformedRequestError("request line")
    headers = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or name.strip() != name or b" " in name or b"\t" in name:
            raise MalformedRequestError("header line")
        if b"\r" in value or b"\n" in value or b"\0" in value:
            raise MalformedRequestError("control byte in a header value")
        headers.append((name, value.strip(b" \t")))
    return RequestHead(parts[0].decode("latin-1"), parts[1], parts[2], headers)


def body_framing(headers: Sequence[tuple[bytes, bytes]]) -> tuple[Framing, int]:
    """The request's framing and declared length. Whatever a parser could disagree about is malformed here."""
    lengths = [value for name, value in headers if name.lower() == b"content-length"]
    codings = [value.lower() for name, value in headers if name.lower() == b"transfer-encoding"]
    if codings and lengths:
        raise MalformedRequestError("both Content-Length and Transfer-Encoding")
    if codings:
        if codings != [b"chunked"]:
            raise MalformedRequestError("Transfer-Encoding is not one 'chunked'")
        return Framing.CHUNKED, 0
    if not lengths:
        return Framing.NONE, 0
    if len(lengths) > 1 or not lengths[0].isdigit():
        raise MalformedRequestError("Content-Length is not one number")
    return Framing.LENGTH, int(lengths[0])
