"""What workers tell of credentials: each delta once, added to rows, hours and days; bans are mirrored."""

from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from admin.database import Database
from admin.rules.key_records import Status, UsePoint
from admin.rules.periods import DAY_S, HOUR_S, slot_of
from admin.services import events
from admin.services.credential_intake import CredentialIntake
from admin.services.events import Entry, Taken
from admin.tables import credential_bans
from proxy.rules.credentials import BanCause
from proxy.shared_state.credential_events import BanChange, CredentialCounts, CredentialsDelta
from tests.admin.pool import NOW_MS, Pool
from tests.sql_servers import with_database

NOW_S = NOW_MS / 1000


def counts(name: str, requests: int, successes: int, at_s: float = NOW_S, **fields: Any) -> CredentialCounts:
    return CredentialCounts(name, requests, successes, requests - successes, at_s, **fields)


def delta(*parts: CredentialCounts | BanChange, sequence: int = 1, worker: str = "w") -> CredentialsDelta:
    return CredentialsDelta(
        worker,
        sequence,
        [one for one in parts if isinstance(one, CredentialCounts)],
        [one for one in parts if isinstance(one, BanChange)],
    )


async def take(pool: Pool, *deltas: CredentialsDelta | bytes) -> Taken:
    """Takes them as one batch, in one transaction."""
    entries = [
        Entry(f"{number}-0", 0.5, one if isinstance(one, bytes) else msgspec.msgpack.encode(one))
        for number, one in enumerate(deltas, 1)
    ]

    async def work(connection: AsyncConnection) -> Taken:
        await events.lock(connection)
        return await CredentialIntake(lambda: pool.now_ms).take(connection, entries)

    return await pool.database.transact(work)


async def model_bans(pool: Pool) -> list[tuple[str, str, str, int, int]]:
    row = credential_bans.c
    query = select(row.credential, row.model, row.cause, row.banned_until, row.status)
    async with pool.database.read() as connection:
        return [tuple(one) for one in await connection.execute(query)]


def test_counts_are_added_to_rows_hours_and_days(database_url: str) -> None:
    async def story(database: Database) -> None:
        pool = Pool(database)
        one, two = await pool.added("sk-1", "sk-2")
        hour = slot_of(HOUR_S, NOW_S).start_s
        first = delta(counts(one, 3, 2, last_error="failed", last_error_s=NOW_S, last_error_status=500))
        later = delta(counts(one, 1, 1, NOW_S + HOUR_S), counts(two, 2, 2), counts("key_1", 5, 5), sequence=2)
        assert (await take(pool, first, later))[:2] == ([], 0)
        found = await pool.credentials.existing(id=one)
        assert (found.requests, found.successes, found.errors) == (4, 3, 1)
        assert found.last_used_at == NOW_MS + HOUR_S * 1000
        assert (found.last_error, found.last_error_status, found.last_error_at) == ("failed", 500, NOW_MS)
        uses = pool.statistics.uses
        assert await uses(period_s=HOUR_S, since_s=0) == [UsePoint(hour, 10, 9, 1), UsePoint(hour + HOUR_S, 1, 1, 0)]
        assert await uses(period_s=HOUR_S, since_s=0, id=one) == [
            UsePoint(hour, 3, 2, 1),
            UsePoint(hour + HOUR_S, 1, 1, 0),
        ]
        assert await uses(period_s=HOUR_S, since_s=hour + 1, id=two) == []
        (day,) = await uses(period_s=DAY_S, since_s=0)
        assert day == UsePoint(slot_of(DAY_S, NOW_S).start_s, 11, 10, 1)
        assert (await pool.version(), pool.told) == (1, 1), "workers need not be told what they told"

    with_database(database_url, story)


def test_a_delta_that_comes_again_is_passed_over_and_a_gap_is_told(database_url: str) -> None:
    async def story(database: Database) -> None:
        pool = Pool(database)
        (one,) = await pool.added("sk-1")
        first, fourth = delta(counts(one, 1, 1)), delta(counts(one, 1, 1), sequence=4)
        await take(pool, first)
        assert (await take(pool, first, fourth, b"nothing", first)).missing == 2
        taken = await take(pool, b"nothing")
        assert [entry.id for entry in taken.undecodable] == ["1-0"]
        await take(pool, delta(counts(one, 1, 1), worker="x"))
        assert (await pool.credentials.existing(id=one)).requests == 3
        assert [point.requests for point in await pool.statistics.uses(period_s=DAY_S, since_s=0)] == [3]

    with_database(database_url, story)


def test_the_last_error_and_the_last_use_stay_whatever_comes_late(database_url: str) -> None:
    async def story(database: Database) -> None:
        pool = Pool(database)
        (one,) = await pool.added("sk-1")
        await take(pool, delta(counts(one, 1, 0, last_error="failed", last_error_s=NOW_S)))
        late = counts(one, 1, 0, NOW_S - 5, last_error="dead", last_error_s=NOW_S - 5)
        await take(pool, delta(late, counts(one, 1, 1, NOW_S - 9), worker="x"))
        found = await pool.credentials.existing(id=one)
        assert (found.last_error, found.last_used_at, found.requests) == ("failed", NOW_MS, 3)

    with_database(database_url, story)


def test_bans_are_mirrored(database_url: str) -> None:
    async def story(database: Database) -> None:
        pool = Pool(database)
        one, two = await pool.added("sk-1", "sk-2")
        ban = BanChange(one, "", BanCause.OUT_OF_QUOTA, NOW_S, NOW_S + 60, 402, 1)
        of_model = BanChange(two, "gpt" * 100, BanCause.NOT_ENTITLED, NOW_S, NOW_S + 60, 403, 1)
        counting = BanChange(two, "", BanCause.COUNTING, NOW_S)
        gone = BanChange("key_1", "gpt", BanCause.DEAD, NOW_S, NOW_S + 60)
        await take(pool, delta(ban, of_model, counting, gone))
        found = await pool.credentials.existing(id=one)
        assert (found.status, found.ban_cause, found.ban_status) == (Status.BANNED, BanCause.OUT_OF_QUOTA, 402)
        assert (found.banned_at, found.banned_until) == (NOW_MS, NOW_MS + 60_000)
        assert (await pool.credentials.existing(id=two)).status is Status.ACTIVE
        assert await model_bans(pool) == [(two, ("gpt" * 100)[:255], "not_entitled", NOW_MS + 60_000, 403)]
        ended = [BanChange(one, "", None, NOW_S + 9), BanChange(two, "gpt" * 100, None, NOW_S + 9)]
        again = BanChange(two, "o", BanCause.DEAD, NOW_S, NOW_S + 1)
        await take(pool, delta(*ended, again, again, sequence=2))
        found = await pool.credentials.existing(id=one)
        assert (found.status, found.banned_at, found.ban_cause) == (Status.ACTIVE, None, None)
        assert [model for _, model, *_ in await model_bans(pool)] == ["o"]

    with_database(database_url, story)
