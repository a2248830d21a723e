"""From SQL to Redis: a real SQLite and real servers, since all that matters lies between them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from admin.database import Database, DatabaseDown, open_database
from admin.migrations import migrate
from admin.publisher import Publisher
from admin.publishing import CHECK_S
from admin.services.edits import Editor
from admin.services.routes import Routes
from admin.services.versions import Versions
from loadtests.processes import free_port
from proxy.config import ConfigError, Route
from proxy.shared_state import published
from proxy.shared_state.breaker import Breaker, Guard
from proxy.shared_state.client import Client
from proxy.shared_state.keys import CONFIG_CHANNEL, CONFIG_SECTIONS, CONFIG_VERSION
from proxy.shared_state.published import RoutesSection
from tests.redis_servers import DEADLINE_S, EMBEDDED, beside, cluster, connected, redis_at, server, until

ROUTE = Route(target="http://a.example")
MADE_MS = 1_763_700_000_000
SOON_S = CHECK_S + 2
"""The next check, on a busy machine."""


class ControlPlane:
    """One process's part of it: services on a database, and a publisher."""

    def __init__(self, database: Database, client: Client, made_ms: int) -> None:
        self.client = client
        editor = Editor(database, lambda _: None, lambda: made_ms)
        self.routes, self.versions = Routes(editor), Versions(editor)
        self.failure: Exception | None = None
        self.publisher = Publisher(client, Guard(client, Breaker(), DEADLINE_S), self.versions.mark, self.section)
        editor.notify = self.publisher.publish_soon

    async def section(self) -> RoutesSection:
        if self.failure is not None:
            raise self.failure
        return await self.versions.current()

    async def found(self) -> RoutesSection | None:
        """What is published, None where it is not all there."""
        number = await self.client.get(CONFIG_VERSION)
        data = await self.client.hget(CONFIG_SECTIONS, published.ROUTES)  # type: ignore[misc,unused-ignore]
        if number is None or not isinstance(data, bytes):
            return None
        section = published.decode_routes(data)
        return section if published.decode_mark(number) == section.mark else None

    async def shows(self, *prefixes: str, within_s: float = SOON_S) -> None:
        """Waits until exactly these are published, as the newest version."""

        async def there() -> bool:
            found = await self.found()
            mark = await self.versions.mark()
            return found == RoutesSection(mark.version, dict.fromkeys(prefixes, ROUTE), mark.made_ms)

        await until(there, within_s)

    def publishing(self) -> contextlib.AbstractAsyncContextManager[None]:
        return beside(self.publisher.run())


@pytest.fixture(scope="module", name="url")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server of this module's own: the keys have fixed names."""
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


@contextlib.asynccontextmanager
async def control_plane(url: str, folder: Path, made_ms: int = MADE_MS) -> AsyncIterator[ControlPlane]:
    database = open_database(f"sqlite:///{folder / 'test.db'}")
    try:
        await migrate(database)
        async with connected(url) as client:
            yield ControlPlane(database, client, made_ms)
    finally:
        await database.close()


