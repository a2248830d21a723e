"""What the admin API tells of keys, as it goes from SQL to whoever shows it. Plain values; no secret is among them."""

from enum import StrEnum
from typing import NamedTuple

from proxy.rules.selectors_weighted import score


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
    """Which keys are asked for: all that each of these is true of. `q` stands in id, notes or the masked key, or
    is the whole key.
    """

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
    """What the algorithm weighted-score gives a key, times in milliseconds."""
    return round(score(requests, successes, (last_used_at or 0) / 1000, now_ms / 1000), 2)
