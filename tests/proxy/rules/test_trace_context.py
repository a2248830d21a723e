"""The parser of `traceparent`, by the rules of W3C Trace Context level 1."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.rules.trace_context import Parent, parent_of

TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = b"00f067aa0ba902b7"
VALID = b"00-" + TRACE + b"-" + SPAN + b"-01"
PARENT = Parent(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7, sampled=True)


@pytest.mark.parametrize(
    ("flags", "sampled"), [(b"01", True), (b"00", False), (b"02", False), (b"03", True), (b"ff", True), (b"fe", False)]
)
def test_only_the_last_bit_of_the_flags_says_whether_it_is_sampled(flags: bytes, sampled: bool) -> None:  # noqa: FBT001
    assert parent_of([(b"x", b"y"), (b"traceparent", VALID[:-2] + flags)]) == PARENT._replace(sampled=sampled)


@pytest.mark.parametrize(
    "value", [b"01" + VALID[2:], b"cc" + VALID[2:] + b"-what-is-to-come", b"fe" + VALID[2:] + b"-"]
)
def test_of_a_later_version_the_first_four_fields_count(value: bytes) -> None:
    assert parent_of([(b"traceparent", value)]) == PARENT


@pytest.mark.parametrize(
    "value",
    [
        b"",
        VALID[:-1],
        VALID + b"0",
        VALID + b"\n",
        VALID + b"-more",
        b" " + VALID,
        VALID.upper(),
        VALID.replace(b"-", b"_"),
        b"0-" + VALID[3:],
        b"ff" + VALID[2:],
        b"ff" + VALID[2:] + b"-more",
        b"01" + VALID[2:] + b".more",
        b"0g" + VALID[2:],
        b"00-" + b"0" * 32 + VALID[35:],
        VALID[:36] + b"0" * 16 + b"-01",
        VALID[:3] + b"\xd9\xa3" * 16 + VALID[35:],
    ],
)
def test_anything_else_names_no_parent(value: bytes) -> None:
    assert parent_of([(b"traceparent", value)]) is None


def test_nor_do_none_and_several() -> None:
    assert parent_of([(b"tracestate", VALID)]) is None
    assert parent_of([(b"traceparent", VALID), (b"traceparent", VALID)]) is None


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())
def test_ids_are_read_whole(trace_id: int, span_id: int, sampled: bool) -> None:  # noqa: FBT001
    value = b"00-%032x-%016x-%02x" % (trace_id, span_id, sampled)
    assert parent_of([(b"traceparent", value)]) == Parent(trace_id, span_id, sampled)


@given(st.binary(max_size=70))
def test_no_bytes_make_it_raise(value: bytes) -> None:
    assert parent_of([(b"traceparent", value)]) is None
