"""Routes over each database: one edit, one version, and none lost however many edit at once."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from sqlalchemy import event, select

from admin import tables
from admin.database import Database, open_database
from admin.services.edits import Editor, Touched
from admin.services.failures import DuplicateRoute, NoSuchRoute
from admin.services.routes import Routes, StoredRoute
from admin.services.versions import Versions
from proxy.config import ConfigError, Route
from tests.sql_servers import python, with_database

A, B, C = (Route(target=f"https://{name}.example") for name in "abc")
MANY = 10_000


class Clock:
    """Counts up by one a look."""

    def __init__(self) -> None:
        self.ms = 1_700_000_000_000

    def __call__(self) -> int:
        self.ms += 1
        return self.ms


def one_is_forbidden(touched: Touched) -> None:
    if "/forbidden" in touched.routes:
        raise ConfigError("routes./forbidden", "no")


def services(database: Database) -> tuple[Routes, Versions]:
    editor = Editor(database, one_is_forbidden, Clock())
    return Routes(editor), Versions(editor)


def test_a_route_is_created_changed_and_deleted(database_url: str) -> None:
    async def story(database: Database) -> None:
        routes, versions = services(database)
        assert await routes.create("/a/", Route(target="HTTPS://A.example"), "token") == 1
        first = await routes.get("/a")
        assert first is not None
        assert first[:2] == ("/a", A)
        assert first.created_at == first.updated_at > 1_700_000_000_000
        assert await routes.update("/a", lambda _: B, "session:1") == 2
        second = await routes.get("/a/")
        assert second == StoredRoute("/a", B, first.created_at, second.updated_at if second else 0)
        assert second.updated_at > first.updated_at
        assert await routes.delete("/a/", "token") == 3
        assert await routes.get("/a") is None
        assert await routes.all() == {}
        told = [(version.number, version.actor, version.summary) for version in await versions.list(None, 10)]
        assert told == [
            (3, "token", "delete route /a"),
            (2, "session:1", "change route /a"),
            (1, "token", "create route /a"),
        ]

    with_database(database_url, story)


def test_what_cannot_be_done_leaves_nothing(database_url: str) -> None:
    async def story(database: Database) -> None:
        routes, versions = services(database)
        await routes.create("/a", A, "token")
        refused: list[tuple[type[Exception], Callable[[], Any]]] = [
            (DuplicateRoute, lambda: routes.create("/a/", B, "token")),
            (NoSuchRoute, lambda: routes.update("/b", lambda _: B, "token")),
            (NoSuchRoute, lambda: routes.delete("/b", "token")),
            (NoSuchRoute, lambda: routes.delete("no\0prefix", "token")),
            (ConfigError, lambda: routes.create("/b", Route(target="ftp://b"), "token")),
            (ConfigError, lambda: routes.create("b", B, "token")),
            (ConfigError, lambda: routes.create("/forbidden", B, "token")),
            (ConfigError, lambda: routes.apply({"/forbidden": B}, "file")),
        ]
        for error, call in refused:
            with pytest.raises(error):
                await call()
        assert await routes.all() == {"/a": A}
        assert await versions.newest() == 1
        assert await routes.update("/a", lambda _: A, "token") == 1, "nothing changed, no new version"

    with_database(database_url, story)


def test_many_are_deleted_in_one_version(database_url: str) -> None:
    async def story(database: Database) -> None:
        routes, versions = services(database)
        await routes.apply({"/a": A, "/b": B, "/c": C}, "file")
        assert await routes.delete_many(["/c/", "/a", "/none", "no prefix", "/a"], "token") == ["/a", "/c"]
        assert await routes.delete_many(["/none"], "token") == []
        assert await versions.newest() == 2
        assert await routes.all() == {"/b": B}

    with_database(database_url, story)


def test_prefixes_of_another_case_and_with_marks_are_others(database_url: str) -> None:
    prefixes = ["/", "/A", "/a", "/a%5F", "/a/b", "/a_b", "/azb", "/~"]

    async def story(database: Database) -> None:
        routes, _ = services(database)
        await routes.apply(dict.fromkeys(prefixes, A), "file")
        assert list(await routes.all()) == prefixes == sorted(prefixes)
        assert [found.prefix for found in await routes.search("", "", 100)] == prefixes
        assert [found.prefix for found in await routes.search("a_b", "", 100)] == ["/a_b"]
        assert [found.prefix for found in await routes.search("%", "", 100)] == ["/a%5F"]
        assert [found.prefix for found in await routes.search("A/B", "", 100)] == ["/a/b"]

    with_database(database_url, story)


def test_search_looks_at_prefix_and_target_page_by_page(database_url: str) -> None:
    async def story(database: Database) -> None:
        routes, _ = services(database)
        await routes.apply({f"/p{number:02}": (A, B)[number % 2] for number in range(20)}, "file")
        pages: list[str] = []
        while page := await routes.search("B.EXAMPLE", pages[-1] if pages else "", 3):
            assert len(page) <= 3
            pages += [found.prefix for found in page]
        assert pages == [f"/p{number:02}" for number in range(1, 20, 2)]
        assert [found.prefix for found in await routes.search("P07", "", 3)] == ["/p07"]
        assert await routes.search("connect_timeout", "", 3) == []
        assert await routes.search("\0", "", 3) == await routes.search("", "\0", 3) == []

    with_database(database_url, story)


def test_a_file_and_the_api_live_together(database_url: str) -> None:
    async def story(database: Database) -> None:
        routes, versions = services(database)
        file = {"/a/": A, "/b": A, "/c": A}
        first = await routes.apply(file, "file")
        assert (len(first.plan.adds), first.version) == (3, 1)
        await routes.update("/a", lambda _: B, "token")
        await routes.delete("/c", "token")
        await routes.create("/own", C, "token")
        assert (await routes.apply(file, "file")).version == 4, "nothing to do, no new version"
        planned = await routes.plan({"/b": C, "/c": A})
        assert planned.lines() == [
            "- /a https://b.example (also edited through the API)",
            "~ /b https://a.example -> https://c.example",
        ]
        assert await versions.newest() == 4, "a plan changes nothing"
        assert (await routes.apply({"/b": C, "/c": A}, "file")).plan == planned
        assert await routes.all() == {"/b": C, "/own": C}

    with_database(database_url, story)


def test_ten_thousand_routes_take_few_statements(database_url: str) -> None:
    file = {f"/p{number}": Route(target=f"https://h{number}.example") for number in range(MANY)}
    slow = {prefix: msgspec.structs.replace(route, head_timeout_s=5.0) for prefix, route in file.items()}

    async def story(database: Database) -> None:
        routes, _ = services(database)
        statements = 0

        def count(*_arguments: object) -> None:
            nonlocal statements
            statements += 1

        event.listen(database._engine.sync_engine, "before_cursor_execute", count)
        assert len((await routes.apply(file, "file")).plan.adds) == MANY
        assert len((await routes.apply(slow, "file")).plan.changes) == MANY
        assert [found.prefix for found in await routes.search("h777.", "", 100)] == ["/p777"]
        assert len((await routes.apply({}, "file")).plan.removals) == MANY
        assert await routes.all() == {}
        assert statements < 60

    with_database(database_url, story)


def test_edits_that_wait_leave_connections_to_readers(database_url: str) -> None:
    async def story(database: Database) -> None:
        routes, versions = services(database)
        other = open_database(database_url)
        async with other.write() as connection:
            await connection.execute(select(tables.locks.c.name).with_for_update())
            edits = [asyncio.create_task(routes.create(f"/{number}", A, "token")) for number in range(30)]
            for _ in range(20):
                assert await versions.newest() == 0
        assert sorted(await asyncio.gather(*edits)) == list(range(1, 31))
        await other.close()

    with_database(database_url, story)


UPDATE = """
import asyncio, sys
import msgspec
from admin.database import open_database
from admin.services.edits import Editor
from admin.services.routes import Routes

