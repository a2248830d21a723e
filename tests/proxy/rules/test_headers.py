"""Which fields cross: as a table, and as a law over whatever fields there are (C10-C13, C40, C41)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import BAD_RESPONSE, RelayError
from proxy.rules.headers import (
    END_TO_END,
    HOP_BY_HOP,
    RESPONSE_SPECIAL,
    Header,
    ResponseHead,
    connection_options,
    keep_alive_timeout_s,
    response_head,
    te_field,
)

OURS = (b"server", b"relaygate")

names = st.sampled_from(
    [b"a", b"set-cookie", b"date", b"content-length", b"content-type", b"server", b"x-accel-buffering", b"x-request-id"]
)
values = st.binary(max_size=12).map(lambda value: value.translate(None, b"\r\n\0").strip(b" \t"))


def head_of(*fields: Header, status: int = 200) -> ResponseHead:
    """What becomes of a head whose fields are sorted as the connection sorts them."""
    special: dict[bytes, bytes] = {}
    for name, value in fields:
        if name in RESPONSE_SPECIAL:
            special[name] = value if name not in special else special[name] + b", " + value
    return response_head(status, [field for field in fields if field[0] not in HOP_BY_HOP], special)


@pytest.mark.parametrize(
    ("lines", "dropped"),
    [
        ([b"close"], {b"close"}),
        ([b"Keep-Alive, X-Secret"], {b"keep-alive", b"x-secret"}),
        ([b" x-a ,\tX-B", b"x-C"], {b"x-a", b"x-b", b"x-c"}),
        ([b"Host, content-LENGTH, Authorization, cookie, Transfer-Encoding"], set()),
        ([b"te, Cookie"], {b"te"}),
    ],
)
def test_connection_names_fields_away_but_never_those_that_a_next_hop_checks(
    lines: list[bytes], dropped: set[bytes]
) -> None:
    assert connection_options(lines) == dropped


@given(st.lists(st.binary(max_size=30), max_size=4))
def test_no_connection_field_hides_what_must_stay(lines: list[bytes]) -> None:
    options = connection_options([*lines, b"HOST,Content-Length,Cookie"])
    assert not options & END_TO_END
    assert all(option == option.strip().lower() for option in options)


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        ([b"trailers"], b"trailers"),
        ([b"gzip, Trailers"], b"trailers"),
        ([b"gzip;q=0.5", b"deflate, trailers;q=1"], b"trailers"),
        ([b"gzip"], None),
        ([b"trailersx"], None),
        ([b""], None),
        ([], None),
    ],
)
def test_te_says_at_most_trailers_to_the_next_hop(lines: list[bytes], left: bytes | None) -> None:
    """C12."""
    assert te_field(lines) == left


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"timeout=5", 5),
        (b"timeout=5, max=100", 5),
        (b"max=100,Timeout=0", 0),
        (b"max=100", None),
        (b"timeout", None),
        (b"timeout=", None),
        (b"timeout=-1", None),
        (b"timeout=1.5", None),
        (b"xtimeout=3", None),
        (b"", None),
        (b"timeout=" + b"9" * 400, float("inf")),
    ],
)
def test_keep_alive_says_how_long_or_nothing(value: bytes, seconds: float | None) -> None:
    assert keep_alive_timeout_s(value) == seconds


def test_fields_cross_in_order_with_duplicates_empty_values_and_high_bytes() -> None:
    fields = [(b"set-cookie", b"a=1"), (b"x", b""), (b"set-cookie", b"b=\xff"), (b"set-cookie", b"a=1")]
    assert head_of(*fields) == ResponseHead(
        200, [*fields, OURS], is_event_stream=False, request_id=None, keep_alive_s=None
    )


@given(st.lists(st.tuples(names | st.sampled_from(sorted(HOP_BY_HOP - {b"transfer-encoding"})), values), max_size=12))
def test_no_hop_by_hop_field_crosses_and_every_other_one_does_in_order(fields: list[Header]) -> None:
    options = connection_options(value for name, value in fields if name == b"connection")
    crossing = head_of(*fields).headers
    expected = [(name, value) for name, value in fields if name not in HOP_BY_HOP | options]
    assert crossing[: len(expected)] == expected
    assert {name for name, _ in crossing[len(expected) :]} <= {b"server", b"x-accel-buffering"}


def test_a_field_that_connection_names_ends_here() -> None:
    fields = [(b"x-secret", b"1"), (b"connection", b"close"), (b"content-length", b"2"), (b"connection", b"X-Secret")]
    assert head_of(*fields, (b"connection", b"content-length")).headers == [(b"content-length", b"2"), OURS]


@pytest.mark.parametrize(
    "value", [b"gzip, chunked", b"chunked, chunked", b"identity", b"xchunked", b"chunked;a=b", b""]
)
def test_a_coding_that_the_client_would_not_be_told_of_is_refused(value: bytes) -> None:
    with pytest.raises(RelayError) as caught:
        head_of((b"transfer-encoding", value))
    assert caught.value.cause is BAD_RESPONSE


@pytest.mark.parametrize("value", [b"chunked", b"Chunked"])
def test_chunked_alone_is_no_coding_of_the_content(value: bytes) -> None:
    assert head_of((b"transfer-encoding", value)).headers == [OURS]


def test_two_fields_of_transfer_encoding_are_one_list() -> None:
    with pytest.raises(RelayError):
        head_of((b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked"))


def test_only_a_204_loses_its_length() -> None:
    length = (b"content-length", b"0")
    assert head_of(length, status=204).headers == [OURS]
    for status in (200, 205, 304):
        assert head_of(length, status=status).headers == [length, OURS]


def test_an_upstreams_own_server_field_stays_alone() -> None:
    assert head_of((b"server", b"nginx")).headers == [(b"server", b"nginx")]


@pytest.mark.parametrize(
    ("content_type", "is_event_stream"),
    [
        (b"text/event-stream", True),
        (b"Text/Event-Stream; charset=utf-8", True),
        (b"text/plain", False),
        (b"application/json", False),
        (b"", False),
    ],
)
def test_event_streams_are_not_to_be_buffered(content_type: bytes, *, is_event_stream: bool) -> None:
    head = head_of((b"content-type", content_type))
    assert head.is_event_stream is is_event_stream
    assert ((b"x-accel-buffering", b"no") in head.headers) is is_event_stream


def test_an_event_stream_keeps_its_own_word_on_buffering() -> None:
    fields = [(b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"yes"), (b"server", b"x")]
    assert head_of(*fields).headers == fields


def test_the_request_id_and_the_keep_alive_of_the_upstream_are_noted() -> None:
    head = head_of((b"x-request-id", b"theirs"), (b"keep-alive", b"timeout=7, max=3"))
    assert (head.request_id, head.keep_alive_s) == (b"theirs", 7)
    assert head.headers == [(b"x-request-id", b"theirs"), OURS]
