"""What the admin API tells of keys, as it goes from SQL to whoever shows it. Plain values; no secret is among them."""

from enum import StrEnum
from typing import NamedTuple

HOUR_MS = 3_600_000


class Status(StrEnum):
    """ACTIVE may be chosen; DISABLED was put aside by somebody or by a test; BANNED is put aside until its ban ends."""

    ACTIVE = "active"
    DISABLED = "disabled"
    BANNED = "banned"


class Shown(StrEnum):
    """Which keys a list shows, by their status."""

    ALL = "all"
    ACTIVE = "active"
    DISABLED = "disabled"
    BANNED = "banned"


class TestResult(StrEnum):
    UNTESTED = "untested"
    SUCCESS = "success"
    FAILED = "failed"


class Wanted(NamedTuple):
    """Which keys are asked for: all that each of these is true of. `q` stands in id, notes or the masked key."""

    status: Status | None = None
    group: str | None = None
    provider: str | None = None
    q: str = ""


class Position(NamedTuple):
    """A place in the list of keys, which goes by age: behind the key of this id, created then (milliseconds)."""

    created_at: int
    id: str


class StatusCounts(NamedTuple):
    """How many keys there are, by status, and what they were used for, of all time."""

    total: int
    active: int
    disabled: int
    banned: int
    requests: int
    successes: int
    errors: int


class GroupFigures(NamedTuple):
    """A pool group and how many keys are in it."""

    id: str
    name: str
    priority: int
    total: int
    active: int
    disabled: int
    banned: int


class UsePoint(NamedTuple):
    """Attempts with keys in an hour or a day that began at `start_s` (Unix time)."""

    start_s: int
    requests: int
    successes: int
    errors: int


class LineOutcome(StrEnum):
    """What became of one line of an import."""

    ADDED = "added"
    DUPLICATE = "duplicate"
    INVALID = "invalid"


class LineResult(NamedTuple):
    """`line` counts from 1; `id` of what was added or is there already; `problem` of what is invalid."""

    line: int
    outcome: LineOutcome
    id: str | None = None
    problem: str | None = None


def percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0


def weight_score(requests: int, successes: int, last_used_at: int | None, now_ms: int) -> float:
    """What the weighted-score algorithm gives a key, as reference 001 shows it.

    0.6 of the success rate (percent), 0.3 of 100 less 4 for each hour idle, 0.1 of a tenth of the requests up to 100.
    """
    idle_hours = (now_ms - last_used_at) / HOUR_MS if last_used_at is not None else 0.0
    rested = max(0.0, 100 - 4 * max(0.0, idle_hours))
    return round(0.6 * percent(successes, requests) + 0.3 * rested + 0.1 * min(100.0, requests / 10), 2)
