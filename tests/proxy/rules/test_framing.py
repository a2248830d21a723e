"""Request heads as Granian hands them over: what is refused, what crosses, how the body is delimited (C10-C24)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import BAD_REQUEST, METHOD_NOT_ALLOWED, Cause, RelayError
from proxy.rules.framing import (
    CHUNKED,
    NO_BODY,
    REFUSED_METHODS,
    SIZED,
    STREAMED,
    Body,
    RequestHead,
    is_host,
    request_head,
    without_repetitions,
)
from proxy.rules.headers import END_TO_END, HOP_BY_HOP, Header, connection_options

HOST = (b"host", b"relay.example")


def head_of(*fields: Header, method: str = "POST", version: str = "1.1") -> RequestHead:
    return request_head(method, version, [HOST, *fields])


def refusal_of(*fields: Header, method: str = "POST", version: str = "1.1") -> Cause:
    with pytest.raises(RelayError) as caught:
        request_head(method, version, fields)
    return caught.value.cause


# ---- methods and Host -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", sorted(REFUSED_METHODS))
def test_methods_that_ask_for_a_tunnel_or_a_loop_back_are_refused(method: str) -> None:
    """C5."""
    assert refusal_of(HOST, method=method) is METHOD_NOT_ALLOWED


@pytest.mark.parametrize("method", ["GET", "PROPFIND", "QUERY", "connect", "X"])
def test_other_methods_are_not_judged(method: str) -> None:
    """C6."""
    assert head_of(method=method).body is NO_BODY


@pytest.mark.parametrize(
    "value",
    [
        b"a",
        b"a.b:80",
        b"a:",
        b"127.0.0.1:8000",
        b"[::1]",
        b"[::1]:8000",
        b"[fe80::1%251]:1",
        b"x_y",
        b"%41.b",
        b"a.b.",
    ],
)
def test_a_host_is_a_name_or_an_address_with_a_port(value: bytes) -> None:
    assert is_host(value)
    assert request_head("GET", "1.1", [(b"host", value)]).host == value


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"a b",
        b"a/b",
        b"a@b",
        b"a\\b",
        b"a:b",
        b"a:80:80",
        b"::1",
        b"[::1",
        b"[::1]x",
        b"a\0",
        b"a\n",
        b"\xc3\xa4",
        b"a#",
        b"a?b",
        b" a",
    ],
)
def test_any_other_host_is_refused(value: bytes) -> None:
    assert refusal_of((b"host", value)) is BAD_REQUEST


def test_only_http_1_0_may_leave_the_host_out() -> None:
    assert refusal_of(version="1.1") is BAD_REQUEST
    assert refusal_of(version="2") is BAD_REQUEST
    assert request_head("GET", "1", []).host == b""


@pytest.mark.parametrize("name", [b"host", b"transfer-encoding", b"expect", b"x-request-id"])
def test_a_field_that_must_stand_alone_is_refused_twice_even_if_equal(name: bytes) -> None:
    field = HOST if name == b"host" else (name, b"chunked")
    more = () if name == b"host" else (HOST,)
    assert refusal_of(*more, field, field) is BAD_REQUEST


# ---- framing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "version", "body", "length"),
    [
        ([], "1", NO_BODY, 0),
        ([], "1.1", NO_BODY, 0),
        ([], "2", STREAMED, 0),
        ([(b"content-length", b"0")], "1.1", NO_BODY, 0),
        ([(b"content-length", b"0")], "2", NO_BODY, 0),
        ([(b"content-length", b"5")], "1", SIZED, 5),
        ([(b"content-length", b"5")], "2", SIZED, 5),
        ([(b"content-length", b"007")], "1.1", SIZED, 7),
        ([(b"content-length", b"9" * 18)], "1.1", SIZED, 10**18 - 1),
        ([(b"transfer-encoding", b"chunked")], "1.1", CHUNKED, 0),
        ([(b"transfer-encoding", b"Chunked")], "1.1", CHUNKED, 0),
    ],
)
def test_the_head_says_how_the_body_is_delimited(fields: list[Header], version: str, body: Body, length: int) -> None:
    head = head_of(*fields, version=version)
    assert (head.body, head.length) == (body, length)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"+5",
        b"-5",
        b"5,5",
        b"5, 5",
        b" 5",
        b"5 x",
        b"0x5",
        b"5.0",
        b"1_0",
        b"\xb2",
        b"5\0",
        b"9" * 19,
        b"0" * 19,
        b"18446744073709551616",
    ],
)
def test_a_length_that_two_parsers_could_read_in_two_ways_is_refused(value: bytes) -> None:
    """C21."""
    assert refusal_of(HOST, (b"content-length", value)) is BAD_REQUEST


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"xchunked",
        b"chunked, identity",
        b"gzip, chunked",
        b"chunked, chunked",
        b"chunked;a=b",
        b"\tchunked",
        b"chunked\x0b",
        b'"chunked"',
        b"identity",
    ],
)
def test_any_coding_but_one_chunked_is_refused(value: bytes) -> None:
    """C22."""
    assert refusal_of(HOST, (b"transfer-encoding", value)) is BAD_REQUEST


def test_a_length_beside_a_coding_is_refused() -> None:
    """C20."""
    both = [(b"content-length", b"5"), (b"transfer-encoding", b"chunked")]
    assert refusal_of(HOST, *both) is BAD_REQUEST
    assert refusal_of(HOST, *reversed(both)) is BAD_REQUEST


@pytest.mark.parametrize("version", ["1", "2"])
def test_chunked_is_of_http_1_1_only(version: str) -> None:
    assert refusal_of(HOST, (b"transfer-encoding", b"chunked"), version=version) is BAD_REQUEST


def test_equal_lengths_become_one_and_different_ones_are_refused() -> None:
    five = (b"content-length", b"5")
    head = head_of(five, (b"x", b"y"), five, five)
    assert (head.body, head.length) == (SIZED, 5)
    assert head.crossing() == [five, (b"x", b"y")]
    assert refusal_of(HOST, five, (b"content-length", b"6")) is BAD_REQUEST
    assert refusal_of(HOST, five, (b"content-length", b"05")) is BAD_REQUEST


@pytest.mark.parametrize(
    ("fields", "expects"),
    [
        ([(b"expect", b"100-continue"), (b"content-length", b"5")], True),
        ([(b"expect", b"100-Continue"), (b"transfer-encoding", b"chunked")], True),
        ([(b"expect", b"100-continue")], False),
        ([(b"expect", b"100-continue"), (b"content-length", b"0")], False),
        ([(b"expect", b"200-ok"), (b"content-length", b"5")], False),
        ([(b"content-length", b"5")], False),
    ],
)
def test_a_body_may_wait_for_leave_to_be_sent(fields: list[Header], *, expects: bool) -> None:
    """C17."""
    head = head_of(*fields)
    assert head.expects_continue is expects
    assert head.crossing() == [field for field in fields if field[0] != b"transfer-encoding"]


# ---- what crosses ---------------------------------------------------------------------------------------------------


def test_hop_by_hop_fields_and_the_host_stay_here_and_the_rest_crosses_in_order() -> None:
    """C10, C13, C14."""
    others = [(b"cookie", b"a=1"), (b"x", b""), (b"accept-encoding", b"br"), (b"x", b"\x80\xff"), (b"cookie", b"a=1")]
    hop_by_hop = [(name, b"anything") for name in sorted(HOP_BY_HOP - {b"transfer-encoding", b"te"})]
    assert head_of(*hop_by_hop, *others).crossing() == others
    assert head_of(*others, *hop_by_hop).crossing() == others


@pytest.mark.parametrize(
    "lines",
    [
        [b"X-Secret"],
        [b"close, x-secret"],
        [b"x-secret", b"close"],
        [b"keep-alive", b"x-secret"],
        [b"close", b"X-SECRET ", b"close"],
    ],
)
def test_what_any_line_of_connection_names_stays_here(lines: list[bytes]) -> None:
    """C11."""
    head = head_of((b"x-secret", b"1"), *((b"connection", line) for line in lines), (b"x", b"y"))
    assert head.crossing() == [(b"x", b"y")]


def test_connection_cannot_name_away_what_the_next_hop_checks() -> None:
    """C11."""
    kept = [(b"content-length", b"5"), (b"authorization", b"Bearer x"), (b"cookie", b"a")]
    named = b", ".join(name for name, _ in kept) + b", host, transfer-encoding"
    head = head_of((b"connection", named), *kept)
    assert head.crossing() == kept
    assert (head.body, head.length) == (SIZED, 5)


def test_of_te_at_most_trailers_crosses_and_connection_says_so() -> None:
    """C12."""
    assert head_of((b"te", b"gzip, trailers"), (b"x", b"y")).crossing() == [
        (b"x", b"y"),
        (b"te", b"trailers"),
        (b"connection", b"te"),
    ]
    assert head_of((b"te", b"gzip"), (b"te", b"trailers")).added
    assert head_of((b"te", b"gzip")).crossing() == []


def test_the_request_id_is_noted_and_crosses() -> None:
    head = head_of((b"x-request-id", b"mine"))
    assert head.request_id == b"mine"
    assert head.crossing() == [(b"x-request-id", b"mine")]


def test_the_cookies_that_http_2_splits_are_joined_where_the_first_stood() -> None:
    crumbs = [(b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2"), (b"cookie", b"c=3")]
    assert head_of(*crumbs, version="2").crossing() == [(b"cookie", b"a=1; b=2; c=3"), (b"x", b"y")]
    assert head_of(*crumbs, version="1.1").crossing() == crumbs
    assert head_of(crumbs[0], version="2").crossing() == crumbs[:1]


names = st.sampled_from(
    [b"a", b"b", b"cookie", b"accept", b"authorization", *sorted(HOP_BY_HOP - {b"transfer-encoding"})]
)
values = st.sampled_from(
    [b"", b"close", b"keep-alive", b"a", b"B, cookie", b" b\t,close", b"trailers", b"\xff", b"host"]
)


@given(st.lists(st.tuples(names, values), max_size=12))
def test_whatever_comes_in_no_hop_by_hop_field_crosses_and_all_others_do_in_order(fields: list[Header]) -> None:
    options = connection_options(value for name, value in fields if name == b"connection")
    crossing = head_of(*fields).crossing()
    expected = [field for field in fields if field[0] not in HOP_BY_HOP | options]
    assert crossing[: len(expected)] == expected
    assert crossing[len(expected) :] in ([], [(b"te", b"trailers"), (b"connection", b"te")])
    assert not END_TO_END & options


@given(st.lists(st.tuples(names | st.just(b"content-length"), values), max_size=8), st.sampled_from(["1", "1.1"]))
def test_taking_out_repetitions_takes_out_nothing_else(fields: list[Header], version: str) -> None:
    lengths = {value for name, value in fields if name == b"content-length"}
    if len(lengths) > 1:
        with pytest.raises(RelayError):
            without_repetitions(fields, version)
        return
    kept = without_repetitions(fields, version)
    assert [field for field in kept if field[0] != b"content-length"] == [
        field for field in fields if field[0] != b"content-length"
    ]
    assert [value for name, value in kept if name == b"content-length"] == sorted(lengths)
