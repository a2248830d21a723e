"""A worker's view of the published configuration, on real servers. A test has a server's database for itself."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from loadtests.processes import free_port
from proxy.config import Backend, KeyPool, Route, Upstream
from proxy.shared_state import published
from proxy.shared_state.breaker import Breaker, Guard, StoreUnavailable
from proxy.shared_state.client import Client, close_idle, connect
from proxy.shared_state.config_feed import POLL_S, ConfigFeed
from proxy.shared_state.keys import CONFIG_CHANNEL, CONFIG_SECTIONS, CONFIG_VERSION
from proxy.shared_state.published import RoutesSection
from tests.redis_servers import DEADLINE_S, EMBEDDED, beside, cluster, connected, redis_at, server, until

A = {"/a": Route(target="http://a.example")}
B = {"/b": Route(target="http://b.example")}
SOON_S = POLL_S / 2
"""Sooner than the poll, and later than an announcement takes on a busy machine."""


class Used:
    """What a worker was given; it refuses routes of `unusable`."""

    def __init__(self) -> None:
        self.sets: list[dict[str, Route]] = []
        self.key_pools: list[KeyPool] = []
        self.upstreams: list[dict[str, Upstream]] = []
        self.unusable: dict[str, Route] | None = None

    def __call__(self, routes: dict[str, Route], key_pool: KeyPool, upstreams: dict[str, Upstream]) -> None:
        if routes == self.unusable:
            raise OSError("no such CA")
        self.sets.append(routes)
        self.key_pools.append(key_pool)
        self.upstreams.append(upstreams)


class Played:
    """A feed, what it gave to its worker, and another client of the same Redis."""

    def __init__(self, client: Client, other: Client, file: Path) -> None:
        self.used = Used()
        self.file = file
        self.other = other
        self.feed = ConfigFeed(client, Guard(client, Breaker(), DEADLINE_S), self.used, file)

    async def publish(self, version: int, routes: dict[str, Route], *, announced: bool = True) -> None:
        await self.put(version, published.encode_routes(RoutesSection(version, routes)))
        if announced:
            await self.other.publish(CONFIG_CHANNEL, version)

    async def put(self, version: object, section: bytes) -> None:
        async with self.other.pipeline(transaction=True) as pipe:
            pipe.hset(CONFIG_SECTIONS, published.ROUTES, section)  # type: ignore[misc,unused-ignore]
            pipe.set(CONFIG_VERSION, version)  # type: ignore[arg-type,misc,unused-ignore]
            await pipe.execute()

    async def taken(self, routes: dict[str, Route], within_s: float = DEADLINE_S) -> None:
        async def last() -> bool:
            return self.used.sets[-1:] == [routes]

        await until(last, within_s)

    def following(self) -> contextlib.AbstractAsyncContextManager[None]:
        return beside(self.feed.follow())


@pytest.fixture(scope="module", name="url")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server of this module's own: the keys have fixed names."""
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


