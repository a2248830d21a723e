"""Credentials are added once, changed together, removed with a tombstone, and their secrets lie nowhere readable."""

import asyncio
import time
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import insert, update

from admin.database import Database
from admin.migrations import migrate
from admin.rules import key_records
from admin.rules.key_lists import InvalidLine, NewCredential
from admin.rules.key_records import LineOutcome, LineResult, Status
from admin.services.credential_additions import purpose
from admin.services.credential_bans import BanName
from admin.services.failures import DuplicateKey, InvalidCredential, NoSuchGroup, NoSuchKey
from admin.tables import credential_bans, credentials
from proxy.rules.credentials import BanCause, Kind
from tests.admin.pool import NOW_MS, SECRET, Pool
from tests.sql_servers import empty_database, with_database


async def ban(pool: Pool, credential_id: str, until_ms: int, model: str = "") -> None:
    """As the intake mirrors it."""
    async with pool.database.write() as connection:
        if model:
            row = {"credential": credential_id, "model": model, "cause": "dead", "status": 0}
            await connection.execute(insert(credential_bans).values(banned_at=NOW_MS, banned_until=until_ms, **row))
        else:
            values = {"banned_at": NOW_MS, "ban_cause": "dead", "banned_until": until_ms, "ban_status": 401}
            await connection.execute(update(credentials).where(credentials.c.id == credential_id).values(values))


def test_what_is_created_can_be_read_and_its_secret_revealed(database_url: str) -> None:
    async def story(database: Database) -> None:
        pool = Pool(database)
        made = await pool.credentials.create(secret=f" {SECRET} ", notes="mine")
        assert (made.masked, made.provider, made.group, made.status) == (
            "sk-a...nary",
            "anthropic",
            "default",
            Status.ACTIVE,
        )
        assert (made.kind, made.created_at, made.updated_at, made.requests) == (Kind.KEY, NOW_MS, NOW_MS, 0)
        assert (made.last_test_result, made.banned_at, made.tokens_used) == (
            key_records.TestResult.UNTESTED,
            None,
            None,
        )
        assert made.id.startswith("key_")
        assert await pool.credentials.get(id=made.id) == made
        assert await pool.credentials.reveal(id=made.id) == SECRET
        at_rest = await pool.secret_of(made.id)
        assert "canary" not in at_rest
        assert pool.secrets.decrypt(at_rest, purpose(made.id)) == SECRET
        assert (pool.told, await pool.version()) == (1, 1)

    with_database(database_url, story)


def test_a_secret_is_there_once(database_url: str) -> None:
    async def story(database: Database) -> None:
        pool = Pool(database)
        made = await pool.credentials.create(secret=SECRET)
        with pytest.raises(DuplicateKey, match=made.id):
            await pool.credentials.create(secret=SECRET)
        await pool.credentials.delete(id=made.id)
        assert (await pool.credentials.create(secret=SECRET)).id != made.id

    with_database(database_url, story)


def test_what_cannot_be_used_is_refused_and_not_repeated(database_url: str) -> None:
    async def story(database: Database) -> None:
        pool = Pool(database)
        for secret, notes, group in (("", "", "default"), ("can ary", "", "default"), (SECRET, "\0", "default")):
            with pytest.raises(InvalidCredential) as caught:
                await pool.credentials.create(secret=secret, notes=notes, group=group)
            assert "ary" not in str(caught.value)
        with pytest.raises(NoSuchGroup, match="main"):
            await pool.credentials.create(secret=SECRET, group="main")
        with pytest.raises(NoSuchKey):
            await pool.credentials.reveal(id="key_1")
        assert await pool.credentials.get(id="key_1") is None
        assert (pool.told, await pool.version()) == (0, 0)

    with_database(database_url, story)


