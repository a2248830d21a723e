"""What a request's head says of its body and of itself, and which heads are refused.

Granian parses the client's bytes and lets some shapes through that a gateway must not relay: two Hosts, `TE: gzip,
chunked`, CONNECT. They end here, before anything reaches an upstream. Sources: RFC 9112 sections 3.2, 6 and 9.6; RFC
9110 sections 7.2, 9 and 10.1.1; RFC 9113 section 8.2.3.
"""

import re
from collections.abc import Sequence
from enum import Enum, auto
from functools import lru_cache

import msgspec

from proxy.errors import BAD_REQUEST, METHOD_NOT_ALLOWED, RelayError
from proxy.rules.headers import HOP_BY_HOP, PLAIN_CONNECTION, Header, connection_options, te_field

LENGTH_DIGITS_MAX = 18
"""A length of more digits is over 2^59 and nobody's body."""
HOST = re.compile(rb"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(:[0-9]*)?")
REFUSED_METHODS = frozenset(("CONNECT", "TRACE", "TRACK"))

NOT_COPIED = HOP_BY_HOP | {b"host"}
ONCE = frozenset((b"content-length", b"expect", b"host", b"transfer-encoding", b"x-request-id"))
"""Fields that a request may carry only once; of a repeated Content-Length with equal values one is kept."""


class Body(Enum):
    """How a request's body is delimited."""

    NONE = auto()
    SIZED = auto()
    CHUNKED = auto()
    STREAMED = auto()  # HTTP/2 without Content-Length: only the end of the stream tells


# Module names, since looking a member up on its Enum costs as much as a set look-up ten times over.
NO_BODY, SIZED, CHUNKED, STREAMED = Body


class RequestHead(msgspec.Struct, gc=False):
    """A checked request head.

    `received` are all fields, of which those named in `dropped` do not cross and those in `added` are put behind;
    `length` is the stated length of the body in bytes, 0 where none is stated.
    """

    received: Sequence[Header]
    dropped: frozenset[bytes]
    added: tuple[Header, ...]
    body: Body
    length: int
    host: bytes
    request_id: bytes | None
    expects_continue: bool

    def crossing(self) -> list[Header]:
        """Returns the fields that cross the relay, in their order."""
        return [*(pair for pair in self.received if pair[0] not in self.dropped), *self.added]


def without_expectation(head: RequestHead) -> RequestHead:
    """Returns a head whose client has been told `100 Continue` already."""
    return msgspec.structs.replace(head, dropped=head.dropped | {b"expect"}, expects_continue=False)


def request_head(method: str, http_version: str, received: Sequence[Header]) -> RequestHead:
    """Checks a request head whose names are in lower case, and says what of it crosses the relay.

    Raises RelayError: BAD_REQUEST for a head that two parsers could read in two ways, METHOD_NOT_ALLOWED for a method
    that asks for a tunnel or a loop-back.
    """
    if method in REFUSED_METHODS:
        raise RelayError(METHOD_NOT_ALLOWED)
    fields = dict(received)
    if len(fields) != len(received):
        received = without_repetitions(received, http_version)
        fields = dict(received)
        if b"connection" in fields:
            # Several lines are one list (RFC 9110 section 5.3), and the last of them may be the harmless one.
            fields[b"connection"] = b",".join(value for name, value in received if name == b"connection")

    host = fields.get(b"host", b"")
    if not (is_host(host) or (host == b"" and http_version == "1")):
        raise RelayError(BAD_REQUEST)

    dropped = NOT_COPIED
    connection = fields.get(b"connection")
    if connection is not None and connection not in PLAIN_CONNECTION:
        dropped |= connection_options((connection,))
    added: tuple[Header, ...] = ()
    if b"te" in fields and (accepted := te_field(value for name, value in received if name == b"te")):
        added = ((b"te", accepted), (b"connection", b"te"))

    stated = fields.get(b"content-length")
    length = 0
    if b"transfer-encoding" in fields:
        if fields[b"transfer-encoding"].lower() != b"chunked" or stated is not None or http_version != "1.1":
            raise RelayError(BAD_REQUEST)
        body = CHUNKED
    elif stated is not None:
        if not stated.isdigit() or len(stated) > LENGTH_DIGITS_MAX:
            raise RelayError(BAD_REQUEST)
        length = int(stated)
        body = SIZED if length else NO_BODY
    else:
        body = STREAMED if http_version == "2" else NO_BODY
    expects_continue = b"expect" in fields and body is not NO_BODY and fields[b"expect"].lower() == b"100-continue"
    return RequestHead(received, dropped, added, body, length, host, fields.get(b"x-request-id"), expects_continue)


@lru_cache(maxsize=1024)
def is_host(value: bytes) -> bool:
    """Tells whether a Host value is a name or an address with an optional port (RFC 9110 section 7.2)."""
    return HOST.fullmatch(value) is not None


def without_repetitions(received: Sequence[Header], http_version: str) -> list[Header]:
    """Returns the fields with equal Content-Lengths made one, and the cookies that HTTP/2 splits joined again.

    The latter is RFC 9113 section 8.2.3. Raises RelayError(BAD_REQUEST) where another field is repeated that must stand
    alone.
    """
    kept: list[Header] = []
    alone: dict[bytes, bytes] = {}
    crumbs = [value for name, value in received if name == b"cookie"] if http_version == "2" else []
    for name, value in received:
        if name in ONCE:
            if name in alone:
                if name != b"content-length" or alone[name] != value:
                    raise RelayError(BAD_REQUEST)
                continue
            alone[name] = value
        elif name == b"cookie" and crumbs:
            if b"cookie" in alone:
                continue
            alone[name] = value = b"; ".join(crumbs)
        kept.append((name, value))
    return kept
