"""The bytes of a request as an upstream gets them (RFC 9112 sections 3 and 7)."""

from collections.abc import Container, Iterable

from proxy.rules.headers import Header


def request_bytes(
    line: bytes, headers: Iterable[Header], dropped: Container[bytes], added: Iterable[Header], framing: bytes
) -> bytes:
    """Returns a request head: `line`, the fields that are not dropped, those added, the framing.

    `line` may end with the Host field.
    """
    lines = [b": ".join(pair) for pair in headers if pair[0] not in dropped]
    for pair in added:
        lines.append(b": ".join(pair))  # noqa: PERF401 - mostly there is none, which a loop tells fastest
    lines.append(framing)
    return line + b"\r\n".join(lines)


def chunk(piece: bytes) -> bytes:
    """Returns a piece of a body as one chunk; an empty piece would end the body, so it is no chunk at all."""
    return b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""


LAST_CHUNK = b"0\r\n\r\n"
CHUNKED_FRAMING = b"transfer-encoding: chunked\r\n\r\n"
NO_FRAMING = b"\r\n"
METHODS_WITH_CONTENT = frozenset(("POST", "PUT", "PATCH"))
"""Methods whose requests state a length even where it is 0 (RFC 9110 section 8.6)."""


def content_length(length: int) -> bytes:
    """Returns the framing field for a body whose length the client did not state but which is known whole."""
    return b"content-length: %d\r\n\r\n" % length