def test_each_line_of_a_list_has_its_outcome(database_url: str) -> None:
    async def story(database: Database) -> None:
        pool = Pool(database)
        await pool.group("main")
        (first,) = await pool.added("sk-1")
        outcomes = await pool.credentials.import_text(
            text="# mine\nsk-1\nsk-2,two\nsk 3\nsk-2\nsk-4,,main\nsk-5,,nowhere\n"
        )
        second, fourth = outcomes[1].id, outcomes[4].id
        assert [(one.line, one.outcome, one.id) for one in outcomes] == [
            (2, LineOutcome.DUPLICATE, first),
            (3, LineOutcome.ADDED, second),
            (4, LineOutcome.INVALID, None),
            (5, LineOutcome.DUPLICATE, second),
            (6, LineOutcome.ADDED, fourth),
            (7, LineOutcome.INVALID, None),
        ]
        assert outcomes[5] == LineResult(7, LineOutcome.INVALID, None, "there is no group nowhere")
        assert (await pool.credentials.existing(id=second or "")).notes == "two"
        assert (await pool.credentials.existing(id=fourth or "")).group == "main"
        assert pool.told == 2

    with_database(database_url, story)


def test_a_list_is_added_in_parts_and_tells_how_far_it_is(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(database: Database) -> None:
        pool, seen = Pool(database), list[int]()
        entries = [NewCredential(secret=f"sk-{number}", enabled=number != 1) for number in range(5)]
        outcomes = await pool.credentials.create_many(
            keys=[*entries, InvalidLine(6, "", "no key")], progress=seen.append
        )
        assert seen == [2, 4, 6]
        assert [one.outcome for one in outcomes] == [LineOutcome.ADDED] * 5 + [LineOutcome.INVALID]
        assert (await pool.credentials.existing(id=outcomes[1].id or "")).status is Status.DISABLED
        assert await pool.version() == 3

    monkeypatch.setattr("admin.services.credentials.CHUNK", 2)
    with_database(database_url, story)


def test_two_imports_of_one_list_add_each_key_once(database_url: str) -> None:
    async def story(database: Database) -> None:
        pool, other = Pool(database), Pool(database)
        text = "\n".join(f"sk-{number}" for number in range(50))
        found = await asyncio.gather(*(one.credentials.import_text(text=text) for one in (pool, other, pool)))
        became = [[one.outcome for one in outcomes] for outcomes in found]
        assert sorted(map(set, became), key=str) == [
            {LineOutcome.ADDED},
            {LineOutcome.DUPLICATE},
            {LineOutcome.DUPLICATE},
        ]

    with_database(database_url, story)


def test_what_is_given_is_changed(database_url: str) -> None:
    async def story(database: Database) -> None:
        pool = Pool(database)
        await pool.group("main")
        (name,) = await pool.added("sk-1")
        pool.now_ms += 5
        changed = await pool.credentials.update(id=name, notes="Mine", group="main", tokens=(5, None))
        assert (changed.notes, changed.group, changed.status) == ("Mine", "main", Status.ACTIVE)
        assert (changed.tokens_used, changed.tokens_total) == (5, None)
        assert (changed.created_at, changed.updated_at) == (NOW_MS, NOW_MS + 5)
        assert (await pool.credentials.update(id=name, status=Status.DISABLED)).notes == "Mine"
        assert await pool.version() == 3
        assert (await pool.credentials.update(id=name)).status is Status.DISABLED
        assert await pool.version() == 3, "nothing was changed"

    with_database(database_url, story)


def test_what_a_change_cannot_be(database_url: str) -> None:
    async def story(database: Database) -> None:
        pool = Pool(database)
        (name,) = await pool.added("sk-1")
        with pytest.raises(NoSuchGroup):
            await pool.credentials.update(id=name, group="main")
        with pytest.raises(InvalidCredential, match="at most 1000 characters"):
            await pool.credentials.update(id=name, notes="x" * 1001)
        with pytest.raises(InvalidCredential, match="active or disabled"):
            await pool.credentials.update(id=name, status=Status.BANNED)
        for work in (
            lambda: pool.credentials.update(id="key_1", notes="a"),
            lambda: pool.credentials.update(id="key_1", status=Status.ACTIVE),
            lambda: pool.credentials.toggle(id="key_1"),
            lambda: pool.credentials.delete(id="key_1"),
        ):
            with pytest.raises(NoSuchKey, match="key_1"):
                await work()

    with_database(database_url, story)


def test_toggling_turns_it_and_ends_its_bans(database_url: str) -> None:
    async def story(database: Database) -> None:
        pool = Pool(database)
        (name,) = await pool.added("sk-1")
        assert (await pool.credentials.toggle(id=name)).status is Status.DISABLED
        assert pool.bans.ended == []
        assert (await pool.credentials.toggle(id=name)).status is Status.ACTIVE
        await ban(pool, name, NOW_MS + 60_000)
        await ban(pool, name, NOW_MS + 60_000, "gpt")
        banned = await pool.credentials.existing(id=name)
        assert (banned.status, banned.ban_cause, banned.ban_status) == (Status.BANNED, BanCause.DEAD, 401)
        pool.bans.ended.clear()
        freed = await pool.credentials.toggle(id=name)
        assert (freed.status, freed.banned_at, freed.banned_until) == (Status.ACTIVE, None, None)
        assert pool.bans.ended == [BanName(name, ""), BanName(name, "gpt")]
        assert (await pool.credentials.update(id=name, status=Status.DISABLED)).status is Status.DISABLED

    with_database(database_url, story)


def test_a_ban_that_is_over_is_none(database_url: str) -> None:
    async def story(database: Database) -> None:
        pool = Pool(database)
        (name,) = await pool.added("sk-1")
        await ban(pool, name, NOW_MS + 60_000)
        pool.now_ms += 60_000
        assert (await pool.credentials.existing(id=name)).status is Status.ACTIVE

    with_database(database_url, story)


def test_many_are_changed_together(database_url: str) -> None:
    async def story(database: Database) -> None:
        pool = Pool(database)
        await pool.group("main")
        ids = await pool.added("sk-1", "sk-2", "sk-3")
        assert await pool.credentials.move(ids=[*ids[:2], "key_1"], group="main") == 2
        assert await pool.credentials.set_status(ids=ids[1:], status=Status.DISABLED) == 2
        found = [await pool.credentials.existing(id=name) for name in ids]
        assert [(one.group, one.status) for one in found] == [
            ("main", Status.ACTIVE),
            ("main", Status.DISABLED),
            ("default", Status.DISABLED),
        ]
        with pytest.raises(NoSuchGroup):
            await pool.credentials.move(ids=ids, group="nowhere")

    with_database(database_url, story)


def test_removed_ones_leave_a_tombstone_and_no_ban(database_url: str) -> None:
    async def story(database: Database) -> None:
        pool = Pool(database)
        ids = await pool.added("sk-1", "sk-2", "sk-3", "sk-4", "sk-5")
        await pool.credentials.delete(id=ids[0])
        await ban(pool, ids[1], NOW_MS + 60_000)
        await ban(pool, ids[2], NOW_MS + 60_000, "gpt")
        assert await pool.credentials.delete_many(ids=[ids[0], ids[2], "key_1"]) == [ids[2]]
        assert await pool.credentials.delete_all_of(status=Status.BANNED) == 1
        await pool.credentials.update(id=ids[3], status=Status.DISABLED)
        assert await pool.credentials.delete_all_of(status=Status.DISABLED) == 1
        assert await pool.credentials.delete_all_of(status=Status.DISABLED) == 0
        assert await pool.gone() == {ids[0]: 2, ids[2]: 3, ids[1]: 4, ids[3]: 6}
        assert await pool.credentials.get(id=ids[4]) is not None

    with_database(database_url, story)


def test_more_are_removed_than_a_statement_takes(database_url: str) -> None:
    async def story(database: Database) -> None:
        pool = Pool(database)
        ids = await pool.added(*(f"sk-{number}" for number in range(1000)))
        more = [f"key_{number}" for number in range(37_000)]
        assert len(await pool.credentials.delete_many(ids=[*more, *ids[:600]])) == 600
        assert await pool.credentials.set_status(ids=[*more, *ids], status=Status.DISABLED) == 400
        assert await pool.credentials.delete_all_of(status=Status.DISABLED) == 400
        assert len(await pool.gone()) == 1000

    with_database(database_url, story)


def test_a_credential_of_a_given_id_gets_another_secret(database_url: str) -> None:
    async def story(database: Database) -> None:
        pool = Pool(database)
        made = await pool.credentials.put(id="oauth", secret="token-1", kind=Kind.OAUTH)
        assert (made.id, made.kind) == ("oauth", Kind.OAUTH)
        await pool.credentials.update(id="oauth", notes="mine")
        changed = await pool.credentials.put(id="oauth", secret="token-2", kind=Kind.OAUTH)
        assert (changed.notes, await pool.credentials.reveal(id="oauth")) == ("mine", "token-2")
        await pool.credentials.delete(id="oauth")
        await pool.credentials.put(id="oauth", secret="token-3", kind=Kind.OAUTH)
        assert await pool.gone() == {}
        with pytest.raises(InvalidCredential):
            await pool.credentials.put(id="oauth", secret="", kind=Kind.OAUTH)

    with_database(database_url, story)


def test_an_export_has_all_or_those_of_a_status(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(database: Database) -> None:
        pool = Pool(database)
        ids = await pool.added("sk-1,one", "sk-2", "sk-3")
        pool.now_ms -= 5
        ids += await pool.added("sk-4", "sk-5")
        await pool.credentials.update(id=ids[1], status=Status.DISABLED)
        found = [one async for one in pool.credentials.exported()]
        assert [one.secret for one in found] == ["sk-4", "sk-5", "sk-1", "sk-2", "sk-3"]
        assert await pool.credentials.export() == [one.secret for one in found]
        assert (found[2].notes, found[2].group, found[3].status) == ("one", "default", Status.DISABLED)
        assert "sk-" not in repr(found)
        assert await pool.credentials.export(status=Status.DISABLED) == ["sk-2"]
        assert await pool.credentials.export(status=Status.ACTIVE, group="main") == []

    monkeypatch.setattr("admin.services.credential_exports.ROWS_MAX", 2)
    with_database(database_url, story)


def test_a_test_call_is_noted_and_is_no_change(database_url: str) -> None:
    async def story(database: Database) -> None:
        pool = Pool(database)
        (name,) = await pool.added("sk-1")
        test = partial(pool.credentials.record_test, id=name)
        await test(result=key_records.TestResult.FAILED, problem="http_500", http_status=500, status=None)
        pool.now_ms += 5
        await test(result=key_records.TestResult.SUCCESS, problem=None, http_status=200, status=None)
        found = await pool.credentials.existing(id=name)
        assert (found.last_test_result, found.last_test_at) == (key_records.TestResult.SUCCESS, NOW_MS + 5)
        assert (found.last_error, found.last_error_status, found.last_error_at) == ("http_500", 500, NOW_MS)
        assert await pool.version() == 1
        with pytest.raises(NoSuchKey):
            await test(id="key_1", result=key_records.TestResult.SUCCESS, problem=None, http_status=200, status=None)

    with_database(database_url, story)


def test_a_test_call_disables_or_bans(database_url: str) -> None:
    async def story(database: Database) -> None:
        pool = Pool(database)
        dead, poor = await pool.added("sk-1", "sk-2")
        test = partial(pool.credentials.record_test, result=key_records.TestResult.FAILED)
        await test(id=dead, problem="http_401", http_status=401, status=Status.DISABLED)
        assert (await pool.credentials.existing(id=dead)).status is Status.DISABLED
        pool.bans.refused = True
        await test(id=poor, problem="http_402", http_status=402, status=Status.BANNED)
        assert (await pool.credentials.existing(id=poor)).status is Status.ACTIVE, "a worker has banned it, or counts"
        pool.bans.refused = False
        await test(id=poor, problem="http_402", http_status=402, status=Status.BANNED)
        found = await pool.credentials.existing(id=poor)
        assert (found.status, found.ban_cause, found.ban_status) == (Status.BANNED, BanCause.OUT_OF_QUOTA, 402)
        assert found.banned_until == NOW_MS + 3_600_000
        assert pool.bans.begun[poor].until_s == NOW_MS / 1000 + 3600

    with_database(database_url, story)


def test_an_import_leaves_the_configuration_s_lock_in_between(tmp_path: Path) -> None:
    """Who edits a route meanwhile waits for one part of the list at most, not for all of it."""

    async def story(database: Database) -> None:
        await migrate(database)
        pool = Pool(database)
        text = "\n".join(f"sk-{number}" for number in range(10_000))
        began = time.monotonic()
        importing = asyncio.create_task(pool.credentials.import_text(text=text))
        waits = []
        while not importing.done():
            await asyncio.sleep(0.05)
            start = time.monotonic()
            await pool.key_pool.update(change=lambda pool: pool, actor="test")
            waits.append(time.monotonic() - start)
        await importing
        assert max(waits) < (time.monotonic() - began) / 2

    with empty_database("sqlite", tmp_path) as url:
        with_database(url, story)
