"""The fake upstream's eye for malformed requests: what it lets pass, a relay may send."""

import pytest

from loadtests.fake_requests import Framing, MalformedRequestError, Query, body_framing, parse_head


@pytest.mark.parametrize(
    "head",
    [
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nA : b\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\nB: c\r\n\r\n",
        b"GET /\r\n\r\n",
    ],
)
def test_malformed_heads_are_noticed(head: bytes) -> None:
    with pytest.raises(MalformedRequestError):
        parse_head(head)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"Content-Length", b"5"), (b"Transfer-Encoding", b"chunked")],
        [(b"Content-Length", b"5"), (b"Content-Length", b"5")],
        [(b"Content-Length", b"+5")],
        [(b"Transfer-Encoding", b"chunked"), (b"Transfer-Encoding", b"chunked")],
        [(b"Transfer-Encoding", b"gzip, chunked")],
    ],
)
def test_ambiguous_framing_is_noticed(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(MalformedRequestError):
        body_framing(headers)


def test_plain_framings() -> None:
    assert body_framing([]) == (Framing.NONE, 0)
    assert body_framing([(b"content-length", b"12")]) == (Framing.LENGTH, 12)
    assert body_framing([(b"transfer-encoding", b"Chunked")]) == (Framing.CHUNKED, 0)


def test_a_parameter_can_be_any_byte() -> None:
    query = Query(b"/answer?header=x:%E9%00&header=y&empty=")
    assert query.texts("header") == ["x:\xe9\x00", "y"]
    assert query.text("empty", "default") == ""
    assert query.integer("absent", 3) == 3
