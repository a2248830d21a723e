"""Credentials from SQL to Redis: a real SQLite and a real server. A change moves what it touched, and no more."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from admin.credential_publisher import CredentialPublisher
from admin.database import Database, open_database
from admin.migrations import migrate
from admin.rotation import rotate
from admin.services.credential_bans import BanName, SharedBans
from admin.services.credential_feed import CredentialFeed
from admin.services.retention import Retention
from proxy.config import Retention as Kept
from proxy.rules.credentials import Ban, BanCause, Credential, Kind
from proxy.secrets import load_secrets
from proxy.shared_state.bans import BanStore
from proxy.shared_state.breaker import Breaker, Guard
from proxy.shared_state.client import Client
from proxy.shared_state.keys import CREDENTIALS, CREDENTIALS_CHANNEL
from proxy.shared_state.published import Mark
from proxy.shared_state.published_credentials import (
    GENERATION,
    Replace,
    decode_credential,
    publish_credentials,
    published_mark,
)
from tests.admin.pool import SECRET, Pool
from tests.redis_servers import DEADLINE_S, EMBEDDED, beside, connected, redis_at, until
from tests.sql_servers import with_database

DAY_S = 86_400


class Plane:
    """One control plane's part of it."""

    def __init__(self, database: Database, client: Client, folder: Path) -> None:
        self.client = client
        self.guard = Guard(client, Breaker(), DEADLINE_S)
        self.secrets = load_secrets({}, folder / "secret.key")
        self.pool = Pool(database, self.secrets)
        self.feed = CredentialFeed(database)
        self.publisher = CredentialPublisher(client, self.guard, self.feed)
        self.pool.credentials.notify = self.pool.groups.notify = self.publisher.publish_soon

    async def found(self) -> dict[str, Credential]:
        """What is published."""
        records: Any = await self.client.hgetall(CREDENTIALS)  # type: ignore[misc,unused-ignore]
        return {name.decode(): decode_credential(data) for name, data in records.items() if name != GENERATION}

    async def done(self) -> bool:
        return await published_mark(self.client, self.guard) == await self.feed.mark()

    async def secrets_of(self, *names: str) -> list[str]:
        found = await self.found()
        return [self.secrets.decrypt(found[name].secret, f"credential:{name}") for name in names]


@pytest.fixture(scope="module", name="url")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server of this module's own: the keys have fixed names."""
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


@contextlib.asynccontextmanager
async def plane_at(url: str, folder: Path) -> AsyncIterator[Plane]:
    database = open_database(f"sqlite:///{folder / 'test.db'}")
    try:
        await migrate(database)
        async with connected(url) as client:
            yield Plane(database, client, folder)
    finally:
        await database.close()


