"""Upstreams: changed backend by backend, versioned with the routes, and never without the routes that use them."""

import asyncio
from collections.abc import Callable, Mapping

import msgspec
import pytest
from sqlalchemy import insert, select

from admin import tables
from admin.database import Database
from admin.rules.changes import Change
from admin.services.edits import Editor, Touched
from admin.services.failures import DuplicateBackend, NoSuchBackend, NoSuchUpstream
from admin.services.routes import Routes
from admin.services.upstreams import Upstreams
from admin.services.versions import Versions
from proxy.config import Backend, Balancer, ConfigError, CredentialSource, Route, Upstream
from proxy.shared_state.published import RoutesSection
from tests.sql_servers import with_database

A, B = Backend(url="https://a.example", id="a"), Backend(url="https://b.example", id="b")
ROUTE = Route(upstream="api", base="/v1")


class Stored:
    """Services on one database, and what an edit has touched last."""

    def __init__(self, database: Database) -> None:
        self.touched = Touched({}, {})
        editor = Editor(database, self._validate, lambda: 5)
        self.upstreams, self.routes, self.versions = Upstreams(editor), Routes(editor), Versions(editor)

    def _validate(self, touched: Touched) -> None:
        self.touched = touched


def weighing(weight: int) -> Callable[[Backend], Backend]:
    return lambda backend: msgspec.structs.replace(backend, weight=weight)


def test_backends_are_added_changed_and_removed(database_url: str) -> None:
    async def story(database: Database) -> None:
        stored = Stored(database)
        upstreams, versions = stored.upstreams, stored.versions
        assert await upstreams.all() == {}
        assert await upstreams.add_backend("api", Backend(url="HTTPS://A.example"), "token") == 1
        assert await upstreams.add_backend("api", B, "session:1") == 2
        first = Backend(url="https://a.example", id="api-a.example-443")
        assert await upstreams.all() == {"api": Upstream(backends=(first, B))}
        assert stored.touched == Touched({}, await upstreams.all())
        assert await upstreams.change_backend("api", "b", weighing(7), "token") == 3
        assert await upstreams.change_backend("api", "b", weighing(7), "token") == 3, "it is so already"
        assert await upstreams.remove_backend("api", first.id, "token") == 4
        assert await upstreams.remove_backend("api", "b", "token") == 5
        assert await upstreams.all() == {"api": Upstream()}, "it stays, for its routes and its settings"
        assert [one.summary for one in await versions.list(None, 5)] == [
            "remove backend b from upstream api",
            "remove backend api-a.example-443 from upstream api",
            "change backend b of upstream api",
            "add backend b to upstream api",
            "add backend api-a.example-443 to upstream api",
        ]
        async with database.read() as connection:
            (row,) = await connection.execute(select(tables.upstreams))
        assert tuple(row) == ("api", "{}", 5, 5)

    with_database(database_url, story)


def test_what_cannot_be_done_changes_nothing(database_url: str) -> None:
    async def story(database: Database) -> None:
        stored = Stored(database)
        upstreams = stored.upstreams
        await upstreams.add_backend("api", A, "token")
        await upstreams.add_backend("api", B, "token")
        for taken in (Backend(url="https://c.example", id="a"), Backend(url=A.url, id="c")):
            with pytest.raises(DuplicateBackend):
                await upstreams.add_backend("api", taken, "token")
        for missing, failure in (("api", NoSuchBackend), ("none", NoSuchUpstream)):
            with pytest.raises(failure):
                await upstreams.change_backend(missing, "c", weighing(1), "token")
            with pytest.raises(failure):
                await upstreams.remove_backend(missing, "c", "token")
        with pytest.raises(ConfigError, match=r"^upstreams\.api\.backends\.0\.weight: found 0, expected an integer"):
            await upstreams.change_backend("api", "a", weighing(0), "token")
        with pytest.raises(ConfigError, match=r"^upstreams\.api\.backends\.1\.url: .* is there twice"):
            await upstreams.change_backend("api", "a", lambda one: msgspec.structs.replace(one, url=B.url), "token")
        with pytest.raises(ConfigError, match=r"^upstreams\.a b: not a name"):
            await upstreams.add_backend("a b", A, "token")
        with pytest.raises(ConfigError, match=r"^routes\./b\.upstream: no upstream is called app, the nearest"):
            await stored.routes.create("/b", Route(upstream="app"), "token")
        assert await upstreams.all() == {"api": Upstream(backends=(A, B))}
        assert await stored.versions.newest() == 2

    with_database(database_url, story)


