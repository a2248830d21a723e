"""The file and the admin API side by side, on a real SQLite."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from admin import sources
from admin.database import Database, open_database
from admin.migrations import migrate
from admin.services.edits import KEY_POOL, Editor, Touched
from admin.services.key_pool import KeyPoolSettings
from admin.services.routes import KEY_POOL_LAST_APPLIED, LAST_APPLIED, UPSTREAMS_LAST_APPLIED, Routes, last_applied
from admin.services.settings import Settings
from admin.services.upstreams import Upstreams
from admin.services.versions import Versions
from proxy.config import Backend, ConfigError, CredentialSource, Forwarded, KeyPool, PoolGroup, Route, Upstream

A, B = Route(target="http://a.example"), Route(target="http://b.example", forwarded=Forwarded.REPLACE)


class Stored:
    """Services on one database; edits that leave a route `refused` are refused."""

    def __init__(self, database: Database) -> None:
        self._database = database
        editor = Editor(database, self._validate, lambda: 1)
        self.routes, self.versions, self.settings = Routes(editor), Versions(editor), Settings(database)
        self.key_pool = KeyPoolSettings(editor)
        self.upstreams = Upstreams(editor)
        self.refused: Route | None = None

    def _validate(self, touched: Touched) -> None:
        if self.refused in touched.routes.values():
            raise ConfigError("routes", "refused")

    async def last_applied(self) -> dict[str, Route] | None:
        async with self._database.read() as connection:
            return await last_applied(connection)

    async def apply(self, wanted: dict[str, Route]) -> list[str]:
        return (await sources.apply_file(wanted, self.routes)).lines()


def play(folder: Path, story: Callable[[Stored], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        database = open_database(f"sqlite:///{folder / 'test.db'}")
        try:
            await migrate(database)
            await story(Stored(database))
        finally:
            await database.close()

    asyncio.run(main())


def test_what_was_last_applied_is_kept_and_is_none_before_the_first(tmp_path: Path) -> None:
    async def story(stored: Stored) -> None:
        assert await stored.last_applied() is None
        await stored.apply({"/a": A, "/b": B})
        assert await stored.last_applied() == {"/a": A, "/b": B}
        await stored.apply({})
        assert await stored.last_applied() == {}

    play(tmp_path, story)


def test_each_change_is_a_version_of_the_file_and_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(stored: Stored) -> None:
        assert await stored.apply({"/a": A}) == ["+ /a http://a.example"]
        assert await stored.apply({"/a": A}) == []
        (version,) = await stored.versions.list(None, 10)
        assert version.actor == sources.ACTOR
        assert [record.getMessage() for record in caplog.records] == ["applied from the file: + /a http://a.example"]

    caplog.set_level("INFO", "relaygate")
    play(tmp_path, story)


def test_what_was_edited_otherwise_stays_until_the_file_changes_it(tmp_path: Path) -> None:
    async def story(stored: Stored) -> None:
        await stored.apply({"/a": A})
        await stored.routes.update("/a", lambda _: B, "token")
        await stored.routes.create("/b", B, "token")
        assert await stored.apply({"/a": A}) == []
        assert await stored.routes.all() == {"/a": B, "/b": B}
        (line,) = await stored.apply({})
        assert line.startswith("- /a")
        assert line.endswith("(also edited through the API)")
        assert await stored.routes.all() == {"/b": B}

    play(tmp_path, story)


def test_a_file_that_is_refused_is_not_what_was_last_applied(tmp_path: Path) -> None:
    async def story(stored: Stored) -> None:
        await stored.apply({"/a": A})
        stored.refused = B
        with pytest.raises(ConfigError, match="refused"):
            await stored.apply({"/b": B})
        assert await stored.last_applied() == {"/a": A}
        assert await stored.routes.all() == {"/a": A}
        stored.refused = None
        assert len(await stored.apply({"/b": B})) == 2

    play(tmp_path, story)


@pytest.mark.parametrize("kept", ["", "garbage", '{"/a": {"target": "http://a.example", "of_a_newer_version": 1}}'])
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path: Path, kept: str) -> None:
    async def story(stored: Stored) -> None:
        await stored.settings.put(LAST_APPLIED, kept)
        with pytest.raises(ConfigError, match=r"^database: routes_of_the_file: [^\n]+$"):
            await stored.apply({"/a": A})
        assert await stored.routes.all() == {}

    play(tmp_path, story)


def test_the_key_pool_is_applied_setting_by_setting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(stored: Stored) -> None:
        async def apply(pool: KeyPool) -> list[str]:
            return (await sources.apply_file({}, stored.routes, pool)).lines()

        main = {"main": PoolGroup(priority=1)}
        assert await apply(KeyPool(retry_max=5, groups=main)) == [
            '+ key_pool.groups.main {"priority":1}',
            "+ key_pool.retry_max 5",
        ]
        assert caplog.records[-1].getMessage() == "applied from the file: + key_pool.retry_max 5"
        edited = KeyPool(retry_max=7, ban_401=True, groups={**main, "api": PoolGroup()})
        await stored.key_pool.update(change=lambda _: edited, actor="token")
        assert await apply(KeyPool(retry_max=5, groups=main)) == []
        assert await stored.key_pool.current() == edited
        assert await apply(KeyPool(groups=main)) == ["- key_pool.retry_max 7 (also edited through the API)"]
        assert await stored.key_pool.current() == KeyPool(ban_401=True, groups=edited.groups)

    caplog.set_level("INFO", "relaygate")
    play(tmp_path, story)


@pytest.mark.parametrize("name", [KEY_POOL, KEY_POOL_LAST_APPLIED])
def test_a_key_pool_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    async def story(stored: Stored) -> None:
        await stored.settings.put(name, '{"of_a_newer_version": 1}')
        with pytest.raises(ConfigError, match=r"^database: key_pool: [^\n]+$"):
            await sources.apply_file({}, stored.routes, KeyPool())

    play(tmp_path, story)


def test_a_route_of_a_group_that_there_is_not_is_told_and_through_the_api_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pooled = Route(target="http://a.example", credential=CredentialSource.POOL, pool_groups=("main", "default"))

    async def story(stored: Stored) -> None:
        await stored.apply({"/a": pooled})
        assert "route /a names pool group main" in caplog.text
        with pytest.raises(ConfigError, match=r"^routes\./b\.pool_groups: there is no pool group main$"):
            await stored.routes.create("/b", pooled, "token")
        await stored.routes.update("/a", lambda route: msgspec.structs.replace(route, preserve_host=True), "token")
        caplog.clear()
        await sources.apply_file({"/a": pooled}, stored.routes, KeyPool(groups={"main": PoolGroup()}))
        assert "pool group main" not in caplog.text
        await stored.routes.create("/b", pooled, "token")

    play(tmp_path, story)


def test_upstreams_are_applied_backend_by_backend(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second, added = (Backend(url=f"https://{name}.example", id=name) for name in "abc")
    routes = {"/a": Route(upstream="api")}

    async def story(stored: Stored) -> None:
        async def apply(routes: dict[str, Route], **upstreams: Upstream) -> list[str]:
            return (await sources.apply_file(routes, stored.routes, None, upstreams)).lines()

        assert await apply(routes, api=Upstream(backends=(first,))) == [
            "+ upstream api",
            "+ upstream api backend a https://a.example",
            "+ /a upstream api",
        ]
        assert caplog.records[0].getMessage() == "applied from the file: + upstream api"
        await stored.upstreams.add_backend("api", added, "token")
        await stored.upstreams.change_backend(
            "api", "a", lambda one: msgspec.structs.replace(one, draining=True), "token"
        )
        assert await apply(routes, api=Upstream(backends=(first,))) == []
        heavier = msgspec.structs.replace(first, weight=300)
        assert await apply(routes, api=Upstream(backends=(heavier, second))) == [
            "+ upstream api backend a weight 300",
            "+ upstream api backend b https://b.example",
        ]
        draining = msgspec.structs.replace(heavier, draining=True)
        assert await stored.upstreams.all() == {"api": Upstream(backends=(draining, added, second))}
        assert await apply(routes, api=Upstream(backends=(second,))) == [
            "- upstream api backend a https://a.example",
            "- upstream api backend a draining true (also edited through the API)",
            "- upstream api backend a weight 300",
        ]
        await sources.apply_file(routes, stored.routes)
        assert await stored.upstreams.all() == {"api": Upstream(backends=(added, second))}, "the caller gave none"
        await stored.routes.create("/own", Route(upstream="api"), "token")
        assert await apply({}) == ["= upstream api (kept; the route /own uses it)", "- /a upstream api"]
        assert await apply({}) == []
        assert (await stored.upstreams.all()).keys() == {"api"}

    caplog.set_level("INFO", "relaygate")
    play(tmp_path, story)


def test_upstreams_that_cannot_be_read_are_refused_in_one_line(tmp_path: Path) -> None:
    async def story(stored: Stored) -> None:
        await stored.settings.put(UPSTREAMS_LAST_APPLIED, '{"api": {"of_a_newer_version": 1}}')
        with pytest.raises(ConfigError, match=r"^database: upstreams_of_the_file: [^\n]+$"):
            await sources.apply_file({}, stored.routes, None, {})

    play(tmp_path, story)