def play(url: str, folder: Path, story: Callable[[Plane], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with plane_at(url, folder) as plane:
            await plane.client.flushall()
            await story(plane)

    asyncio.run(main())


def test_what_workers_need_is_published_and_no_secret_readable(url: str, tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        await plane.pool.group("main")
        one, two = await plane.pool.added(f"{SECRET},mine,main", "sk-2")
        await plane.pool.credentials.update(id=two, tokens=(5, 9))
        await plane.pool.credentials.put(id="oauth", secret="token", kind=Kind.OAUTH)
        await plane.publisher.publish()
        found = await plane.found()
        assert found.keys() == {one, two, "oauth"}
        assert (found[one].group, found[one].kind, found[one].enabled) == ("main", Kind.KEY, True)
        assert (found[two].tokens_used, found[two].tokens_total, found["oauth"].kind) == (5, 9, Kind.OAUTH)
        assert await plane.secrets_of(one, two, "oauth") == [SECRET, "sk-2", "token"]
        assert b"canary" not in (await plane.client.hget(CREDENTIALS, one) or b"")  # type: ignore[misc,operator,unused-ignore]

    play(url, tmp_path, story)


def test_a_change_moves_only_what_it_touched(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[list[str], list[str], Replace]] = []

    async def noting(client: Client, guard: Guard, changed: Any, gone: Any, mark: Mark, replace: Replace) -> None:
        seen.append(([one.id for one in changed], [*gone], replace))
        await publish_credentials(client, guard, changed, gone, mark, replace)

    monkeypatch.setattr("admin.credential_publisher.publish_credentials", noting)

    async def story(plane: Plane) -> None:
        one, two, three = await plane.pool.added("sk-1", "sk-2", "sk-3")
        await plane.publisher.publish()
        await plane.publisher.publish()
        await plane.pool.credentials.toggle(id=two)
        await plane.publisher.publish()
        await plane.pool.credentials.delete(id=three)
        await plane.pool.credentials.toggle(id=two)
        await plane.publisher.publish()
        assert seen == [
            ([one, two, three], [], Replace.WHOLE),
            ([two], [], Replace.PART),
            ([two], [three], Replace.PART),
        ]
        assert {name: record.enabled for name, record in (await plane.found()).items()} == {one: True, two: True}

    play(url, tmp_path, story)


def test_one_edit_of_many_is_published_at_once(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("admin.publishing.CHECK_S", 60.0)

    async def story(plane: Plane) -> None:
        ids = await plane.pool.added(*(f"sk-{number}" for number in range(5000)))
        async with plane.client.pubsub(ignore_subscribe_messages=True) as channel, beside(plane.publisher.run()):
            await until(plane.done)
            await channel.subscribe(CREDENTIALS_CHANNEL)
            took = []
            for name in ids[:5]:
                began = time.monotonic()
                await plane.pool.credentials.toggle(id=name)
                while await channel.get_message(timeout=DEADLINE_S) is None:
                    pass
                took.append(time.monotonic() - began)
            assert min(took) < 0.1
        assert [record.enabled for name, record in (await plane.found()).items() if name in ids[:5]] == [False] * 5

    play(url, tmp_path, story)


def test_a_redis_that_lost_everything_is_filled_again(url: str, tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        ids = await plane.pool.added("sk-1", "sk-2")
        async with beside(plane.publisher.run()):
            await until(plane.done)
            await plane.client.flushall()
            await until(plane.done)
            assert (await plane.found()).keys() == {*ids}

    play(url, tmp_path, story)


def test_the_credentials_of_another_database_go(url: str, tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        await plane.pool.added("sk-1")
        await plane.publisher.publish()
        (tmp_path / "new").mkdir()
        async with plane_at(url, tmp_path / "new") as other:
            ids = await other.pool.added("sk-2", "sk-3")
            await other.publisher.publish()
            assert (await other.found()).keys() == {*ids}

    play(url, tmp_path, story)


def test_after_a_rotation_of_the_key_all_are_published_anew(url: str, tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        ids = await plane.pool.added("sk-1", "sk-2")
        await plane.publisher.publish()
        before = await plane.found()
        done = await rotate(plane.pool.database, load_secrets({}, tmp_path / "secret.key"))
        assert done.startswith("2 secrets under a new key")
        await plane.publisher.publish()
        assert {one.secret for one in before.values()} & {one.secret for one in (await plane.found()).values()} == set()
        assert await plane.secrets_of(*ids) == ["sk-1", "sk-2"]

    play(url, tmp_path, story)


def test_where_tombstones_are_forgotten_all_is_published(url: str, tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        one, two, three = await plane.pool.added("sk-1", "sk-2", "sk-3")
        await plane.publisher.publish()
        await plane.pool.credentials.delete(id=one)
        plane.pool.now_ms += 2 * DAY_S * 1000
        await plane.pool.credentials.delete(id=two)
        retention = Retention(plane.pool.database, Kept(), list, lambda: plane.pool.now_ms / 1000)
        await retention.forget()
        assert (await plane.pool.gone()).keys() == {two}
        assert (await plane.feed.since(await published_mark(plane.client, plane.guard))).replace is Replace.WHOLE
        await plane.publisher.publish()
        assert (await plane.found()).keys() == {three}
        assert (await plane.feed.since(await published_mark(plane.client, plane.guard))).replace is Replace.PART

    play(url, tmp_path, story)


def test_what_cannot_be_published_is_told_once_without_its_text(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("admin.publishing.CHECK_S", 0.02)

    async def story(plane: Plane) -> None:
        await plane.pool.added("sk-1")
        await plane.client.set(CREDENTIALS, "canary")
        async with beside(plane.publisher.run()):
            await asyncio.sleep(0.3)
        assert [record.getMessage() for record in caplog.records] == ["credentials are not published: ResponseError"]

    play(url, tmp_path, story)


def test_an_operator_ends_bans_and_a_test_begins_them(url: str, tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        bans, store = SharedBans(plane.client, plane.guard), BanStore(plane.client, plane.guard)
        ban, counting = Ban(BanCause.DEAD, 1.0, 2.0), Ban(BanCause.COUNTING, 1.0, 0.0, 2)
        await store.put("key_1", "", None, counting)
        await store.put("key_1", "gpt", None, ban)
        assert await bans.begin("key_1", ban)
        assert not await bans.begin("key_1", ban)
        assert (await store.put("key_1", "", None, counting)).there == ban
        await bans.end([BanName("key_1", ""), BanName("key_1", "gpt"), BanName("key_2", "")])
        assert (await store.put("key_1", "gpt", None, None)).there is None
        assert await bans.begin("key_1", ban)

    play(url, tmp_path, story)


def test_without_redis_bans_are_left_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with connected("redis://127.0.0.1:1") as client:
            bans = SharedBans(client, Guard(client, Breaker()))
            assert not await bans.begin("key_1", Ban(BanCause.DEAD, 1.0, 2.0))
            await bans.end([BanName("key_1", "")])

    asyncio.run(main())
    assert "credential key_1 is not banned: redis is unavailable (connection)" in caplog.text
    assert "bans are not ended, 1 of them" in caplog.text


def test_a_version_of_every_kind_of_change_is_found(database_url: str) -> None:
    async def story(database: Database) -> None:
        pool, feed = Pool(database), CredentialFeed(database)
        await pool.group("main")
        one, two = await pool.added("sk-1", "sk-2")
        known = await feed.mark()
        assert (await feed.since(known))[1:] == ([], [], Replace.PART)
        await pool.credentials.move(ids=[one], group="main")
        await pool.credentials.delete(id=two)
        assert [each.group for each in (await feed.since(known)).changed] == ["main"]
        assert (await feed.since(known)).gone == [two]
        moved = await feed.mark()
        await pool.groups.delete(id="main", actor="test")
        assert [each.group for each in (await feed.since(moved)).changed] == ["default"]
        for odd in (None, Mark(known.version, known.made_ms + 1), Mark(known.version + 99, known.made_ms)):
            changes = await feed.since(odd)
            assert ([each.id for each in changes.changed], changes.replace) == ([one], Replace.WHOLE)

    with_database(database_url, story)
