"""What is forgotten, and what stays for ever."""

import pytest
from sqlalchemy import func, insert, select

from admin import tables
from admin.database import Database
from admin.rules.deltas import EVERYTHING
from admin.rules.periods import ALL_TIME, ALL_TIME_S, DAY_S, HOUR_S, MINUTE_S
from admin.services import retention as module
from admin.services.edits import Editor
from admin.services.failures import NoSuchVersion
from admin.services.retention import WORKERS_DAYS, Retention
from admin.services.routes import Routes
from admin.services.versions import Versions
from proxy.config import Retention as Kept
from proxy.config import Route
from tests.admin.counted import NOW_S, delta, row
from tests.admin.intake import Intake
from tests.sql_servers import with_database


def retention(database: Database, kept: Kept, now_s: float, *living: str) -> Retention:
    return Retention(database, kept, lambda: living, lambda: now_s)


async def starts(database: Database) -> dict[int, set[int]]:
    """Where the slots that are left begin, by period."""
    found: dict[int, set[int]] = {}
    async with database.read() as connection:
        for period_s, start_s in await connection.execute(
            select(tables.statistics.c.period_s, tables.statistics.c.start_s)
        ):
            found.setdefault(period_s, set()).add(start_s)
    return found


def test_rows_are_kept_as_long_as_the_settings_say(database_url: str) -> None:
    kept = Kept(minute_rows_hours=2, hour_rows_days=31, day_rows_days=40)
    now_s = int(NOW_S) // DAY_S * DAY_S
    ages_s = [0, 2 * HOUR_S, 2 * HOUR_S + 60, 31 * DAY_S, 31 * DAY_S + HOUR_S, 40 * DAY_S, 41 * DAY_S, 400 * DAY_S]

    async def story(database: Database) -> None:
        deltas = [
            delta(row(s2xx=1), row("/b", s2xx=1), sequence=number, at_s=now_s - age_s)
            for number, age_s in enumerate(ages_s, 1)
        ]
        await Intake(database).take(*deltas)
        before = await starts(database)
        await retention(database, kept, now_s).forget()
        assert await starts(database) == {
            MINUTE_S: {now_s, now_s - 2 * HOUR_S},
            HOUR_S: {start_s for start_s in before[HOUR_S] if start_s >= now_s - 31 * DAY_S},
            DAY_S: {start_s for start_s in before[DAY_S] if start_s >= now_s - 40 * DAY_S},
            ALL_TIME_S: {0},
        }
        stored = await Intake(database).stored()
        assert {found.durations.count for (slot, _), found in stored.items() if slot.period_s == ALL_TIME_S} == {8, 16}

    with_database(database_url, story)


@pytest.mark.parametrize("bound", [1, 3, 4, 9, 100])
def test_many_rows_go_in_bounded_statements(database_url: str, monkeypatch: pytest.MonkeyPatch, bound: int) -> None:
    monkeypatch.setattr(module, "ROWS_MAX", bound)

    async def story(database: Database) -> None:
        rows = [row(f"/{number}", s2xx=1) for number in range(3)]
        old_s = NOW_S - 60 * HOUR_S
        await Intake(database).take(
            *(delta(*rows, sequence=number + 1, at_s=old_s + 60 * number) for number in range(3)),
            delta(*rows, sequence=4),
        )
        await retention(database, Kept(), NOW_S).forget()
        assert (await starts(database))[MINUTE_S] == {int(NOW_S)}

    with_database(database_url, story)


def test_workers_are_forgotten_when_they_have_been_gone_for_long(database_url: str) -> None:
    async def story(database: Database) -> None:
        intake = Intake(database)
        long_ago_ms = int(NOW_S - WORKERS_DAYS * DAY_S) * 1000
        for worker, at_ms in (("gone", long_ago_ms), ("idle", long_ago_ms), ("late", long_ago_ms + 1000)):
            intake.now_ms = at_ms
            await intake.take(delta(row(s2xx=1), worker=worker))
        await retention(database, Kept(), NOW_S).forget()
        assert (await intake.sequences()).keys() == {"gone", "idle", "late"}, "without a living one, nobody is known"
        await retention(database, Kept(), NOW_S, "idle").forget()
        assert (await intake.sequences()).keys() == {"idle", "late"}

    with_database(database_url, story)