def test_an_upstream_is_versioned_published_and_restored_with_its_routes(database_url: str) -> None:
    async def story(database: Database) -> None:
        stored = Stored(database)
        await stored.upstreams.add_backend("api", A, "token")
        await stored.routes.create("/a", ROUTE, "token")
        assert stored.touched == Touched({"/a": ROUTE}, {"api": Upstream(backends=(A,))}), "with what the route uses"
        there = RoutesSection(2, {"/a": ROUTE}, 5, upstreams={"api": Upstream(backends=(A,))})
        assert await stored.versions.current() == there
        assert [one.prefix for one in await stored.routes.search("upstream api/v1", "", 10)] == ["/a"]

        def without_api(
            upstreams: Mapping[str, Upstream], routes: Mapping[str, Route]
        ) -> tuple[dict[str, Upstream], dict[str, Route]]:
            return {name: one for name, one in upstreams.items() if name != "api"}, dict(routes)

        with pytest.raises(ConfigError, match=r"^upstreams\.api: it cannot be removed, the route /a uses it$"):
            await stored.upstreams.replace(without_api, "token")
        assert await stored.upstreams.replace(lambda _, __: ({}, {}), "token") == 3
        spec = {"backends": [{"url": "https://a.example", "id": "a"}]}
        assert await stored.versions.diff(2, 3) == [
            Change("route", "/a", {"upstream": "api", "base": "/v1"}, None),
            Change("upstream", "api", spec, None),
        ]
        assert await stored.versions.roll_back(2, "token") == 4
        assert await stored.versions.diff(2, 4) == []
        assert await stored.versions.current() == msgspec.structs.replace(there, version=4)

    with_database(database_url, story)


def test_all_is_replaced_as_it_is_in_the_transaction_and_checked(database_url: str) -> None:
    async def story(database: Database) -> None:
        stored = Stored(database)
        await stored.upstreams.add_backend("api", A, "token")

        def change(
            upstreams: Mapping[str, Upstream], routes: Mapping[str, Route]
        ) -> tuple[dict[str, Upstream], dict[str, Route]]:
            assert (upstreams, routes) == ({"api": Upstream(backends=(A,))}, {})
            made = Upstream(backends=(*upstreams["api"].backends, Backend(url="http://c.example")))
            return {"api": made, "more": Upstream(balancer=Balancer.IP_HASH)}, {"/a/": ROUTE}

        assert await stored.upstreams.replace(change, "token") == 2
        new = Backend(url="http://c.example", id="api-c.example-80")
        assert await stored.upstreams.all() == {
            "api": Upstream(backends=(A, new)),
            "more": Upstream(balancer=Balancer.IP_HASH),
        }
        assert await stored.routes.all() == {"/a": ROUTE}
        assert await stored.upstreams.routes_to_backends() == {"/a": Route(target="https://a.example/v1")}
        pooled = Route(target="https://a.example", credential=CredentialSource.POOL, pool_groups=("none",))
        with pytest.raises(ConfigError, match=r"^routes\./b\.pool_groups: there is no pool group none$"):
            await stored.upstreams.replace(lambda upstreams, _: (dict(upstreams), {"/b": pooled}), "token")

    with_database(database_url, story)


def test_an_upstream_that_this_program_cannot_read_is_told_by_name(database_url: str) -> None:
    async def story(database: Database) -> None:
        row = {"name": "api", "spec": '{"colour":"red"}', "created_at": 1, "updated_at": 1}
        async with database.write() as connection:
            await connection.execute(insert(tables.upstreams).values(row))
        with pytest.raises(ConfigError, match=r"^database: upstreams\.api: "):
            await Stored(database).upstreams.all()

    with_database(database_url, story)


def test_edits_of_two_backends_by_two_editors_lose_none(database_url: str) -> None:
    async def edit(upstreams: Upstreams, backend: Backend) -> None:
        for weight in range(1, 6):
            await upstreams.change_backend("api", backend.id, weighing(weight), "token")

    async def story(database: Database) -> None:
        stored = Stored(database)
        await stored.upstreams.add_backend("api", A, "token")
        await stored.upstreams.add_backend("api", B, "token")
        await asyncio.gather(*(edit(Stored(database).upstreams, backend) for backend in (A, B)))
        (api,) = (await stored.upstreams.all()).values()
        assert [one.weight for one in api.backends] == [5, 5]
        assert await stored.versions.newest() == 12

    with_database(database_url, story)
