"""WebSocket as values: handshakes with their answers, and frames that come whole, byte by byte, and with a tail."""

import contextlib
import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import BAD_RESPONSE, RelayError
from proxy.rules.headers import Header
from proxy.rules.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    HANDSHAKE_DROPPED,
    NOT_UTF8,
    PING,
    PONG,
    PROTOCOL_ERROR,
    TEXT,
    TOO_BIG,
    XOR_BYTES_MAX,
    Close,
    Event,
    FrameParser,
    Ping,
    ProtocolError,
    accept_value,
    chosen_protocol,
    close_payload,
    frame,
    handshake_end,
    masked,
    refusal_headers,
)

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3
MESSAGE_BYTES_MAX = 70_000


def unmasked(opcode: int, payload: bytes, flags: int = FIN) -> bytes:
    """A frame as a server sends it."""
    size = len(payload)
    if size < 126:
        return bytes((flags | opcode, size)) + payload
    if size < 65_536:
        return bytes((flags | opcode, 126)) + size.to_bytes(2, "big") + payload
    return bytes((flags | opcode, 127)) + size.to_bytes(8, "big") + payload


def events_of(pieces: Iterable[bytes]) -> list[Event]:
    """What a parser makes of these pieces. Raises ProtocolError."""
    parser = FrameParser(MESSAGE_BYTES_MAX)
    events: list[Event] = []
    for piece in pieces:
        parser.feed(piece)
        while (event := parser.next_event()) is not None:
            events.append(event)
    return events


def byte_by_byte(data: bytes) -> Iterable[bytes]:
    return (data[index : index + 1] for index in range(len(data)))


# ---- the handshake --------------------------------------------------------------------------------------------------


def switch(*more: Header, without: bytes = b"") -> list[Header]:
    fields = [(b"upgrade", b"WebSocket"), (b"connection", b"keep-alive, Upgrade"), (b"sec-websocket-accept", ACCEPT)]
    return [field for field in fields if field[0] != without] + list(more)


def test_the_accept_value_is_the_rfcs() -> None:
    assert accept_value(KEY) == ACCEPT


def test_the_handshake_ends_a_request_head() -> None:
    lines = handshake_end([(b"cookie", b"a=1")], KEY).split(b"\r\n")
    assert lines == [
        b"upgrade: websocket",
        b"connection: Upgrade",
        b"sec-websocket-key: " + KEY,
        b"sec-websocket-version: 13",
        b"",
        b"",
    ]


def test_offered_subprotocols_become_one_field() -> None:
    received = [(b"sec-websocket-protocol", b"a, b"), (b"x", b"y"), (b"sec-websocket-protocol", b"c")]
    assert handshake_end(received, KEY).endswith(b"\r\nsec-websocket-protocol: a, b, c\r\n\r\n")


def test_what_the_handshake_makes_anew_is_not_copied() -> None:
    fields = handshake_end([(b"sec-websocket-protocol", b"a")], KEY).splitlines()[:-1]
    assert {field.partition(b":")[0] for field in fields} <= HANDSHAKE_DROPPED
    assert {b"sec-websocket-extensions", b"sec-websocket-accept", b"te", b"keep-alive"} <= HANDSHAKE_DROPPED


@pytest.mark.parametrize(
    ("answer", "offered", "chosen"),
    [
        (switch(), [], None),
        (switch(), ["chat"], None),
        (switch((b"sec-websocket-protocol", b"chat")), ["superchat", "chat"], "chat"),
        (switch((b"set-cookie", b"a"), (b"set-cookie", b"b")), [], None),
    ],
)
def test_a_right_answer_tells_the_subprotocol(answer: list[Header], offered: list[str], chosen: str | None) -> None:
    assert chosen_protocol(answer, KEY, offered) == chosen


@pytest.mark.parametrize(
    "answer",
    [
        switch(without=b"upgrade"),
        switch(without=b"connection"),
        switch(without=b"sec-websocket-accept"),
        [*switch(without=b"upgrade"), (b"upgrade", b"h2c")],
        [*switch(without=b"connection"), (b"connection", b"keep-alive")],
        [*switch(without=b"sec-websocket-accept"), (b"sec-websocket-accept", KEY)],
        switch((b"sec-websocket-accept", ACCEPT)),
        switch((b"sec-websocket-extensions", b"permessage-deflate")),
        switch((b"sec-websocket-protocol", b"never-offered")),
        switch((b"sec-websocket-protocol", b"chat"), (b"sec-websocket-protocol", b"chat")),
        switch((b"sec-websocket-protocol", b"a\x01b")),
        switch((b"sec-websocket-protocol", b"caf\xc3\xa9")),
        switch((b"sec-websocket-protocol", b"")),
    ],
)
def test_a_wrong_answer_is_a_bad_response(answer: list[Header]) -> None:
    with pytest.raises(RelayError) as caught:
        chosen_protocol(answer, KEY, ["chat", "a\x01b", "café", ""])
    assert caught.value.cause is BAD_RESPONSE