def test_the_journal_of_a_machine_that_was_off_for_a_year_counts_nothing_twice(database_url: str) -> None:
    async def story(database: Database) -> None:
        intake = Intake(database)
        intake.now_ms = int(NOW_S * 1000)
        await intake.take(*(delta(row(s2xx=1), sequence=sequence) for sequence in (1, 2)))
        before = await intake.stored()
        await retention(database, Kept(day_rows_days=10_000), NOW_S + 365 * DAY_S, "other").forget()
        again = await intake.take(delta(row(s2xx=1), sequence=2))
        after = await intake.stored()
        assert (again.missing, after[ALL_TIME, EVERYTHING]) == (0, before[ALL_TIME, EVERYTHING])

    with_database(database_url, story)


@pytest.mark.parametrize(("kept", "bound"), [(1, 100), (3, 1), (3, 100), (7, 100), (100, 100)])
def test_the_newest_versions_stay(database_url: str, monkeypatch: pytest.MonkeyPatch, kept: int, bound: int) -> None:
    monkeypatch.setattr(module, "VERSIONS_MAX", bound)

    async def story(database: Database) -> None:
        editor = Editor(database, lambda *_: None, lambda: 5)
        await retention(database, Kept(versions=kept), NOW_S).forget()
        for number in range(7):
            await Routes(editor).create(f"/{number}", Route(target="http://a.example"), "token")
        await retention(database, Kept(versions=kept), NOW_S).forget()
        versions = Versions(editor)
        for number in range(1, 8 - kept):
            with pytest.raises(NoSuchVersion):
                await versions.roll_back(number, "token")
        numbers = [one.number for one in await versions.list(None, 100)]
        assert numbers == list(range(7, max(0, 7 - kept), -1))
        assert await versions.newest() == 7
        assert len((await versions.current()).routes) == 7
        await Routes(editor).create("/next", Route(target="http://a.example"), "token")
        assert await versions.newest() == 8

    with_database(database_url, story)


def test_nothing_to_forget_is_no_error(database_url: str) -> None:
    async def story(database: Database) -> None:
        await retention(database, Kept(), NOW_S, "w").forget()
        async with database.read() as connection:
            assert await connection.scalar(select(func.count()).select_from(tables.statistics)) == 0

    with_database(database_url, story)


def test_uses_of_credentials_and_their_workers_are_forgotten_too(database_url: str) -> None:
    async def story(database: Database) -> None:
        slots = [
            (HOUR_S, NOW_S - 91 * DAY_S),
            (HOUR_S, NOW_S),
            (DAY_S, NOW_S - 91 * DAY_S),
            (DAY_S, NOW_S - 900 * DAY_S),
        ]
        rows = [
            {"period_s": period_s, "start_s": int(at_s), "credential": name, "requests": 1, "successes": 1, "errors": 0}
            for period_s, at_s in slots
            for name in ("", "key_1")
        ]
        long_ago_ms = int(NOW_S - WORKERS_DAYS * DAY_S) * 1000
        workers = [{"worker": name, "sequence": 1, "seen_at": long_ago_ms} for name in ("gone", "idle")]
        async with database.write() as connection:
            await connection.execute(insert(tables.credential_statistics), rows)
            await connection.execute(insert(tables.credential_workers), workers)
        await retention(database, Kept(), NOW_S, "idle").forget()
        async with database.read() as connection:
            row = tables.credential_statistics.c
            kept = {tuple(one) for one in await connection.execute(select(row.period_s, row.start_s))}
            assert kept == {(period_s, int(at_s)) for period_s, at_s in slots[1:3]}
            assert list(await connection.scalars(select(tables.credential_workers.c.worker))) == ["idle"]

    with_database(database_url, story)