def play(url: str, folder: Path, story: Callable[[ControlPlane], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with control_plane(url, folder) as plane:
            if "cluster" not in url:
                await plane.client.flushall()
            await story(plane)

    asyncio.run(main())


def test_the_newest_version_is_published_and_announced(url: str, tmp_path: Path) -> None:
    async def story(plane: ControlPlane) -> None:
        async with plane.client.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(CONFIG_CHANNEL)
            await plane.routes.create("/a", ROUTE, "test")
            await plane.publisher.publish()
            await plane.publisher.publish()
            messages = [found for _ in range(10) if (found := await channel.get_message(timeout=0.05))]
        assert [message["data"] for message in messages] == [b"1"], "what is published is not published again"
        assert await plane.found() == RoutesSection(1, {"/a": ROUTE}, MADE_MS)

    play(url, tmp_path, story)


def test_before_the_first_version_nothing_is_an_empty_section(url: str, tmp_path: Path) -> None:
    async def story(plane: ControlPlane) -> None:
        await plane.publisher.publish()
        assert await plane.found() == RoutesSection(0, {})

    play(url, tmp_path, story)


def test_an_edit_is_published_at_once(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(plane: ControlPlane) -> None:
        async with plane.publishing():
            await plane.shows(within_s=DEADLINE_S)
            await plane.routes.create("/a", ROUTE, "test")
            await plane.shows("/a", within_s=DEADLINE_S)
            await plane.routes.create("/b", ROUTE, "test")
            await plane.shows("/a", "/b", within_s=DEADLINE_S)

    monkeypatch.setattr("admin.publishing.CHECK_S", 60.0)
    play(url, tmp_path, story)


def test_an_edit_of_another_process_is_published_at_the_next_check(url: str, tmp_path: Path) -> None:
    async def story(plane: ControlPlane) -> None:
        async with plane.publishing(), control_plane(url, tmp_path) as other:
            await plane.shows()
            await other.routes.create("/a", ROUTE, "test")
            await plane.shows("/a")

    play(url, tmp_path, story)


def test_a_redis_that_lost_everything_is_filled_again(url: str, tmp_path: Path) -> None:
    async def story(plane: ControlPlane) -> None:
        await plane.routes.create("/a", ROUTE, "test")
        async with plane.publishing():
            await plane.shows("/a")
            await plane.client.flushall()
            await plane.shows("/a")

    play(url, tmp_path, story)


@pytest.mark.parametrize("version", [b"twelve", b"", b"-1", b"1", b"1@5", b"1@", b"7", b"9" * 5000])
def test_a_version_that_is_not_ours_is_put_right(url: str, tmp_path: Path, version: bytes) -> None:
    async def story(plane: ControlPlane) -> None:
        await plane.routes.create("/a", ROUTE, "test")
        await plane.publisher.publish()
        await plane.client.set(CONFIG_VERSION, version)
        await plane.publisher.publish()
        await plane.shows("/a")

    play(url, tmp_path, story)


def test_another_database_with_a_version_of_the_same_number_is_published(url: str, tmp_path: Path) -> None:
    async def story(plane: ControlPlane) -> None:
        await plane.routes.create("/a", ROUTE, "test")
        await plane.publisher.publish()
        (tmp_path / "new").mkdir()
        async with control_plane(url, tmp_path / "new", MADE_MS + 1) as other:
            await other.routes.create("/b", ROUTE, "test")
            await other.publisher.publish()
            assert await other.found() == RoutesSection(1, {"/b": ROUTE}, MADE_MS + 1)

    play(url, tmp_path, story)


def test_a_section_that_was_evicted_is_put_back(url: str, tmp_path: Path) -> None:
    async def story(plane: ControlPlane) -> None:
        await plane.routes.create("/a", ROUTE, "test")
        await plane.publisher.publish()
        await plane.client.delete(CONFIG_SECTIONS)
        await plane.publisher.publish()
        await plane.shows("/a")

    play(url, tmp_path, story)


def test_what_cannot_be_published_is_told_once_and_published_later(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(plane: ControlPlane) -> None:
        plane.failure = ConfigError("database", "routes./a", "unknown field")
        await plane.routes.create("/a", ROUTE, "test")
        async with plane.publishing():
            await asyncio.sleep(0.3)  # a few checks
            plane.failure = DatabaseDown("here", OSError("gone"))
            await asyncio.sleep(0.1)
            plane.failure = None
            await plane.shows("/a")
        assert [record.getMessage() for record in caplog.records] == [
            "not published: ConfigError: database: routes./a: unknown field"
        ]
        assert caplog.records[0].exc_info is None

    monkeypatch.setattr("admin.publishing.CHECK_S", 0.02)
    play(url, tmp_path, story)


def test_two_publishers_of_one_database_end_with_the_newest(url: str, tmp_path: Path) -> None:
    async def story(plane: ControlPlane) -> None:
        async with plane.publishing(), control_plane(url, tmp_path) as other, other.publishing():
            names = [f"/{number}" for number in range(10)]
            for first, second in zip(names[::2], names[1::2], strict=True):
                await asyncio.gather(
                    plane.routes.create(first, ROUTE, "one"), other.routes.create(second, ROUTE, "two")
                )
            await plane.shows(*names)
            await plane.client.flushall()
            await other.shows(*names)

    play(url, tmp_path, story)


def test_a_redis_that_comes_back_empty_is_filled(tmp_path: Path) -> None:
    async def main() -> None:
        port = free_port()
        url = f"redis://127.0.0.1:{port}"
        async with control_plane(url, tmp_path) as plane, plane.publishing():
            await plane.routes.create("/a", ROUTE, "test")
            for name in ("first", "second"):
                with server(tmp_path / name, port=port):

                    async def filled() -> bool:
                        async with connected(url) as client:
                            return await client.get(CONFIG_VERSION) == b"1@%d" % MADE_MS

                    await until(filled)

    asyncio.run(main())


def test_it_publishes_to_a_cluster(tmp_path: Path) -> None:
    async def story(plane: ControlPlane) -> None:
        await plane.routes.create("/a", ROUTE, "test")
        async with plane.client.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(CONFIG_CHANNEL)
            async with plane.publishing():
                await plane.shows("/a")
                messages = [found for _ in range(10) if (found := await channel.get_message(timeout=0.05))]
        assert [message["data"] for message in messages] == [b"1"]

    with cluster(tmp_path) as ports:
        play(f"redis+cluster://127.0.0.1:{ports[0]}", tmp_path, story)
