"""Pages of keys, oldest first, by what is asked for; groups and what was asked with keys."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, update

from admin.database import Database
from admin.migrations import migrate
from admin.rules.key_records import GroupFigures, Position, Status, StatusCounts, Wanted
from admin.services.failures import DuplicateGroup, GroupInUse, NoSuchGroup
from admin.tables import credentials
from proxy.config import ConfigError, CredentialSource, KeyPool, PoolGroup, Route
from proxy.rules.credentials import Kind
from tests.admin.pool import NOW_MS, Pool
from tests.sql_servers import with_database


async def written(pool: Pool, name: str, **values: object) -> None:
    async with pool.database.write() as connection:
        await connection.execute(update(credentials).where(credentials.c.id == name).values(values))


def test_pages_go_by_age(database_url: str) -> None:
    async def story(database: Database) -> None:
        pool = Pool(database)
        ids = await pool.added(*(f"sk-{number}" for number in range(5)))
        pool.now_ms -= 5
        ids = [*await pool.added("sk-older"), *ids]
        await pool.credentials.put(id="oauth", secret="token", kind=Kind.OAUTH)
        for size in (1, 2, 3, 10):
            found: list[str] = []
            after: Position | None = None
            while page := await pool.credentials.list(wanted=Wanted(), limit=size, after=after):
                found += [one.id for one in page]
                after = Position(page[-1].created_at, page[-1].id)
            assert found == ids
        assert [one.id for one in await pool.credentials.list(wanted=Wanted(), limit=2, offset=3)] == ids[3:5]
        assert await pool.credentials.count(wanted=Wanted()) == 6

    with_database(database_url, story)


def test_keys_are_found_by_what_they_are(database_url: str) -> None:
    async def story(database: Database) -> None:
        pool = Pool(database)
        await pool.group("main")
        one, two, three, four = await pool.added(
            "sk-ant-0123456789-0123456789-abCD,Ärger 100%", "sk-2,other,main", "sk-3", "sk-4"
        )
        await pool.credentials.update(id=three, status=Status.DISABLED)
        await written(pool, four, banned_at=NOW_MS, banned_until=NOW_MS + 60_000, ban_cause="dead")

        async def found(wanted: Wanted) -> list[str]:
            names = [one.id for one in await pool.credentials.list(wanted=wanted, limit=10)]
            assert await pool.credentials.count(wanted=wanted) == len(names)
            return names

        assert await found(Wanted(status=Status.ACTIVE)) == [one, two]
        assert await found(Wanted(status=Status.DISABLED)) == [three]
        assert await found(Wanted(status=Status.BANNED)) == [four]
        assert await found(Wanted(group="main")) == [two]
        assert await found(Wanted(provider="anthropic")) == [one]
        assert await found(Wanted(status=Status.ACTIVE, group="default", provider="anthropic", q="rger")) == [one]
        for q, names in (("ÄRGER", [one]), ("100%", [one]), ("%", [one]), ("_", [one, two, three, four]), (two, [two])):
            assert await found(Wanted(q=q)) == names
        assert await found(Wanted(q="...ABCD")) == [one]
        assert await found(Wanted(q="0123456789-0123")) == [], "the secret itself is not searched"
        assert await found(Wanted(q=" sk-ant-0123456789-0123456789-abCD ")) == [one], "but found where it is all there"
        assert await found(Wanted(q="SK-ANT-0123456789-0123456789-abCD")) == [], "which is another key"
        assert await found(Wanted(status=Status.DISABLED, q="sk-3")) == [three]
        assert await found(Wanted(status=Status.ACTIVE, q="sk-3")) == []
        assert await found(Wanted(status=Status.BANNED, q="key_")) == [four]
        assert await found(Wanted(status=Status.ACTIVE, group="main", q="key_")) == [two]
        assert await found(Wanted(group="nowhere", q="key_")) == []
        assert await found(Wanted(group="nowhere")) == []
        await pool.credentials.update(id=two, notes="New")
        assert (await found(Wanted(q="new")), await found(Wanted(q="other"))) == ([two], [])

    with_database(database_url, story)


FILTERS = (
    Wanted(q="a"),
    *(Wanted(status=status, q="a") for status in Status),
    Wanted(group="default", q="a"),
    Wanted(provider="openai", q="a"),
    Wanted(status=Status.ACTIVE, group="default", provider="openai", q="a"),
)


def test_a_search_reads_an_index_to_its_end_and_no_row(tmp_path: Path) -> None:
    """In SQLite. With 100,000 rows, which have secrets and figures too, it would take twice as long."""
    statements: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        statements.append((statement, parameters))

    async def story(database: Database) -> None:
        await migrate(database)
        pool = Pool(database)
        await pool.added("sk-1", "sk-2")
        event.listen(Engine, "before_cursor_execute", note)
        try:
            for wanted in FILTERS:
                await pool.credentials.list(wanted=wanted, limit=10, offset=5)
                await pool.credentials.count(wanted=wanted)
        finally:
            event.remove(Engine, "before_cursor_execute", note)
        searches = [(statement, parameters) for statement, parameters in statements if "LIKE" in statement]
        assert len(searches) == 2 * len(FILTERS)
        async with database.read() as connection:
            for statement, parameters in searches:
                plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
                steps = [str(row[-1]) for row in plan]
                assert "SCAN credentials USING COVERING INDEX ix_credentials_search" in steps, statement

    with_database(f"sqlite:///{tmp_path}/r.db", story)


def test_groups_have_figures_and_are_versions(database_url: str) -> None:
    async def story(database: Database) -> None:
        pool = Pool(database)
        made = await pool.groups.create(id="main", group=PoolGroup(name="Main", priority=1), actor="test")
        assert made == GroupFigures("main", "Main", 1, 0, 0, 0, 0)
        one, two, _ = await pool.added("sk-1", "sk-2", "sk-3", group="main")
        await pool.credentials.update(id=one, status=Status.DISABLED)
        await written(pool, two, banned_until=NOW_MS + 1)
        await written(pool, one, banned_until=NOW_MS + 1)
        assert await pool.groups.list() == [
            GroupFigures("main", "Main", 1, 3, 1, 1, 1),
            GroupFigures("default", "", 100, 0, 0, 0, 0),
        ]
        changed = await pool.groups.update(
            id="default", change=lambda group: PoolGroup(name="All", priority=group.priority - 100), actor="test"
        )
        assert changed == GroupFigures("default", "All", 0, 0, 0, 0, 0)
        newest = await pool.versions.get(2)
        assert newest is not None
        assert (newest.summary, newest.changes[0].name) == ("change key_pool groups.default", "groups.default")

    with_database(database_url, story)


def test_what_groups_cannot_be(database_url: str) -> None:
    async def story(database: Database) -> None:
        pool = Pool(database)
        await pool.group("main")
        for name in ("main", "default"):
            with pytest.raises(DuplicateGroup):
                await pool.groups.create(id=name, group=PoolGroup(), actor="test")
        with pytest.raises(ConfigError, match="not a group, expected 1 to 64"):
            await pool.groups.create(id="a b", group=PoolGroup(), actor="test")
        with pytest.raises(NoSuchGroup):
            await pool.groups.update(id="spare", change=lambda group: group, actor="test")
        with pytest.raises(NoSuchGroup):
            await pool.groups.delete(id="spare", actor="test")
        route = Route(target="http://a", credential=CredentialSource.POOL, pool_groups=("main",))
        await pool.routes.create("/a", route, "test")
        for name, why in (("main", "the route /a$"), ("default", "keys of no other group")):
            with pytest.raises(GroupInUse, match=why):
                await pool.groups.delete(id=name, actor="test")
        assert await pool.versions.newest() == 2

    with_database(database_url, story)


def test_the_keys_of_a_deleted_group_are_of_default(database_url: str) -> None:
    async def story(database: Database) -> None:
        pool = Pool(database)
        await pool.group("main", "spare")
        ids = await pool.added("sk-1", "sk-2", group="main")
        told, version = pool.told, await pool.version()
        assert await pool.groups.delete(id="main", actor="test") == 2
        assert [(await pool.credentials.existing(id=name)).group for name in ids] == ["default"] * 2
        assert (pool.told, await pool.version()) == (told + 1, version + 1)
        assert await pool.groups.delete(id="spare", actor="test") == 0
        assert pool.told == told + 1
        assert await pool.key_pool.current() == KeyPool()

    with_database(database_url, story)


def test_the_best_keys_and_all_together(database_url: str) -> None:
    async def story(database: Database) -> None:
        pool = Pool(database)
        ids = await pool.added(*(f"sk-{number}" for number in range(4)))
        for name, requests, successes in zip(ids, (10, 100, 4, 0), (9, 90, 4, 0), strict=True):
            await written(pool, name, requests=requests, successes=successes, errors=requests - successes)
        await pool.credentials.update(id=ids[0], status=Status.DISABLED)
        best = await pool.statistics.ranking(limit=3)
        assert [one.id for one in best] == [ids[2], ids[1], ids[0]]
        assert len(await pool.statistics.ranking(limit=1)) == 1
        assert await pool.statistics.counts() == StatusCounts(4, 3, 1, 0, 114, 103, 11)

    with_database(database_url, story)


def test_nothing_is_there_at_first(database_url: str) -> None:
    async def story(database: Database) -> None:
        pool = Pool(database)
        assert await pool.statistics.counts() == StatusCounts(0, 0, 0, 0, 0, 0, 0)
        assert await pool.statistics.ranking(limit=5) == []
        assert await pool.credentials.list(wanted=Wanted(), limit=5) == []
        assert [group.id for group in await pool.groups.list()] == ["default"]

    with_database(database_url, story)
