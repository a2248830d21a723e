"""Dates and times as people write them, in UTC where they name no other zone. Pure: no clock is asked."""

import calendar
import re

EXPECTED = "a time such as 2026-12-31, 2026-12-31 18:30:00 or 2026-12-31T18:30:00+08:00"
DAY_MS = 86_400_000

_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})(?:[ T]([0-9]{2}):([0-9]{2}):([0-9]{2})(Z|[+-][0-9]{2}:[0-9]{2})?)?"
)


def begin_ms(text: str) -> int | None:
    """The time that a text says, in milliseconds since 1970; of a date alone, its midnight. None: it says none."""
    found = _TIME.fullmatch(text.strip())
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    if not (year >= 1970 and 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]):
        return None
    offset_s = _offset_s(found[7])
    if hour > 23 or minute > 59 or second > 59 or offset_s is None:
        return None
    return (calendar.timegm((year, month, day, hour, minute, second)) - offset_s) * 1000


def end_ms(text: str) -> int | None:
    """When what a text says has passed: a date's next midnight, or the next second. None: it says no time."""
    begin = begin_ms(text)
    if begin is None:
        return None
    return begin + (DAY_MS if len(text.strip()) == len("2026-12-31") else 1000)


def _offset_s(zone: str | None) -> int | None:
    if zone is None or zone == "Z":
        return 0
    hours, minutes = int(zone[1:3]), int(zone[4:6])
    if hours > 23 or minutes > 59:
        return None
    return (hours * 3600 + minutes * 60) * (-1 if zone[0] == "-" else 1)