def play(url: str, file: Path, story: Callable[[Played], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with connected(url) as client, connected(url) as other:
            if "cluster" not in url:
                await other.flushall()
            await story(Played(client, other, file))

    asyncio.run(main())


@pytest.fixture(name="file")
def fixture_file(tmp_path: Path) -> Path:
    return tmp_path / "last-good" / "routes.msgpack"


def test_what_is_published_is_used_once_and_kept_on_disk(url: str, file: Path) -> None:
    async def story(played: Played) -> None:
        await played.feed.refresh()
        assert (played.used.sets, played.feed.version) == ([], 0)
        await played.publish(3, A)
        await played.feed.refresh()
        await played.feed.refresh()
        assert (played.used.sets, played.feed.version) == ([A], 3)
        assert published.stored(file) == RoutesSection(3, A)

    play(url, file, story)


def test_the_settings_of_the_key_pool_come_with_the_routes(url: str, file: Path) -> None:
    async def story(played: Played) -> None:
        settings = KeyPool(ban_401=True)
        await played.put(3, published.encode_routes(RoutesSection(3, A, 0, settings)))
        await played.feed.refresh()
        assert (played.used.sets, played.used.key_pools) == ([A], [settings])

    play(url, file, story)


def test_upstreams_come_with_the_routes(url: str, file: Path) -> None:
    async def story(played: Played) -> None:
        upstreams = {"api": Upstream(backends=(Backend(url="https://a.example", id="b1"),))}
        await played.put(3, published.encode_routes(RoutesSection(3, A, upstreams=upstreams)))
        await played.feed.refresh()
        assert (played.used.sets, played.used.upstreams) == ([A], [upstreams])
        assert published.stored(file) == RoutesSection(3, A, upstreams=upstreams)

    play(url, file, story)


def test_an_older_version_is_another_one(url: str, file: Path) -> None:
    """As after a database was restored."""

    async def story(played: Played) -> None:
        await played.publish(3, A)
        await played.feed.refresh()
        await played.publish(2, B)
        await played.feed.refresh()
        assert (played.used.sets, played.feed.version) == ([A, B], 2)

    play(url, file, story)


def test_a_version_of_the_same_number_and_another_time_is_another_one(url: str, file: Path) -> None:
    """As after the control plane got a new database."""

    async def story(played: Played) -> None:
        for made_ms, routes in ((5, A), (6, B)):
            section = RoutesSection(1, routes, made_ms)
            await played.put(published.encode_mark(section.mark), published.encode_routes(section))
            await played.feed.refresh()
            await played.feed.refresh()
        assert (played.used.sets, played.feed.version) == ([A, B], 1)

    play(url, file, story)


def test_the_last_good_is_used_at_once_and_what_is_published_after_it(url: str, file: Path) -> None:
    async def story(played: Played) -> None:
        published.store(published.encode_routes(RoutesSection(3, A)), file)
        played.feed.begin()
        assert (played.used.sets, played.feed.version) == ([A], 3)
        await played.publish(4, B)
        await played.feed.refresh()
        assert played.used.sets == [A, B]

    play(url, file, story)


def test_garbage_on_disk_is_no_last_good(url: str, file: Path) -> None:
    async def story(played: Played) -> None:
        played.feed.begin()
        assert (played.used.sets, played.feed.version) == ([], 0)

    file.parent.mkdir()
    file.write_bytes(b"garbage")
    play(url, file, story)


def test_an_announcement_is_followed_at_once(url: str, file: Path) -> None:
    async def story(played: Played) -> None:
        await played.publish(1, A)
        async with played.following():
            await played.taken(A)
            await asyncio.sleep(0.05)  # the poll begins anew with each announcement, so that it cannot be meant
            best_s = DEADLINE_S
            for version in range(2, 7):
                began_s = time.monotonic()
                await played.publish(version, B if version % 2 == 0 else A)
                await played.taken(B if version % 2 == 0 else A)
                best_s = min(best_s, time.monotonic() - began_s)
            assert best_s < SOON_S

    play(url, file, story)


def test_a_lost_announcement_is_caught_by_the_poll(url: str, file: Path) -> None:
    async def story(played: Played) -> None:
        await played.publish(1, A)
        async with played.following():
            await played.taken(A)
            await played.publish(2, B, announced=False)
            await played.taken(B, POLL_S + 2)

    play(url, file, story)


def test_garbage_is_refused_in_one_line_and_changes_nothing(
    url: str, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(played: Played) -> None:
        await played.publish(1, A)
        await played.feed.refresh()
        await played.put(2, b"garbage")
        for _ in range(3):
            await played.feed.refresh()
        assert played.used.sets == [A]
        assert published.stored(file) == RoutesSection(1, A)
        (record,) = caplog.records
        assert record.getMessage().startswith("published configuration not used: ")
        assert "\n" not in record.getMessage()
        assert record.exc_info is None
        await played.publish(1, A)
        await played.feed.refresh()
        assert played.used.sets == [A, A], "what is put right is used"

    play(url, file, story)


def test_routes_that_a_worker_cannot_use_are_told_once_and_not_kept(
    url: str, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(played: Played) -> None:
        await played.publish(1, A)
        await played.feed.refresh()
        played.used.unusable = B
        await played.publish(2, B)
        for _ in range(3):
            await played.feed.refresh()
        assert played.used.sets == [A]
        assert published.stored(file) == RoutesSection(1, A)
        assert [record.getMessage() for record in caplog.records] == ["published configuration 2 not used: no such CA"]

    play(url, file, story)


def test_a_disk_that_cannot_keep_it_is_told_and_the_routes_are_used(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(played: Played) -> None:
        await played.publish(1, A)
        await played.feed.refresh()
        assert played.used.sets == [A]
        (record,) = caplog.records
        assert record.getMessage().startswith("the configuration in use cannot be kept on disk: ")

    (tmp_path / "file").write_text("")
    play(url, tmp_path / "file" / "routes.msgpack", story)


@pytest.mark.parametrize("version", [b"twelve", b"", b"-1", b"1.5", b"9" * 5000])
def test_a_version_that_is_no_number_does_not_end_the_feed(url: str, file: Path, version: bytes) -> None:
    async def story(played: Played) -> None:
        await played.publish(1, A)
        async with played.following():
            await played.taken(A)
            await played.put(version, b"garbage")
            await played.other.publish(CONFIG_CHANNEL, 2)
            await asyncio.sleep(0.1)  # for it to be seen; nothing is to come of it
            await played.publish(2, B)
            await played.taken(B)

    play(url, file, story)


def test_keys_of_other_types_do_not_end_the_feed(url: str, file: Path) -> None:
    async def story(played: Played) -> None:
        await played.other.lpush(CONFIG_VERSION, "a")  # type: ignore[misc,unused-ignore]
        await played.other.set(CONFIG_SECTIONS, "a")
        async with played.following():
            await asyncio.sleep(0.1)  # for it to be seen
            await played.other.delete(CONFIG_VERSION, CONFIG_SECTIONS)
            await played.publish(2, B)
            await played.taken(B)

    play(url, file, story)


def test_a_redis_that_lost_everything_changes_nothing(url: str, file: Path) -> None:
    async def story(played: Played) -> None:
        await played.publish(1, A)
        await played.feed.refresh()
        await played.other.flushall()
        await played.feed.refresh()
        await played.other.set(CONFIG_VERSION, 2)
        await played.feed.refresh()
        assert (played.used.sets, played.feed.version) == ([A], 1)
        await played.publish(2, B)
        await played.feed.refresh()
        assert played.used.sets == [A, B]

    play(url, file, story)


def test_a_redis_that_is_gone_is_told_as_such_and_the_feed_goes_on(tmp_path: Path, file: Path) -> None:
    async def refused() -> None:
        client = connect(f"redis://127.0.0.1:{free_port()}")
        feed = ConfigFeed(client, Guard(client, Breaker()), Used(), file)
        with pytest.raises(StoreUnavailable):
            await feed.refresh()
        await client.aclose()

    asyncio.run(refused())

    async def main() -> None:
        port = free_port()
        url = f"redis://127.0.0.1:{port}"
        async with connected(url) as client, connected(url) as other:
            played = Played(client, other, file)
            async with played.following():
                with server(tmp_path / "first", port=port):
                    await played.publish(1, A)
                    await played.taken(A)
                with server(tmp_path / "second", port=port):
                    await close_idle(other)
                    await played.publish(2, B)
                    await played.taken(B)
                    await played.publish(3, A)
                    await played.taken(A)

    asyncio.run(main())


def test_it_follows_a_cluster(tmp_path: Path, file: Path) -> None:
    async def story(played: Played) -> None:
        await played.publish(1, A)
        async with played.following():
            await played.taken(A)
            await played.put(2, published.encode_routes(RoutesSection(2, B)))
            await played.taken(B)

    with cluster(tmp_path) as ports:
        play(f"redis+cluster://127.0.0.1:{ports[0]}", file, story)
