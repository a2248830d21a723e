"""Deltas into rows: each once, and the same rows however the same requests are cut."""

import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from admin import tables
from admin.database import Database
from admin.rules import deltas
from admin.services import statistics, statistics_intake
from admin.services.events import Taken
from admin.services.statistics import Statistics
from admin.services.statistics_intake import ALL_SERIES
from proxy.config import Retention
from proxy.rules.histogram import Histogram
from proxy.statistics import RouteCounts
from tests.admin import counted
from tests.admin.counted import NOW_S, delta, row
from tests.admin.intake import Intake, emptied, expected
from tests.sql_servers import with_database


def test_deltas_add_up_in_the_rows_of_their_slots(database_url: str) -> None:
    async def story(database: Database) -> None:
        intake = Intake(database)
        first = delta(row("/a", s2xx=3), row("", "", no_route=1))
        second = delta(row("/a", s2xx=1, client_left=1), sequence=2, at_s=NOW_S + 61)
        other = delta(row("/A", s2xx=5), row("/a", "b.example", s5xx=2), worker="x")
        assert (await intake.take(first))[:2] == ([], 0)
        assert (await intake.take(second, other))[:2] == ([], 0)
        assert await intake.stored() == expected(first, second, other)
        assert await intake.sequences() == {"w": (2, 5), "x": (1, 5)}
        assert intake.stream.requests_per_second() == (4 + 2 + 7) / 10

    with_database(database_url, story)


def test_a_delta_that_comes_again_is_passed_over(database_url: str) -> None:
    """A crash between the commit and the acknowledgement: the same entries are read again, with others behind them."""

    async def story(database: Database) -> None:
        intake = Intake(database)
        first, second, third = (delta(row(s2xx=number), sequence=number) for number in (1, 2, 3))
        await intake.take(first, second)
        assert await intake.take(first, second) == ([], 0, Taken().committed)
        await intake.take(first, first, second, third, third)
        assert await intake.stored() == expected(first, second, third)
        assert intake.stream.requests_per_second() == 0.6

    with_database(database_url, story)


def test_what_is_missing_and_what_is_none_is_told(database_url: str) -> None:
    async def story(database: Database) -> None:
        intake = Intake(database)
        second, fifth = delta(row(s2xx=1), sequence=2), delta(row(s2xx=1), sequence=5)
        taken = await intake.take(second, b"nothing", fifth)
        assert ([entry.id for entry in taken.undecodable], taken.missing) == (["2-0"], 3)
        assert await intake.stored() == expected(second, fifth)
        taken = await intake.take(second, b"nothing")
        assert (len(taken.undecodable), taken.missing) == (1, 0)

    with_database(database_url, story)


def test_names_of_any_length_have_a_series_each(database_url: str) -> None:
    async def story(database: Database) -> None:
        intake = Intake(database)
        names = ["/" + "ä" * 5000, "/" + "ä" * 4999, "/🙂 '\"\\%", "/a", "/A", ""]
        one = delta(*(row(name, authority, s2xx=1) for name in names for authority in ("", "x" * 5000)))
        await intake.take(one)
        await intake.take(msgspec.structs.replace(one, sequence=2))
        assert {key for _, key in await intake.stored()} == {key for _, key in expected(one)}

    with_database(database_url, story)


def test_a_histogram_that_has_everything_fits(database_url: str) -> None:
    async def story(database: Database) -> None:
        intake = Intake(database)
        full = Histogram(dict.fromkeys(range(0x3E00, 0x4200), 2**50), 2**53)
        one = delta(RouteCounts("/a", "", {}, full, full, full, full, NOW_S))
        await intake.take(one)
        assert await intake.stored() == expected(one)

    with_database(database_url, story)


def test_ten_thousand_routes_at_once(database_url: str) -> None:
    async def story(database: Database) -> None:
        intake = Intake(database)
        routes = [row(f"/{number}", s2xx=1) for number in range(10_001)]
        for sequence in (1, 2):
            await intake.take(delta(*routes, sequence=sequence))
        async with database.read() as connection:
            requests = func.sum(tables.statistics.c.requests)
            everything = tables.statistics.c.series == ALL_SERIES
            for which in (everything, ~everything):
                assert await connection.scalar(select(requests).where(which)) == 4 * 2 * len(routes)

    with_database(database_url, story)


def test_the_loop_decodes_nothing_itself(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 10,000 routes that would hold up all else for a second."""
    threads = set()

    def noting(work: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any) -> Any:
            threads.add(threading.get_ident())
            return work(*args)

        return noted

    unpacked = noting(statistics_intake.unpacked)
    monkeypatch.setattr(statistics_intake, "unpacked", unpacked)
    monkeypatch.setattr(statistics, "unpacked", unpacked)
    monkeypatch.setattr(deltas, "read", noting(deltas.read))
    monkeypatch.setattr(deltas, "rolled_up", noting(deltas.rolled_up))

    async def story(database: Database) -> None:
        intake = Intake(database)
        for work in (
            lambda: intake.take(delta(row(s2xx=1))),
            lambda: intake.take(delta(row(s2xx=1), sequence=2)),
            Statistics(database, Retention(), lambda: NOW_S).totals,
            Statistics(database, Retention(), lambda: NOW_S).counters,
        ):
            threads.clear()
            await work()
            assert threads
            assert threading.get_ident() not in threads

    with_database(database_url, story)


counted_then = st.lists(st.tuples(counted.seconds, counted.rows), min_size=1, max_size=6)
cuts = st.lists(st.integers(1, 3), min_size=6, max_size=6)


def test_any_cut_into_deltas_and_batches_gives_the_same_rows(database_url: str) -> None:
    @settings(max_examples=8, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(counted_then, cuts)
    def play(found: list[tuple[float, RouteCounts]], batches: list[int]) -> None:
        async def story(database: Database) -> None:
            await emptied(database)
            intake = Intake(database)
            deltas = [delta(one, sequence=number, at_s=at_s) for number, (at_s, one) in enumerate(found, 1)]
            waiting = list(deltas)
            for size in batches:
                batch, waiting = waiting[:size], waiting[size:]
                await intake.take(*batch)
            assert not waiting
            assert await intake.stored() == expected(*deltas)

        with_database(database_url, story)

    play()
