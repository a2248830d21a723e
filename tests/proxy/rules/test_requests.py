"""Requests as an upstream gets them, read back by a parser of its kind (C13, C27)."""

from collections.abc import Iterable

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.rules.headers import Header
from proxy.rules.requests import (
    CHUNKED_FRAMING,
    LAST_CHUNK,
    METHODS_WITH_CONTENT,
    NO_FRAMING,
    chunk,
    content_length,
    request_bytes,
)

LINE = b"POST /v1/x?y=z HTTP/1.1\r\nhost: up.example\r\n"


class Upstream:
    """What a server understands of the bytes that it gets."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.url = b""
        self.headers: list[Header] = []
        self.body = b""
        self.messages = 0
        parser = httptools.HttpRequestParser(self)
        for piece in pieces:
            parser.feed_data(piece)
        self.method: bytes = parser.get_method()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.messages += 1


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


def test_a_request_is_its_line_its_fields_and_its_framing() -> None:
    fields = [(b"a", b"1"), (b"te", b"x"), (b"a", b"1"), (b"b", b"")]
    added = [(b"te", b"trailers")]
    assert request_bytes(LINE, fields, {b"te"}, added, NO_FRAMING) == (
        b"POST /v1/x?y=z HTTP/1.1\r\nhost: up.example\r\na: 1\r\na: 1\r\nb: \r\nte: trailers\r\n\r\n"
    )


def test_a_request_without_fields_is_whole_too() -> None:
    assert request_bytes(LINE, [], (), [], NO_FRAMING) == LINE + b"\r\n"
    assert Upstream([request_bytes(LINE, [], (), [], CHUNKED_FRAMING), LAST_CHUNK]).messages == 1


tokens = st.text("abcXYZ-_09", min_size=1, max_size=8).map(lambda name: b"x-" + name.encode())
values = st.binary(max_size=20).map(lambda value: bytes(byte for byte in value if byte > 32 and byte != 127))
lists_of_fields = st.lists(st.tuples(tokens, values), max_size=10)
pieces_of_bodies = st.lists(st.binary(max_size=40), max_size=6)


@given(lists_of_fields, lists_of_fields, st.sets(tokens, max_size=3))
def test_a_server_reads_the_same_fields_back(fields: list[Header], added: list[Header], dropped: set[bytes]) -> None:
    data = request_bytes(LINE, fields, dropped, added, NO_FRAMING)
    expected = [(b"host", b"up.example"), *(field for field in fields if field[0] not in dropped), *added]
    for pieces in ([data], byte_by_byte(data)):
        seen = Upstream(pieces)
        assert seen.headers == expected
        assert (seen.method, seen.url, seen.body, seen.messages) == (b"POST", b"/v1/x?y=z", b"", 1)


@given(pieces_of_bodies)
def test_a_chunked_body_arrives_as_it_was(pieces: list[bytes]) -> None:
    head = request_bytes(LINE, [], (), [], CHUNKED_FRAMING)
    sent = [head, *map(chunk, pieces), LAST_CHUNK]
    for arriving in (sent, byte_by_byte(b"".join(sent))):
        seen = Upstream(arriving)
        assert (seen.body, seen.messages) == (b"".join(pieces), 1)


@given(pieces_of_bodies)
def test_a_chunked_body_without_its_last_chunk_is_no_whole_request(pieces: list[bytes]) -> None:
    head = request_bytes(LINE, [], (), [], CHUNKED_FRAMING)
    assert Upstream([head, *map(chunk, pieces)]).messages == 0


@given(st.binary(max_size=80))
def test_a_body_of_known_length_arrives_as_it_was(body: bytes) -> None:
    seen = Upstream([request_bytes(LINE, [], (), [], content_length(len(body))) + body])
    assert (seen.body, seen.messages) == (body, 1)


@pytest.mark.parametrize(
    ("piece", "framed"), [(b"", b""), (b"a", b"1\r\na\r\n"), (b"x" * 32768, b"8000\r\n" + b"x" * 32768 + b"\r\n")]
)
def test_an_empty_piece_is_no_chunk_since_it_would_end_the_body(piece: bytes, framed: bytes) -> None:
    assert chunk(piece) == framed


def test_methods_with_content_state_a_length_of_zero() -> None:
    assert {"POST", "PUT", "PATCH"} == METHODS_WITH_CONTENT
