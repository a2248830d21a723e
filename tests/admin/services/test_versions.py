"""Versions: read newest first, compared, and gone back to."""

import pytest
from sqlalchemy import update

from admin.database import Database
from admin.rules.changes import Change
from admin.services.edits import Editor, Touched
from admin.services.failures import NoSuchVersion
from admin.services.key_pool import KeyPoolSettings
from admin.services.routes import Routes
from admin.services.versions import Versions
from admin.tables import config_versions
from proxy.config import Algorithm, ConfigError, KeyPool, Route
from proxy.shared_state.published import RoutesSection
from tests.sql_servers import with_database

A, B = Route(target="https://a.example"), Route(target="https://b.example", preserve_host=True)
SPEC_A = {"target": "https://a.example"}
SPEC_B = {"target": "https://b.example", "preserve_host": True}


def refuse_many(touched: Touched) -> None:
    if len(touched.routes) > 2:
        raise ConfigError("routes", "too many")


def services(database: Database) -> tuple[Routes, Versions]:
    editor = Editor(database, refuse_many, lambda: 5)
    return Routes(editor), Versions(editor)


def test_before_the_first_edit_there_is_none(database_url: str) -> None:
    async def story(database: Database) -> None:
        _, versions = services(database)
        assert await versions.newest() == 0
        assert await versions.current() == RoutesSection(0, {})
        assert await versions.mark() == (0, 0)
        assert await versions.list(None, 10) == []
        for number in (-1, 0, 1, 2**63, 10**30):
            assert await versions.get(number) is None
        with pytest.raises(NoSuchVersion):
            await versions.diff(0, 1)
        with pytest.raises(NoSuchVersion):
            await versions.roll_back(1, "token")

    with_database(database_url, story)


def test_a_version_says_who_what_and_the_whole(database_url: str) -> None:
    async def story(database: Database) -> None:
        routes, versions = services(database)
        await routes.create("/a", A, "token")
        await routes.create("/b", B, "session:1")
        version = await versions.get(2)
        assert version is not None
        assert (version.number, version.created_at, version.actor) == (2, 5, "session:1")
        assert version.summary == "create route /b"
        assert version.changes == [Change("route", "/b", None, SPEC_B)]
        assert version.document == {"routes": {"/a": SPEC_A, "/b": SPEC_B}}
        assert await versions.current() == RoutesSection(2, {"/a": A, "/b": B}, 5)
        assert await versions.mark() == (2, 5)

    with_database(database_url, story)


def test_pages_newest_first(database_url: str) -> None:
    async def story(database: Database) -> None:
        routes, versions = services(database)
        for _ in range(3):
            await routes.create("/a", A, "token")
            await routes.delete("/a", "token")
        assert [one.number for one in await versions.list(None, 4)] == [6, 5, 4, 3]
        assert [one.number for one in await versions.list(3, 4)] == [2, 1]
        assert await versions.list(1, 4) == []

    with_database(database_url, story)


def test_versions_compare_in_either_order(database_url: str) -> None:
    async def story(database: Database) -> None:
        routes, versions = services(database)
        await routes.create("/a", A, "token")
        await routes.create("/b", B, "token")
        await routes.update("/a", lambda _: B, "token")
        there = await versions.diff(1, 3)
        assert there == [Change("route", "/a", SPEC_A, SPEC_B), Change("route", "/b", None, SPEC_B)]
        assert await versions.diff(3, 1) == [Change(one.kind, one.name, one.after, one.before) for one in there]
        assert await versions.diff(2, 2) == []

    with_database(database_url, story)


def test_to_roll_back_is_a_new_version(database_url: str) -> None:
    async def story(database: Database) -> None:
        routes, versions = services(database)
        await routes.create("/a", A, "token")
        await routes.create("/b", B, "token")
        await routes.delete_many(["/a", "/b"], "token")
        assert await versions.roll_back(2, "token") == 4
        assert await routes.all() == {"/a": A, "/b": B}
        version = await versions.get(4)
        assert version is not None
        assert version.summary == "roll back to version 2: 2 added"
        assert await versions.diff(2, 4) == []
        assert await versions.roll_back(4, "token") == 4, "it is so already"

    with_database(database_url, story)


def test_a_version_that_cannot_be_used_any_more_is_not_restored(database_url: str) -> None:
    async def story(database: Database) -> None:
        routes, versions = services(database)
        await routes.create("/a", A, "token")
        await routes.delete("/a", "token")
        three = ",".join(f'"/{number}":{{"target":"https://a"}}' for number in range(3))
        documents = {
            '{"routes":{"/a":{"target":"https://a","colour":1}}}': "version 1: Object contains unknown field",
            "{}": "version 1: ",
            f'{{"routes":{{{three}}}}}': "routes: too many",
        }
        for document, message in documents.items():
            async with database.write() as connection:
                row = update(config_versions).where(config_versions.c.number == 1)
                await connection.execute(row.values(document=document))
            with pytest.raises(ConfigError) as caught:
                await versions.roll_back(1, "token")
            assert str(caught.value).startswith(message)
        assert await versions.newest() == 2

    with_database(database_url, story)


def test_the_key_pool_is_part_of_each_version(database_url: str) -> None:
    async def story(database: Database) -> None:
        routes, versions = services(database)
        pool = KeyPoolSettings(Editor(database, lambda _: None, lambda: 5))
        await routes.create("/a", A, "token")
        changed = await pool.update(change=lambda _: KeyPool(algorithm=Algorithm.RANDOM), actor="token")
        assert changed == await pool.current() == KeyPool(algorithm=Algorithm.RANDOM)
        assert await versions.current() == RoutesSection(2, {"/a": A}, 5, changed)
        assert await versions.diff(1, 2) == [Change("key_pool", "algorithm", None, "random")]
        with pytest.raises(ConfigError, match=r"key_pool\.retry_max: found 21"):
            await pool.update(change=lambda _: KeyPool(retry_max=21), actor="token")
        await versions.roll_back(1, "token")
        assert await pool.current() == KeyPool()
        await versions.roll_back(2, "token")
        assert await pool.current() == changed
        assert (await versions.list(None, 1))[0].summary == "roll back to version 2 key_pool algorithm"

    with_database(database_url, story)