def test_a_refusal_has_no_name_twice() -> None:
    """Granian panics on a repeated one."""
    headers = [
        (b"www-authenticate", b"Basic"),
        (b"set-cookie", b"a=1"),
        (b"content-length", b"2"),
        (b"sec-websocket-accept", b"x"),
        (b"www-authenticate", b"Bearer"),
        (b"set-cookie", b"b=2"),
        (b"vary", b""),
    ]
    assert refusal_headers(headers) == [
        (b"www-authenticate", b"Basic, Bearer"),
        (b"set-cookie", b"a=1"),
        (b"vary", b""),
    ]


# ---- frames that are right ------------------------------------------------------------------------------------------

WORLD = "世界".encode()
DIALOGUES = [
    ([unmasked(TEXT, b"hello")], ["hello"]),
    ([unmasked(TEXT, b"")], [""]),
    ([unmasked(BINARY, b"")], [b""]),
    ([unmasked(BINARY, b"\x00\xff")], [b"\x00\xff"]),
    ([unmasked(TEXT, b"x" * 125), unmasked(TEXT, b"y" * 126)], ["x" * 125, "y" * 126]),
    ([unmasked(BINARY, b"x" * 65_535), unmasked(BINARY, b"y" * 65_536)], [b"x" * 65_535, b"y" * 65_536]),
    # fragments, one within a character, one empty, and control frames between them
    (
        [
            unmasked(TEXT, WORLD[:2], flags=0),
            unmasked(PING, b"still there?"),
            unmasked(CONTINUATION, b"", flags=0),
            unmasked(PONG, b"unasked"),
            unmasked(CONTINUATION, WORLD[2:]),
            unmasked(BINARY, b"1", flags=0),
            unmasked(CONTINUATION, b"2", flags=0),
            unmasked(CONTINUATION, b"3"),
            unmasked(TEXT, b"next"),
        ],
        [Ping(b"still there?"), "世界", b"123", "next"],
    ),
    ([unmasked(PONG, b""), unmasked(PING, b"p" * 125)], [Ping(b"p" * 125)]),
    ([unmasked(CLOSE, b"")], [Close(None, "")]),
    ([unmasked(CLOSE, b"\x03\xe8")], [Close(1000, "")]),
    ([unmasked(CLOSE, b"\x13\x87" + b"ende gut")], [Close(4999, "ende gut")]),
    # a length that is spelled longer than it has to be
    ([b"\x82\x7e\x00\x01a", b"\x82\x7f" + bytes(7) + b"\x01b"], [b"a", b"b"]),
]


@pytest.mark.parametrize(("frames", "expected"), DIALOGUES)
def test_frames_become_events(frames: list[bytes], expected: list[Event]) -> None:
    data = b"".join(frames)
    assert events_of([data]) == expected
    assert events_of(frames) == expected
    assert events_of([data + b"\x82"]) == expected
    if len(data) < 1000:
        assert events_of(byte_by_byte(data)) == expected


@given(st.lists(st.one_of(st.text(), st.binary())), st.integers(1, 40))
def test_messages_come_through_however_they_are_cut(messages: list[str | bytes], step: int) -> None:
    data = b"".join(
        unmasked(TEXT, message.encode()) if isinstance(message, str) else unmasked(BINARY, message)
        for message in messages
    )
    assert events_of(data[start : start + step] for start in range(0, len(data), step)) == messages


@given(st.text(), st.lists(st.integers(0, 50), max_size=5))
def test_a_text_comes_through_however_it_is_fragmented(text: str, cuts: list[int]) -> None:
    data = text.encode()
    marks = [0, *sorted(cut for cut in cuts if cut <= len(data)), len(data)]
    parts = [data[start:end] for start, end in itertools.pairwise(marks)]
    frames = [
        unmasked(CONTINUATION if number else TEXT, part, FIN if number == len(parts) - 1 else 0)
        for number, part in enumerate(parts)
    ]
    assert events_of(frames) == [text]


def test_nothing_waits_once_it_has_become_an_event() -> None:
    parser = FrameParser(MESSAGE_BYTES_MAX)
    parser.feed(unmasked(BINARY, bytes(1000)) + b"\x82")
    assert parser.buffered == 1005
    assert parser.next_event() == bytes(1000)
    assert parser.next_event() is None
    assert parser.buffered == 1


# ---- frames that are wrong ------------------------------------------------------------------------------------------

