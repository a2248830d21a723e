"""Dates and times as people write them, against Python's own calendar."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.rules.dates import DAY_MS, begin_ms, end_ms

TIMES = st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(9998, 12, 31)).map(
    lambda at: at.replace(microsecond=0)
)
OFFSETS = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


@given(TIMES)
def test_times_are_in_utc(at: datetime) -> None:
    utc = at.replace(tzinfo=UTC)
    assert begin_ms(f"{at:%Y-%m-%d %H:%M:%S}".rjust(19, "0")) == ms(utc)
    assert begin_ms(at.isoformat()) == begin_ms(at.isoformat() + "Z") == ms(utc)
    assert end_ms(at.isoformat()) == ms(utc) + 1000


@given(TIMES, OFFSETS)
def test_another_zone_may_be_named(at: datetime, zone: timezone) -> None:
    assert begin_ms(at.replace(tzinfo=zone).isoformat()) == ms(at.replace(tzinfo=zone))


@given(st.dates(min_value=datetime(1970, 1, 1).date()))
def test_a_date_is_its_whole_day(day: object) -> None:
    midnight = ms(datetime.fromisoformat(f"{day}T00:00:00+00:00"))
    assert (begin_ms(f" {day} "), end_ms(str(day))) == (midnight, midnight + DAY_MS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tomorrow",
        "2026-02-29",
        "2026-13-01",
        "2026-00-01",
        "2026-01-00",
        "1969-12-31",
        "2026-1-1",
        "2026-01-01 24:00:00",
        "2026-01-01 00:60:00",
        "2026-01-01 00:00:60",
        "2026-01-01 00:00",
        "2026-01-01T00:00:00+24:00",
        "2026-01-01T00:00:00+00:60",
        "2026-01-01Z",
        "\u0662026-01-01",
    ],
)
def test_what_is_no_time(text: str) -> None:
    assert (begin_ms(text), end_ms(text)) == (None, None)


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_none(text: str) -> None:
    assert begin_ms(text) is None or begin_ms(text) == begin_ms(text.strip())
