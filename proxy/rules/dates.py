"""Dates as HTTP and JSON write them, in seconds since 1970. A text that is no date is None, never an error."""

import calendar
import re

MONTHS = (b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec")
# RFC 9110 section 5.6.7: the one format to send, the two to accept as well.
HTTP_DATE = re.compile(rb"[A-Za-z]{3,9}, ?(\d{2})[ -]([A-Za-z]{3})[ -](\d{4}|\d{2}) (\d\d):(\d\d):(\d\d) GMT")
ASCTIME = re.compile(rb"[A-Za-z]{3} ([A-Za-z]{3}) ([ \d]\d) (\d\d):(\d\d):(\d\d) (\d{4})")
# RFC 3339 section 5.6.
RFC3339 = re.compile(rb"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(\.\d{1,9})?\d*(?:[Zz]|([+-])(\d\d):(\d\d))")


def date_s(text: bytes) -> float | None:
    """Returns when an HTTP date or an RFC 3339 timestamp is."""
    text = text.strip(b" \t")
    if len(text) > 64:
        return None
    return http_date_s(text) if text[:1].isalpha() else rfc3339_s(text)


def http_date_s(text: bytes) -> float | None:
    """Returns when an HTTP date is, in any of its three formats. Two digits of a year are of this century."""
    if match := HTTP_DATE.fullmatch(text):
        day, month, year, *clock = match.groups()
    elif match := ASCTIME.fullmatch(text):
        month, day, *clock, year = match.groups()
    else:
        return None
    if month.lower() not in MONTHS:
        return None
    return seconds(int(year) + (2000 if len(year) == 2 else 0), MONTHS.index(month.lower()) + 1, int(day), clock)


def rfc3339_s(text: bytes) -> float | None:
    """Returns when a timestamp such as `2026-01-31T12:00:00.5+01:00` is."""
    match = RFC3339.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, offset_hours, offset_minutes = match.groups()
    at_s = seconds(int(year), int(month), int(day), (hour, minute, second))
    if at_s is None:
        return None
    offset_s = int(offset_hours) * 3600 + int(offset_minutes) * 60 if sign else 0
    return at_s + float(fraction or 0) - (offset_s if sign == b"+" else -offset_s)


def seconds(year: int, month: int, day: int, clock: list[bytes] | tuple[bytes, bytes, bytes]) -> float | None:
    """Returns seconds since 1970 of a time in UTC; None where no calendar has it. Second 60 is the next minute's 0."""
    hour, minute, second = map(int, clock)
    try:
        length = calendar.monthrange(year, month)[1]
        at_s = calendar.timegm((year, month, day, hour, minute, second))
    except ValueError:
        return None
    return float(at_s) if 1 <= day <= length and hour < 24 and minute < 60 and second <= 60 else None
