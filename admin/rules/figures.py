"""Figures of statistics, as they go from SQL to whoever shows them. Plain values."""

from typing import NamedTuple

from proxy.statistics import RouteCounts


class Dropped(NamedTuple):
    """How many events of a kind will never be in SQL, and why: `undecodable` or `missing`."""

    kind: str
    reason: str
    events: int


class Totals(NamedTuple):
    """What all routes together had: of all time, and in the last minutes; and how many events were dropped."""

    all_time: RouteCounts
    recent: RouteCounts
    dropped: list[Dropped]


class PrefixFigures(NamedTuple):
    """Requests of a prefix: of all time, with those that were errors and when the last one was counted (milliseconds
    since 1970), and of the last days.
    """

    prefix: str
    requests: int
    errors: int
    last_at: int
    today: int
    week: int
    month: int


class Point(NamedTuple):
    """A point of a graph: a slot that began at `start_s` (Unix time)."""

    start_s: int
    requests: int
    errors: int


class Overview(NamedTuple):
    totals: Totals
    prefixes: list[PrefixFigures]
    graph: list[Point]


class Detail(NamedTuple):
    """All that was counted in a range (Unix time), a row a series; of all time, where the range is None."""

    range_s: tuple[int, int] | None
    rows: list[RouteCounts]


class Counters(NamedTuple):
    """What only ever grows: all rows of all time, by the age of their series; what was dropped; the newest version."""

    rows: list[RouteCounts]
    dropped: list[Dropped]
    version: int
