"""Dates in answers of upstreams."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.rules.dates import date_s


@pytest.mark.parametrize(
    ("text", "at_s"),
    [
        (b"Sun, 06 Nov 1994 08:49:37 GMT", 784111777),  # the three formats of RFC 9110 section 5.6.7
        (b"Sun Nov  6 08:49:37 1994", 784111777),
        (b"Saturday, 06-Nov-27 08:49:37 GMT", 1825490977),
        (b" Thu, 01 Jan 1970 00:00:00 GMT\t", 0),
        (b"2024-02-29T12:00:00Z", 1709208000),
        (b"2024-02-29t12:00:00.25z", 1709208000.25),
        (b"2024-02-29T13:30:00+01:30", 1709208000),
        (b"2024-02-29T04:00:00-08:00", 1709208000),
        (b"2016-12-31T23:59:60Z", 1483228800),
    ],
)
def test_a_date_is_read_in_the_formats_that_upstreams_use(text: bytes, at_s: float) -> None:
    assert date_s(text) == at_s


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"now",
        b"Sun, 06 Nox 1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 08:49:37 CET",
        b"Sun, 31 Jun 1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 25:49:37 GMT",
        b"Sun, 06 Nov 0000 08:49:37 GMT",
        b"2024-02-30T12:00:00Z",
        b"2024-13-01T12:00:00Z",
        b"2024-00-01T12:00:00Z",
        b"0000-01-01T12:00:00Z",
        b"2024-02-29T12:00:00",
        b"2024-02-29T12:00:00." + b"9" * 1000 + b"Z",
        b"\xff\xfe",
    ],
)
def test_what_no_calendar_has_is_no_date(text: bytes) -> None:
    assert date_s(text) is None


@given(st.binary(max_size=80) | st.text("0123456789-T:Z+., JanGMT", max_size=40).map(str.encode))
def test_no_bytes_raise(text: bytes) -> None:
    date_s(text)
