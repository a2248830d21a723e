"""A worker's link to Redis: how it begins, with and without one, and that it leaves nothing."""

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from loadtests.processes import free_port
from proxy.config import Config, ConfigError, KeyPool, Redis, Route, Upstream
from proxy.metering.gate import Gate
from proxy.shared_state import link as link_module
from proxy.shared_state import published
from proxy.shared_state.backend_health import BackendHealth, write_health
from proxy.shared_state.bans import BanStore
from proxy.shared_state.breaker import Breaker, Guard
from proxy.shared_state.credential_events import KIND as CREDENTIALS
from proxy.shared_state.credential_events import CredentialCounts
from proxy.shared_state.events import KIND
from proxy.shared_state.keys import (
    BACKENDS_RUNNING,
    CONFIG_CHANNEL,
    CONFIG_SECTIONS,
    CONFIG_VERSION,
    EVENTS,
    LIVE_LOG_CHANNEL,
    RELOAD_TLS,
    RELOAD_TLS_CHANNEL,
    WORKERS,
)
from proxy.shared_state.link import FIRST_ANSWER_S, Link
from proxy.shared_state.live_log import LiveLog
from proxy.shared_state.published import Mark, RoutesSection
from proxy.shared_state.published_credentials import Replace, publish_credentials
from proxy.shared_state.questions import EXPLAIN, LISTEN, Question, ask, tell
from proxy.shared_state.worker_state import decode_state
from proxy.tallies import Tallies
from tests.proxy.shared_state.backends import ToldGroups
from tests.proxy.shared_state.key_pools import BANNED, Told, credential
from tests.redis_servers import DEADLINE_S, EMBEDDED, connected, redis_at, until

A = {"/a": Route(target="http://a.example")}
B = {"/b": Route(target="http://b.example")}


class Linked:
    """A worker, which counts nothing."""

    name = "worker"
    started_s = 1.5
    certificate = ""
    in_flight = 0
    tallies: Tallies | None = None
    summary: bytes | None = None
    wants_summary = False

    def __init__(self, use_routes: Callable[[dict[str, Route]], None]) -> None:
        self._use_routes = use_routes
        self.key_pool = Told()
        self.live_log = LiveLog(time.monotonic)
        self.gate = Gate()
        self.groups = ToldGroups()

    def use_routes(self, routes: dict[str, Route], _key_pool: KeyPool, _upstreams: dict[str, Upstream]) -> None:
        self._use_routes(routes)

    def explain(self, request_id: bytes) -> bytes | None:
        return b"known" if request_id == b"one" else None

    def latest(self, _: bytes) -> bytes:
        return b"latest"


@pytest.fixture(scope="module", name="url")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server of this module's own: the keys have fixed names."""
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


def play(url: str, data_dir: Path, story: Callable[[Link, list[dict[str, Route]]], Coroutine[Any, Any, None]]) -> None:
    """Tells a story of a link that has begun, and closes it; no task is left."""
    used: list[dict[str, Route]] = []
    play_of(url, data_dir, Linked(used.append), lambda link: story(link, used))


