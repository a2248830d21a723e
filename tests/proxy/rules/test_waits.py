"""How long upstreams ask to be left alone, as their documents and their answers write it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.rules.headers import Header
from proxy.rules.waits import RESETS, WAIT_S_MAX, duration_s, wait_s

NOW_S = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


def asked(*fields: tuple[str, str], body_s: float | None = None) -> float | None:
    """The wait that an answer with these fields asks for."""
    return wait_s([(name.encode(), value.encode()) for name, value in fields], NOW_S, body_s)


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("120", 120.0),
        (" 1.5 ", 1.5),
        ("0.02", 0.02),
        ("1m30s", 90.0),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0),
        ("Tuesday, 14-Nov-23 22:14:20 GMT", 60.0),
        ("Tue Nov 14 22:14:20 2023", 60.0),
        ("2023-11-14T22:14:20Z", 60.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, wait: float) -> None:
    assert asked(("retry-after", value)) == wait


def test_a_date_is_by_the_clock_of_the_upstream_that_names_it() -> None:
    ten_minutes_fast = ("date", "Tue, 14 Nov 2023 22:23:20 GMT")
    assert asked(ten_minutes_fast, ("retry-after", "Tue, 14 Nov 2023 22:24:20 GMT")) == 60.0


def test_milliseconds_come_first_since_they_are_the_finer() -> None:
    assert asked(("retry-after", "2"), ("retry-after-ms", "1250")) == 1.25


def test_of_several_the_first_counts_and_one_that_cannot_be_read_gives_way() -> None:
    assert asked(("retry-after", "3"), ("retry-after", "9")) == 3.0
    assert asked(("retry-after-ms", "soon"), ("retry-after", "3")) == 3.0
    assert asked(("retry-after", "soon"), ("x-ratelimit-reset", "7")) == 7.0


def test_what_a_body_asks_for_stands_between_retry_after_and_the_resets() -> None:
    reset = ("x-ratelimit-reset-requests", "1s")
    assert asked(reset, body_s=34.07) == 34.07
    assert asked(reset, ("retry-after", "5"), body_s=34.07) == 5.0


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("20ms", 0.02),
        ("1h2m", 3720.0),
        ("2m59.56s", 179.56),
        ("34.074824224s", 34.074824224),
    ],
)
def test_openai_and_protobuf_write_durations(text: str, wait: float) -> None:
    assert duration_s(text.encode()) == pytest.approx(wait)
    assert asked(("x-ratelimit-reset-tokens", text)) == pytest.approx(wait)


def test_only_a_limit_that_is_used_up_is_waited_for() -> None:
    requests = (("x-ratelimit-remaining-requests", "59"), ("x-ratelimit-reset-requests", "1s"))
    tokens = (("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "6m0s"))
    assert asked(*requests, *tokens) == 360.0
    assert asked(*requests) is None
    assert asked(requests[1], tokens[1]) == 360.0


def test_anthropic_names_the_time_of_each_limit() -> None:
    assert (
        asked(
            ("anthropic-ratelimit-requests-remaining", "999"),
            ("anthropic-ratelimit-requests-reset", "2023-11-14T22:13:21Z"),
            ("anthropic-ratelimit-input-tokens-remaining", "0"),
            ("anthropic-ratelimit-input-tokens-reset", "2023-11-14T22:14:00Z"),
            ("anthropic-ratelimit-output-tokens-remaining", "0"),
            ("anthropic-ratelimit-output-tokens-reset", "2023-11-14T22:13:50Z"),
        )
        == 40.0
    )


def test_a_subscriptions_window_counts_where_it_is_the_reason() -> None:
    reset = ("anthropic-ratelimit-unified-reset", "1700010000")
    assert asked(("anthropic-ratelimit-unified-status", "rejected"), reset) == 10_000.0
    assert asked(("anthropic-ratelimit-unified-status", "allowed"), reset) is None


@pytest.mark.parametrize(("value", "wait"), [("42", 42.0), ("1700000042", 42.0), ("1700000042000", 42.0)])
def test_a_plain_reset_is_seconds_or_a_unix_time_by_its_size(value: str, wait: float) -> None:
    assert asked(("x-ratelimit-reset", value)) == wait


@pytest.mark.parametrize(
    "value",
    [
        "",
        "0",
        "-5",
        "nan",
        "inf",
        "1e3",
        "0x10",
        "soon",
        "10" * 15,
        "9" * 5000,
        str(int(WAIT_S_MAX) + 1),
        "1699999999",
        "Tue, 14 Nov 2023 22:13:20 GMT",
        "Wed, 13 Nov 2024 22:13:20 GMT",
        "2000-01-01T00:00:00Z",
        "999999999h",
        "٣",
    ],
)
@pytest.mark.parametrize("name", ["retry-after", "retry-after-ms", "x-ratelimit-reset", "x-ratelimit-reset-tokens"])
def test_a_wait_that_cannot_be_meant_is_none(name: str, value: str) -> None:
    wait = asked((name, value))
    assert wait is None or name == "retry-after-ms"
    assert wait is None or 0 < wait <= WAIT_S_MAX


names = st.sampled_from([b"retry-after", b"retry-after-ms", b"date", *(name for pair in RESETS for name in pair)])
values = st.binary(max_size=40) | st.text("0123456789.smhd:-TZ+eE ", max_size=20).map(str.encode)


@given(st.lists(st.tuples(names, values), max_size=8), st.floats(0, 1e11), st.none() | st.floats())
def test_whatever_an_answer_has_its_wait_is_bounded(fields: list[Header], now_s: float, body_s: float | None) -> None:
    wait = wait_s(fields, now_s, body_s)
    assert wait is None or (0 < wait <= WAIT_S_MAX and math.isfinite(wait))