FAULTS = [
    (unmasked(TEXT, b"", FIN | 0x40), PROTOCOL_ERROR),
    (unmasked(TEXT, b"", FIN | 0x20), PROTOCOL_ERROR),
    (unmasked(PING, b"", FIN | 0x10), PROTOCOL_ERROR),
    *((unmasked(opcode, b""), PROTOCOL_ERROR) for opcode in (3, 7, 11, 15)),
    (frame(TEXT, b"masked", b"mask"), PROTOCOL_ERROR),
    (unmasked(PING, b"", flags=0), PROTOCOL_ERROR),
    (unmasked(CLOSE, b"", flags=0), PROTOCOL_ERROR),
    (unmasked(PING, b"p" * 126), PROTOCOL_ERROR),
    (unmasked(CONTINUATION, b"of nothing"), PROTOCOL_ERROR),
    (unmasked(TEXT, b"a", flags=0) + unmasked(TEXT, b"b"), PROTOCOL_ERROR),
    (unmasked(BINARY, b"a", flags=0) + unmasked(BINARY, b"b", flags=0), PROTOCOL_ERROR),
    (unmasked(TEXT, b"\xff\xfe"), NOT_UTF8),
    (unmasked(TEXT, b"\xed\xa0\x80"), NOT_UTF8),  # a surrogate
    (unmasked(TEXT, WORLD[:2]), NOT_UTF8),  # ends within a character
    (unmasked(TEXT, b"ok", flags=0) + unmasked(CONTINUATION, b"\xff", flags=0), NOT_UTF8),  # known before its end
    (unmasked(BINARY, bytes(MESSAGE_BYTES_MAX + 1))[:10], TOO_BIG),  # known from its head
    (unmasked(BINARY, bytes(MESSAGE_BYTES_MAX), flags=0) + unmasked(CONTINUATION, b"x"), TOO_BIG),
    (b"\x82\x7f" + b"\xff" * 8, TOO_BIG),
    *((unmasked(CLOSE, code.to_bytes(2, "big")), PROTOCOL_ERROR) for code in (0, 999, 1004, 1005, 1006, 1015)),
    *((unmasked(CLOSE, code.to_bytes(2, "big")), PROTOCOL_ERROR) for code in (1016, 2999, 5000, 65_535)),
    (unmasked(CLOSE, b"\x03"), PROTOCOL_ERROR),
    (unmasked(CLOSE, b"\x03\xe8\xff"), NOT_UTF8),
    (b"HTTP/1.1 400 Bad Request\r\n\r\n", PROTOCOL_ERROR),
]


@pytest.mark.parametrize(("data", "code"), FAULTS)
def test_a_fault_has_its_close_code(data: bytes, code: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        events_of([data])
    assert caught.value.code == code
    assert 0 < len(caught.value.reason) <= 123


@pytest.mark.parametrize(("data", "code"), [fault for fault in FAULTS if len(fault[0]) < 1000])
def test_a_fault_is_found_byte_by_byte_and_behind_a_message(data: bytes, code: int) -> None:
    for pieces in (byte_by_byte(data), [unmasked(TEXT, b"before") + data]):
        with pytest.raises(ProtocolError) as caught:
            events_of(pieces)
        assert caught.value.code == code


@given(st.binary(max_size=300))
def test_no_bytes_bring_anything_but_events_or_a_protocol_error(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        assert all(isinstance(event, str | bytes | Ping | Close) for event in events_of([data]))


# ---- frames to send -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, b"\x82\x80"),
        (125, b"\x82\xfd"),
        (126, b"\x82\xfe\x00\x7e"),
        (65_535, b"\x82\xfe\xff\xff"),
        (65_536, b"\x82\xff\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_a_frame_is_masked_and_says_its_length(size: int, head: bytes) -> None:
    payload = bytes(index % 251 for index in range(size))
    sent = frame(BINARY, payload, b"\x01\x02\x03\x04")
    assert sent[: len(head)] == head
    assert sent[len(head) : len(head) + 4] == b"\x01\x02\x03\x04"
    assert sent[len(head) + 4 :] == masked(payload, b"\x01\x02\x03\x04")


@given(st.binary(max_size=XOR_BYTES_MAX + 40), st.binary(min_size=4, max_size=4))
def test_the_mask_is_an_xor_with_four_bytes(payload: bytes, mask: bytes) -> None:
    expected = bytes(value ^ mask[index % 4] for index, value in enumerate(payload))
    assert masked(payload, mask) == expected
    longer = payload + bytes(XOR_BYTES_MAX)
    assert masked(masked(longer, mask), mask) == longer


@pytest.mark.parametrize(
    ("close", "payload"),
    [(Close(None, ""), b""), (Close(1000, ""), b"\x03\xe8"), (Close(4000, "ä"), b"\x0f\xa0\xc3\xa4")],
)
def test_a_close_frame_says_code_and_reason(close: Close, payload: bytes) -> None:
    assert close_payload(close) == payload
    assert events_of([unmasked(CLOSE, payload)]) == [close]