def play_of(url: str, data_dir: Path, worker: Linked, story: Callable[[Link], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        link = Link(Config(redis=Redis(url=url), data_dir=str(data_dir)), worker)
        try:
            await link.begin()
            await story(link)
        finally:
            await link.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def publish(url: str, version: int, routes: dict[str, Route]) -> None:
    async def main() -> None:
        async with connected(url) as client:
            section = published.encode_routes(RoutesSection(version, routes))
            await client.flushall()
            await client.hset(CONFIG_SECTIONS, published.ROUTES, section)  # type: ignore[arg-type,misc,unused-ignore]
            await client.set(CONFIG_VERSION, version)
            await client.publish(CONFIG_CHANNEL, version)

    asyncio.run(main())


def last_good(data_dir: Path) -> Path:
    return data_dir / "last-good" / "routes.msgpack"


def test_what_is_published_is_in_use_when_it_has_begun_and_followed_after(url: str, tmp_path: Path) -> None:
    async def story(_: Link, used: list[dict[str, Route]]) -> None:
        assert used == [A]
        await asyncio.to_thread(publish, url, 2, B)

        async def followed() -> bool:
            return used == [A, B]

        await until(followed)

    publish(url, 1, A)
    play(url, tmp_path, story)
    assert published.stored(last_good(tmp_path)) is not None


def test_it_says_which_version_its_worker_uses_while_it_lives(url: str, tmp_path: Path) -> None:
    async def version() -> int:
        async with connected(url) as client:
            found: Any = await client.hgetall(WORKERS)  # type: ignore[misc,unused-ignore]
        return decode_state(found[b"worker"]).configuration if found else 0

    async def story(_link: Link, _used: list[dict[str, Route]]) -> None:
        async def told() -> bool:
            return await version() == 9

        await until(told)

    publish(url, 9, A)
    play(url, tmp_path, story)
    assert asyncio.run(version()) == 0


def test_who_shows_a_certificate_has_it_reloaded_when_somebody_wants_that(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(link_module, "ask_for_renewal", lambda: asked.append(True))
    worker = Linked(lambda _: None)
    worker.certificate = "5ha"

    async def story(_: Link) -> None:
        async with connected(url) as client:

            async def has_asked() -> bool:
                number = await client.incr(RELOAD_TLS)  # the first that is read is none
                await client.publish(RELOAD_TLS_CHANNEL, number)
                return bool(asked)

            await until(has_asked)

    publish(url, 1, A)
    play_of(url, tmp_path, worker, story)


def test_without_redis_it_begins_with_the_last_good(tmp_path: Path) -> None:
    async def story(link: Link, used: list[dict[str, Route]]) -> None:
        assert (used, link.feed.version) == ([A], 5)

    published.store(published.encode_routes(RoutesSection(5, A)), last_good(tmp_path))
    play(f"redis://127.0.0.1:{free_port()}", tmp_path, story)


def test_a_redis_that_never_answers_holds_up_the_start_for_a_moment_only(tmp_path: Path) -> None:
    async def story(_: Link, used: list[dict[str, Route]]) -> None:
        assert time.monotonic() - began_s < FIRST_ANSWER_S + 1
        assert used == []

    with socket.create_server(("127.0.0.1", 0)) as silent:
        began_s = time.monotonic()
        play(f"redis://127.0.0.1:{silent.getsockname()[1]}", tmp_path, story)


def test_keys_of_another_type_are_no_reason_not_to_start(url: str, tmp_path: Path) -> None:
    async def spoil() -> None:
        async with connected(url) as client:
            await client.flushall()
            await client.lpush(CONFIG_VERSION, "a")  # type: ignore[misc,unused-ignore]

    async def story(_: Link, used: list[dict[str, Route]]) -> None:
        assert used == [A]

    asyncio.run(spoil())
    published.store(published.encode_routes(RoutesSection(5, A)), last_good(tmp_path))
    play(url, tmp_path, story)


def publish_credential(url: str) -> None:
    async def main() -> None:
        async with connected(url) as client:
            await client.flushall()
            guard = Guard(client, Breaker(), DEADLINE_S)
            await publish_credentials(client, guard, [credential(1)], [], Mark(1, 1), Replace.WHOLE)
            await BanStore(client, guard).put("k1", "", None, BANNED)

    asyncio.run(main())


def test_credentials_and_bans_are_there_when_it_has_begun_and_its_own_bans_are_shared(url: str, tmp_path: Path) -> None:
    worker = Linked(lambda _: None)

    async def story(link: Link) -> None:
        pool = worker.key_pool
        assert (pool.credentials, pool.bans) == ({"k1": credential(1)}, {("k1", ""): BANNED})
        assert pool.store is link.credential_feed.bans
        assert (await pool.store.put("k1", "", BANNED, None)).won

    publish_credential(url)
    play_of(url, tmp_path, worker, story)


def test_without_redis_it_begins_with_the_credentials_that_lay_on_disk(url: str, tmp_path: Path) -> None:
    async def kept(_: Link) -> None:
        await until(lambda: asyncio.to_thread((tmp_path / "last-good" / "credentials.msgpack").exists))

    worker = Linked(lambda _: None)

    async def story(_: Link) -> None:
        assert worker.key_pool.credentials == {"k1": credential(1)}

    publish_credential(url)
    play_of(url, tmp_path, Linked(lambda _: None), kept)
    play_of(f"redis://127.0.0.1:{free_port()}", tmp_path, worker, story)


def test_it_answers_what_its_worker_knows_and_brings_its_lines_to_who_listens(url: str, tmp_path: Path) -> None:
    worker = Linked(lambda _: None)

    async def story(_: Link) -> None:
        async with connected(url) as client:
            guard = Guard(client, Breaker(), DEADLINE_S)

            async def answered() -> bool:
                return await ask(client, guard, Question(EXPLAIN, b"one"), DEADLINE_S) == [b"known"]

            await until(answered)
            assert await ask(client, guard, Question(EXPLAIN, b"two"), DEADLINE_S) == []
            await tell(client, guard, Question(LISTEN))
            async with client.pubsub(ignore_subscribe_messages=True) as channel:
                await channel.subscribe(LIVE_LOG_CHANNEL)
                await channel.get_message(timeout=DEADLINE_S)

                async def wanted() -> bool:
                    return worker.live_log.wanted

                await until(wanted)
                worker.live_log.add(b"{}")
                assert await channel.get_message(timeout=DEADLINE_S)

    play_of(url, tmp_path, worker, story)


def test_it_tells_of_credentials_also_at_its_end(url: str, tmp_path: Path) -> None:
    worker = Linked(lambda _: None)

    async def story(_: Link) -> None:
        worker.key_pool.figures.counts = [CredentialCounts("k1", 1)]

    async def told() -> list[dict[bytes, bytes]]:
        async with connected(url) as client:
            found: Any = await client.xrange(EVENTS)
            return [fields for _, fields in found]

    publish(url, 1, A)
    play_of(url, tmp_path, worker, story)
    (entry,) = asyncio.run(told())
    assert entry[KIND] == CREDENTIALS


def test_what_is_known_of_backends_is_there_when_it_has_begun_and_its_own_requests_are_told(
    url: str, tmp_path: Path
) -> None:
    worker = Linked(lambda _: None)
    worker.groups.here = {("up", "a"): 2}

    async def fail() -> None:
        async with connected(url) as client:
            await client.flushall()
            ill = BackendHealth(healthy=False, since_s=1.0, checked_s=1.0)
            beat_ms = int(time.time() * 1000)
            await write_health(client, Guard(client, Breaker(), DEADLINE_S), {("up", "a"): ill}, [], beat_ms)

    async def counts() -> Any:
        async with connected(url) as client:
            return await client.hkeys(BACKENDS_RUNNING)  # type: ignore[misc,unused-ignore]

    async def story(_: Link) -> None:
        assert worker.groups.unhealthy() == {("up", "a")}
        assert await counts() == [b"worker"]

    asyncio.run(fail())
    play_of(url, tmp_path, worker, story)
    assert asyncio.run(counts()) == []


def test_a_url_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        Link(Config(redis=Redis(url="http://a.example"), data_dir=str(tmp_path)), Linked(lambda _: None))
