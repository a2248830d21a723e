"""Statistics read back: totals, figures of prefixes, graphs, ranges, and what is known while SQL is down."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from admin.database import Database, DatabaseDown
from admin.rules.figures import Counters, Detail, Dropped, PrefixFigures
from admin.rules.periods import DAY_S, HOUR_S, Range
from admin.services import events
from admin.services import statistics as module
from admin.services.edits import Editor
from admin.services.routes import Routes
from admin.services.statistics import Statistics
from proxy.config import Retention, Route
from proxy.statistics import RouteCounts
from tests.admin import counted
from tests.admin import memory as model
from tests.admin.counted import NOW_S, delta, row
from tests.admin.intake import Intake, emptied
from tests.sql_servers import with_database

TODAY = [
    delta(row("/a", "new.example", s2xx=2, s4xx=1), row("", "", no_route=1), sequence=5),
    delta(row("/a", "new.example", s2xx=1), sequence=6, at_s=NOW_S + 60),
]
BEFORE = [
    delta(row("/a", "old.example", at_s=NOW_S - 40 * DAY_S, s2xx=1000), sequence=1, at_s=NOW_S - 40 * DAY_S),
    delta(row("/b", at_s=NOW_S - 29 * DAY_S, s2xx=100), sequence=2, at_s=NOW_S - 29 * DAY_S),
    delta(row("/a", "old.example", at_s=NOW_S - 6 * DAY_S, s2xx=10), sequence=3, at_s=NOW_S - 6 * DAY_S),
    delta(row("/b", at_s=NOW_S - HOUR_S, s5xx=4), sequence=4, at_s=NOW_S - HOUR_S),
]


def play(url: str, story: Callable[[Database, Statistics], Coroutine[Any, Any, None]]) -> None:
    """With all deltas taken, a minute after NOW_S."""

    async def main(database: Database) -> None:
        await Intake(database).take(*BEFORE, *TODAY)
        await story(database, Statistics(database, Retention(), lambda: NOW_S + 60))

    with_database(url, main)


def test_totals_are_of_all_time_and_of_the_last_minutes(database_url: str) -> None:
    async def story(database: Database, statistics: Statistics) -> None:
        async with database.write() as connection:
            await events.drop_missing(connection, "statistics", 3)
        totals = await statistics.totals()
        outcomes = {name: counts.requests for name, counts in totals.all_time.outcomes.items()}
        assert outcomes == {"2xx": 1113, "4xx": 1, "no_route": 1, "5xx": 4}
        assert totals.recent.durations.count == 5
        assert totals.dropped == [Dropped("statistics", "missing", 3)]

    play(database_url, story)


def test_before_the_first_request_all_is_nothing(database_url: str) -> None:
    async def story(database: Database) -> None:
        statistics = Statistics(database, Retention(), lambda: NOW_S)
        assert await statistics.totals() == (RouteCounts("", ""), RouteCounts("", ""), [])
        for shown, points in ((Range.DAY, 24), (Range.ALL, 1)):
            overview = await statistics.overview(shown, None)
            assert (overview.prefixes, len(overview.graph)) == ([], points)
        assert await statistics.detail(None) == Detail(None, [])
        assert (await statistics.detail((0, 2**43))).rows == []
        assert await statistics.counters() == (Counters([], [], 0), True)

    with_database(database_url, story)


def test_a_prefix_has_one_line_whatever_it_led_to(database_url: str) -> None:
    async def story(_database: Database, statistics: Statistics) -> None:
        overview = await statistics.overview(Range.DAY, None)
        assert overview.prefixes == [
            PrefixFigures("", 1, 1, int(NOW_S) * 1000, 1, 1, 1),
            PrefixFigures("/a", 1014, 1, int(NOW_S) * 1000, 4, 14, 14),
            PrefixFigures("/b", 104, 4, int(NOW_S - HOUR_S) * 1000, 4, 4, 104),
        ]

    play(database_url, story)


GRAPHS: list[tuple[Range, str | None, dict[int, tuple[int, int]]]] = [
    (Range.DAY, None, {-1: (5, 2), -2: (4, 4)}),
    (Range.WEEK, None, {-1: (5, 2), -2: (4, 4), -145: (10, 0)}),
    (Range.MONTH, None, {-1: (9, 6), -7: (10, 0), -30: (100, 0)}),
    (Range.ALL, None, {-1: (9, 6), -7: (10, 0), -30: (100, 0), -41: (1000, 0)}),
    (Range.ALL, "/a", {-1: (4, 1), -7: (10, 0), -41: (1000, 0)}),
    (Range.DAY, "", {-1: (1, 1)}),
    (Range.DAY, "/nothing", {}),
]
"""What is not nothing, by its place from the end: requests and errors."""


def test_graphs(database_url: str) -> None:
    async def story(_database: Database, statistics: Statistics) -> None:
        for shown, prefix, points in GRAPHS:
            graph = (await statistics.overview(shown, prefix)).graph
            found = {place - len(graph): point[1:] for place, point in enumerate(graph) if point[1:] != (0, 0)}
            assert found == points, (shown, prefix)
            assert len({after.start_s - before.start_s for before, after in pairwise(graph)}) == 1

    play(database_url, story)


def test_ranges_are_exact_to_the_minute_and_to_what_is_kept(database_url: str) -> None:
    async def story(_database: Database, statistics: Statistics) -> None:
        whole = await statistics.detail(None)
        names = [("", ""), ("/a", "new.example"), ("/a", "old.example"), ("/b", "a.example")]
        assert [(one.prefix, one.authority) for one in whole.rows] == names
        since_s = int(NOW_S)
        first = await statistics.detail((since_s, since_s + 1))
        assert first.range_s == (since_s, since_s + 60)
        assert [one.durations.count for one in first.rows] == [1, 3]
        assert [one.durations.count for one in (await statistics.detail((since_s + 60, since_s + 120))).rows] == [1]
        day_s = since_s - since_s % DAY_S
        old = await statistics.detail((day_s - 40 * DAY_S, day_s - 40 * DAY_S + 1))
        assert old.range_s == (day_s - 40 * DAY_S, day_s - 40 * DAY_S + HOUR_S)
        assert old.rows == []
        ever = await statistics.detail((0, 2**43))
        assert ever.rows == whole.rows
        assert ever.range_s == (day_s - 799 * DAY_S, day_s + DAY_S)
        assert (await statistics.detail((2**43, 2**43))).rows == []

    play(database_url, story)


def test_counters_come_by_the_age_of_their_series(database_url: str) -> None:
    async def story(database: Database, statistics: Statistics) -> None:
        await Routes(Editor(database, lambda _: None, lambda: 5)).create("/a", Route(target="http://a"), "token")
        await Intake(database).take(delta(row("/", s2xx=1), worker="x"))
        counters, of_now = await statistics.counters()
        assert counters is not None
        assert (of_now, counters.version) == (True, 1)
        assert [(one.prefix, one.authority) for one in counters.rows][-1] == ("/", "a.example")
        assert sum(one.durations.count for one in counters.rows) == 1120

    play(database_url, story)


def test_while_sql_is_down_or_slow_counters_are_the_last(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(database: Database, statistics: Statistics) -> None:
        def down() -> None:
            raise DatabaseDown("here", OSError("gone"))

        @asynccontextmanager
        async def slow() -> AsyncIterator[None]:
            await asyncio.Event().wait()
            yield

        read = database.read
        monkeypatch.setattr(database, "read", down)
        assert await statistics.counters() == (None, False)
        monkeypatch.setattr(database, "read", read)
        known, _ = await statistics.counters()
        monkeypatch.setattr(module, "COUNTERS_S", 0.05)
        for trouble in (down, slow):
            monkeypatch.setattr(database, "read", trouble)
            assert await statistics.counters() == (known, False)

    play(database_url, story)


def test_many_rows_are_read_in_parts(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(_database: Database, statistics: Statistics) -> None:
        whole = await statistics.detail((0, 2**43))
        monkeypatch.setattr(module, "ROWS_MAX", 8)
        assert await statistics.detail((0, 2**43)) == whole

    play(database_url, story)


def test_it_says_what_adding_up_everything_anew_would_say(database_url: str) -> None:
    now_s = NOW_S + 3 * DAY_S

    @settings(max_examples=6, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(counted.seconds, counted.rows), max_size=5), st.integers(0, 4000), st.integers(1, 500))
    def play(found: list[tuple[float, RouteCounts]], first: int, minutes: int) -> None:
        deltas = [delta(one, sequence=number, at_s=at_s) for number, (at_s, one) in enumerate(found, 1)]

        async def story(database: Database) -> None:
            await emptied(database)
            await Intake(database).take(*deltas)
            statistics = Statistics(database, Retention(minute_rows_hours=1000), lambda: now_s)
            simple = model.Statistics(deltas, now_s=now_s)
            assert await statistics.totals() == await simple.totals()
            for shown in Range:
                for prefix in (None, "", "/a"):
                    assert await statistics.overview(shown, prefix) == await simple.overview(shown, prefix)
            range_s = (int(NOW_S) + first * 60, int(NOW_S) + (first + minutes) * 60)
            assert await statistics.detail(range_s) == await simple.detail(range_s)

        with_database(database_url, story)

    play()
