"""Which header fields cross the relay, in both directions (RFC 9110 section 7.6.1, RFC 9112 section 9.6).

The hop-by-hop set is compiled once. Granian hands over request names in lower case; response names arrive as the
upstream spelled them. Order, duplicates, empty values and bytes 0x80-0xFF are kept.
"""

from collections.abc import Iterable, Mapping

import msgspec

from proxy.errors import BAD_RESPONSE, RelayError

Header = tuple[bytes, bytes]

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)

# A `Connection` header may not name these away: a sender that does so tries to hide them from the next hop's checks.
END_TO_END = frozenset((b"host", b"content-length", b"authorization", b"cookie", b"transfer-encoding"))

RESPONSE_SPECIAL = HOP_BY_HOP | {b"content-type", b"server", b"x-accel-buffering", b"x-request-id"}
"""Fields of a response that are looked at; of all others only the hop-by-hop ones are told apart."""
FORWARDING = frozenset((b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"))
PLAIN_CONNECTION = frozenset((b"keep-alive", b"close", b"Keep-Alive", b"Close"))


def connection_options(values: Iterable[bytes]) -> frozenset[bytes]:
    """Returns the lower-case names that `Connection` values list and that may indeed be dropped."""
    named = {token.strip().lower() for value in values for token in value.split(b",")}
    return frozenset(named - END_TO_END)


def te_field(values: Iterable[bytes]) -> bytes | None:
    """Returns what is left of `TE` for the next hop: `trailers` if the client accepts them, else None.

    RFC 9110 section 10.1.4.
    """
    offered = {token.split(b";", 1)[0].strip().lower() for value in values for token in value.split(b",")}
    return b"trailers" if b"trailers" in offered else None


def keep_alive_timeout_s(value: bytes) -> float | None:
    """Returns the seconds of `Keep-Alive: timeout=5, max=100`, or None where it names none.

    RFC 2068 section 19.7.1.
    """
    for parameter in value.split(b","):
        name, _, number = parameter.strip().partition(b"=")
        if name.lower() == b"timeout" and number.isdigit():
            return float(number)
    return None


class ResponseHead(msgspec.Struct, frozen=True, gc=False):
    """A final response head as it goes to the client.

    `headers` are the end-to-end fields in the upstream's order, then those that the relay adds; `request_id` is the
    upstream's own; `keep_alive_s` is how long the upstream says it keeps an idle connection, or None.
    """

    status: int
    headers: list[Header]
    is_event_stream: bool
    request_id: bytes | None
    keep_alive_s: float | None


def response_head(status: int, headers: list[Header], special: Mapping[bytes, bytes]) -> ResponseHead:
    """Returns the head for the client.

    `headers` are the fields that are not hop-by-hop, `special` those of RESPONSE_SPECIAL.
    A 204 answer loses its Content-Length, which it must not carry (RFC 9110 section 8.6). An event stream gains
    `X-Accel-Buffering: no`. An answer without `Server` gets ours, since Granian would otherwise put its own there.

    Raises RelayError(BAD_RESPONSE) for a transfer coding other than one `chunked`: the field is not relayed, so the
    client would take the coded bytes for the content.
    """
    connection = special.get(b"connection")
    if connection is not None and connection not in PLAIN_CONNECTION:
        options = connection_options((connection,))
        headers = [pair for pair in headers if pair[0] not in options]
    if b"transfer-encoding" in special and special[b"transfer-encoding"].lower() != b"chunked":
        raise RelayError(BAD_RESPONSE)
    if status == 204:
        headers = [pair for pair in headers if pair[0] != b"content-length"]
    if b"server" not in special:
        headers.append((b"server", b"relaygate"))
    is_event_stream = special.get(b"content-type", b"")[:17].lower() == b"text/event-stream"
    if is_event_stream and b"x-accel-buffering" not in special:
        headers.append((b"x-accel-buffering", b"no"))
    keep_alive_s = keep_alive_timeout_s(special[b"keep-alive"]) if b"keep-alive" in special else None
    return ResponseHead(status, headers, is_event_stream, special.get(b"x-request-id"), keep_alive_s)
