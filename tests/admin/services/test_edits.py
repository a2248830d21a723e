"""An edit is whole or nothing, decides on what is there, and is made again when the database ended it."""

import pytest
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from admin import tables
from admin.database import Database, TransactionLost
from admin.services import settings
from admin.services.edits import Edit, Editor, Touched, Whole, newest, read_key_pool, read_routes, record
from proxy.config import ConfigError, KeyPool, PoolGroup, Route
from tests.sql_servers import with_database

A, B = Route(target="https://a.example"), Route(target="https://b.example")
Routes = dict[str, Route]


def accept(_touched: Touched) -> None:
    """Anything will do."""


async def routes_of(database: Database) -> Routes:
    async with database.read() as connection:
        return await read_routes(connection)


def test_an_edit_decides_on_what_is_there(database_url: str) -> None:
    async def story(database: Database) -> None:
        editor = Editor(database, accept, lambda: 5)
        first = await editor.edit("token", "create", lambda current: current | {"/a": A})
        assert (first.version, [change.name for change in first.changes]) == (1, ["/a"])
        second = await editor.edit("token", "turn", lambda current: {"/b": current["/a"]})
        assert (second.version, [change.name for change in second.changes]) == (2, ["/a", "/b"])
        assert await editor.edit("token", "keep", lambda current: current) == Edit(2, [])
        assert await routes_of(database) == {"/b": A}

    with_database(database_url, story)


def test_what_is_not_valid_is_not_written(database_url: str) -> None:
    seen: list[Touched] = []

    def refuse(touched: Touched) -> None:
        seen.append(touched)
        raise ConfigError("routes./a", "no")

    async def story(database: Database) -> None:
        with pytest.raises(ConfigError, match=r"^routes\./a: no$"):
            await Editor(database, refuse, lambda: 5).edit("token", "create", lambda _: {"/a": A})
        assert seen == [Touched({"/a": A}, {})]
        assert await routes_of(database) == {}
        edit = await Editor(database, accept, lambda: 5).edit("token", "create", lambda _: {"/a": B})
        assert edit.version == 1, "a refused edit takes no number"

    with_database(database_url, story)


def test_only_what_an_edit_changes_is_validated(database_url: str) -> None:
    """With 10,000 routes the others cost a third of a second, and what has become of them is no fault of this edit."""
    seen: list[Touched] = []

    async def story(database: Database) -> None:
        editor = Editor(database, seen.append, lambda: 5)
        await editor.edit("token", "create", lambda _: {"/a": A, "/b": A})
        await editor.edit("token", "change", lambda current: current | {"/b": B})
        await editor.edit("token", "delete", lambda current: {"/b": current["/b"]})
        assert [touched.routes for touched in seen] == [{"/a": A, "/b": A}, {"/b": B}, {}]

    with_database(database_url, story)


def test_what_a_decision_writes_beside_is_of_the_same_transaction(database_url: str) -> None:
    async def beside(connection: AsyncConnection, current: Routes) -> Routes:
        await settings.write(connection, "name", "value")
        return current | {"/a": A}

    def refuse(_touched: Touched) -> None:
        raise ConfigError("no")

    async def story(database: Database) -> None:
        with pytest.raises(ConfigError):
            await Editor(database, refuse, lambda: 5).edit_with("token", "create", beside)
        assert await settings.Settings(database).get("name") is None
        editor = Editor(database, accept, lambda: 5)
        assert (await editor.edit_with("token", "create", beside)).version == 1
        assert (await editor.edit_with("token", "create", beside)).version == 1, "without a change it is kept too"
        assert await settings.Settings(database).get("name") == "value"

    with_database(database_url, story)


def test_an_edit_that_the_database_ended_is_made_again(database_url: str) -> None:
    """The first two attempts are lost after all was read and decided."""
    calls = 0

    def now_ms() -> int:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise TransactionLost("deadlock")
        return 5

    async def story(database: Database) -> None:
        edit = await Editor(database, accept, now_ms).edit("token", "create", lambda current: current | {"/a": A})
        assert edit.version == 1
        assert await routes_of(database) == {"/a": A}

    with_database(database_url, story)
    assert calls == 3


def test_a_route_that_this_program_cannot_read_is_told_by_name(database_url: str) -> None:
    async def story(database: Database) -> None:
        row = {"prefix": "/a", "target": "", "spec": '{"colour":"red"}', "created_at": 1, "updated_at": 1}
        async with database.write() as connection:
            await connection.execute(insert(tables.routes).values(row))
        with pytest.raises(ConfigError, match=r"^database: routes\./a: "):
            await Editor(database, accept, lambda: 5).edit("token", "create", lambda current: current)

    with_database(database_url, story)


def test_record_counts_from_one(database_url: str) -> None:
    async def story(database: Database) -> None:
        async with database.write() as connection:
            assert await newest(connection) == 0
            for number in (1, 2, 3):
                assert await record(connection, "token", "test", [], {"routes": {}}, 5) == number
            assert await newest(connection) == 3

    with_database(database_url, story)


def test_the_key_pool_is_edited_with_the_routes_or_alone(database_url: str) -> None:
    pool = KeyPool(retry_max=5, groups={"main": PoolGroup(priority=1)})

    async def both(_: AsyncConnection, before: Whole) -> Whole:
        return before._replace(routes=before.routes | {"/a": A}, key_pool=pool)

    async def story(database: Database) -> None:
        editor = Editor(database, accept, lambda: 5)
        made = await editor.edit_whole("token", "set", both)
        assert [(one.kind, one.name) for one in made.changes] == [
            ("route", "/a"),
            ("key_pool", "groups.main"),
            ("key_pool", "retry_max"),
        ]
        assert await editor.edit_whole("token", "set", both) == Edit(1, [])
        await editor.edit("token", "delete", lambda _: {})
        async with database.read() as connection:
            assert (await read_routes(connection), await read_key_pool(connection)) == ({}, pool)

    with_database(database_url, story)