async def main(url, field, values):
    database = open_database(url)
    routes = Routes(Editor(database, lambda _: None, lambda: 1))
    for value in range(1, values + 1):
        await routes.update("/a", lambda route: msgspec.structs.replace(route, **{field: value}), field)
    await database.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def test_updates_of_one_route_by_several_processes_lose_none(database_url: str) -> None:
    fields, values = ("head_timeout_s", "idle_timeout_s", "max_connections"), 20

    async def story(database: Database) -> None:
        routes, versions = services(database)
        await routes.create("/a", A, "token")
        await asyncio.gather(*(python(UPDATE, database_url, field, str(values)) for field in fields))
        assert await routes.all() == {"/a": msgspec.structs.replace(A, **dict.fromkeys(fields, values))}
        assert await versions.newest() == 1 + len(fields) * values

    with_database(database_url, story)


EDIT = """
import asyncio, json, sys
from admin.database import open_database
from admin.services.edits import Editor
from admin.services.routes import Routes
from proxy.config import Route

async def main(url, name, edits):
    database = open_database(url)
    routes = Routes(Editor(database, lambda _: None, lambda: 1))
    async def edit(number):
        prefix = f"/{name}/{number}"
        version = await routes.create(prefix, Route(target="https://a.example"), name)
        if number % 3 == 0:
            await routes.update(prefix, lambda _: Route(target="https://b.example"), name)
        if number % 5 == 0:
            await routes.delete(prefix, name)
        return version
    print(json.dumps(await asyncio.gather(*(edit(number) for number in range(edits)))))
    await database.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def test_editors_in_several_processes_lose_nothing_and_leave_no_gap(database_url: str) -> None:
    processes, edits = 3, 20

    async def story(database: Database) -> None:
        routes, versions = services(database)
        printed = await asyncio.gather(*(python(EDIT, database_url, f"e{one}", str(edits)) for one in range(processes)))
        created = [number for one in printed for number in json.loads(one)]
        assert len(set(created)) == processes * edits

        expected = {
            f"/e{one}/{number}": B if number % 3 == 0 else A
            for one in range(processes)
            for number in range(edits)
            if number % 5
        }
        assert await routes.all() == expected
        numbers = [version.number for version in await versions.list(None, 1000)]
        assert numbers == list(range(await versions.newest(), 0, -1))
        assert len(numbers) == processes * (edits + len(range(0, edits, 3)) + len(range(0, edits, 5)))
        previous: dict[str, Any] = {}
        for number in reversed(numbers):
            version = await versions.get(number)
            assert version is not None
            (change,) = version.changes
            assert change.before == previous.get(change.name)
            now = previous | {change.name: change.after}
            previous = {prefix: spec for prefix, spec in now.items() if spec is not None}
            assert version.document == {"routes": previous}

    with_database(database_url, story)
