"""The job as a whole: real Redis, real SQL, a real provider, and a clock of the test's own."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from admin import oauth
from admin.auth_file import AuthFile
from admin.database import Database, DatabaseDown, open_database
from admin.migrations import migrate
from admin.oauth import LOCK_MS, Health, OAuth, Standing
from admin.oauth_sources import Sources
from admin.redis_lock import RedisLock
from admin.rules.oauth import INVALID_GRANT, NO_TOKEN, REFRESH_AT_AGE_MS, State
from admin.services.oauth import OAuthTokens
from admin.token_endpoint import TokenEndpoint
from loadtests.processes import free_port
from proxy.config import Config, Credentials, Server
from proxy.secrets import Secrets, new_key
from proxy.shared_state.breaker import Breaker, Guard, StoreUnavailable
from proxy.shared_state.keys import OAUTH_LOCK
from proxy.shared_state.tasks import end
from tests.admin.fake_identity_provider import FakeIdentityProvider, Next, identity_provider
from tests.redis_servers import DEADLINE_S, EMBEDDED, connected, redis_at, until

NOW_MS = 1_763_700_000_000
HOUR_MS = 3_600_000
SECRETS = Secrets([new_key()], "test")
TIMEOUT_S = 5.0


class Crash(BaseException):
    """The process ends here."""


@dataclass
class Clock:
    now_ms: int = NOW_MS

    def __call__(self) -> int:
        return self.now_ms


class Store(OAuthTokens):
    """The real one, whose next saves can be made to fail."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, SECRETS)
        self.failing: list[BaseException] = []
        self.refused = 0

    async def refusals(self) -> int:
        return self.refused

    async def save(self, state: State) -> None:
        if self.failing:
            raise self.failing.pop(0)
        await super().save(state)


@dataclass
class Plane:
    """One control plane: its own connections and its own file."""

    oauth: OAuth
    store: Store
    path: Path
    published: list[str | None] = field(default_factory=list)

    def file(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.path.read_text())
        return document

    def write(self, **document: object) -> None:
        self.path.write_text(json.dumps(document))

    @property
    def standing(self) -> tuple[Health, str]:
        return self.oauth.standing.health, self.oauth.standing.reason


@dataclass
class World:
    """The provider, and what all control planes share."""

    provider: FakeIdentityProvider
    clock: Clock
    redis_url: str
    folder: Path

    @asynccontextmanager
    async def plane(
        self, setting: str | None = "rt-0", machine: str = "a", timeout_s: float = TIMEOUT_S
    ) -> AsyncIterator[Plane]:
        database = open_database(f"sqlite:///{self.folder / 'test.db'}")
        path = self.folder / machine / "auth.json"
        path.parent.mkdir(exist_ok=True)
        published: list[str | None] = []

        async def publish(access_token: str | None) -> None:
            published.append(access_token)

        credentials = Credentials(token_url=self.provider.url, client_id="client")
        config = Config(credentials=credentials, server=Server(allow_private_targets=True))
        try:
            await migrate(database)
            async with connected(self.redis_url) as client:
                guard = Guard(client, Breaker(), DEADLINE_S)
                store = Store(database)
                job = OAuth(
                    Sources(setting, AuthFile(path)),
                    store,
                    TokenEndpoint(config, self.clock, timeout_s),
                    RedisLock(client, guard, OAUTH_LOCK, LOCK_MS),
                    publish,
                    self.clock,
                )
                yield Plane(job, store, path, published)
        finally:
            await database.close()


@pytest.fixture(scope="module", name="redis_url")
def fixture_redis_url(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


Play = Callable[[Callable[[World], Awaitable[None]]], None]


@pytest.fixture
def play(redis_url: str, tmp_path: Path) -> Play:
    def played(story: Callable[[World], Awaitable[None]]) -> None:
        async def main() -> None:
            async with connected(redis_url) as client, identity_provider() as provider:
                await client.delete(OAUTH_LOCK)
                await story(World(provider, Clock(), redis_url, tmp_path))

        asyncio.run(main())

    return played


def test_a_setting_begins_a_chain(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "relaygate")

    async def story(world: World) -> None:
        async with world.plane() as plane:
            assert plane.oauth.standing == Standing(Health.OFF, NOW_MS // 1000)
            await plane.oauth.look()
            await plane.oauth.look()
            assert plane.published == ["at-1"]
            assert world.provider.asked_with == ["rt-0"]
            said = {"refresh_token": "rt-1", "api_key": "at-1", "expires_at": NOW_MS + 8 * HOUR_MS}
            assert plane.file() == said
            assert plane.oauth.standing == Standing(Health.OK, NOW_MS // 1000, (NOW_MS + REFRESH_AT_AGE_MS) // 1000)

    play(story)
    assert caplog.messages == ["oauth: ok"]


def test_it_is_refreshed_at_six_hours(play: Play) -> None:
    async def story(world: World) -> None:
        async with world.plane() as plane:
            await plane.oauth.look()
            world.clock.now_ms += REFRESH_AT_AGE_MS - 1
            await plane.oauth.look()
            assert plane.published == ["at-1"]
            world.clock.now_ms += 1
            await plane.oauth.look()
            assert plane.published == ["at-1", "at-2"]
            assert world.provider.asked_with == ["rt-0", "rt-1"]

    play(story)


def test_it_is_refreshed_at_once_where_it_is_refused(play: Play) -> None:
    """And once, though all control planes hear of it."""

    async def story(world: World) -> None:
        async with world.plane() as plane, world.plane(machine="b") as other:
            for each in (plane, other):
                await each.oauth.look()
            world.clock.now_ms += HOUR_MS
            for _ in range(3):
                for each in (plane, other):
                    await each.oauth.look()
                    each.store.refused = 5
            assert plane.published == other.published == ["at-1", "at-2"]
            assert world.provider.asked_with == ["rt-0", "rt-1"]
            assert plane.standing == other.standing == (Health.OK, "")

    play(story)


def test_a_refused_one_stays_where_there_is_no_other(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    async def story(world: World) -> None:
        async with world.plane() as plane:
            await plane.oauth.look()
            world.clock.now_ms += HOUR_MS
            await plane.oauth.look()
            plane.store.refused = 1
            world.provider.coming = [Next.FAILS]
            for _ in range(3):
                await plane.oauth.look()
            assert plane.published == ["at-1"]
            assert len(world.provider.forms) == 2
            assert plane.standing == (Health.FAILING, "HTTP 500")
            world.clock.now_ms += 5_000
            await plane.oauth.look()
            assert plane.published == ["at-1", "at-2"]
            assert plane.standing == (Health.OK, "")

    play(story)
    assert caplog.messages == ["oauth: not refreshed, what access token there is stays in use: HTTP 500"]


def test_a_refused_one_without_a_refresh_token_is_left_alone(play: Play) -> None:
    async def story(world: World) -> None:
        async with world.plane(None) as plane:
            plane.write(api_key="fk-0", expires_at=NOW_MS + 8 * HOUR_MS)
            world.clock.now_ms = int(plane.path.stat().st_mtime * 1000) + HOUR_MS
            plane.write(api_key="fk-0", expires_at=world.clock.now_ms + 8 * HOUR_MS)
            await plane.oauth.look()
            plane.store.refused = 1
            await plane.oauth.look()
            assert plane.published == ["fk-0"]
            assert plane.standing == (Health.OK, "")

    play(story)


def test_a_restart_goes_on_with_the_chain(play: Play) -> None:
    async def story(world: World) -> None:
        for number in range(1, 4):
            async with world.plane() as plane:
                await plane.oauth.look()
                assert plane.published == [f"at-{number}"]
                world.clock.now_ms += REFRESH_AT_AGE_MS
                await plane.oauth.look()
            plane.path.unlink()
        assert world.provider.asked_with == ["rt-0", "rt-1", "rt-2", "rt-3"]

    play(story)


def test_many_control_planes_never_use_a_token_twice(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    """Three of them, two on one machine, look all the time while hours pass."""
    refreshes = 10

    async def story(world: World) -> None:
        async with contextlib.AsyncExitStack() as stack:
            planes = [await stack.enter_async_context(world.plane(machine=machine)) for machine in "aab"]

            async def go_on(plane: Plane) -> None:
                while world.provider.answered < refreshes or plane.published[-1] != f"at-{refreshes}":
                    if world.provider.answered < refreshes:
                        world.clock.now_ms += HOUR_MS
                    world.provider.coming = [Next.SLOW]
                    await plane.oauth.look()

            world.provider.slow_s = 0.01
            async with asyncio.timeout(30):
                await asyncio.gather(*map(go_on, planes))
            for plane in planes:
                await plane.oauth.look()
                assert plane.file()["refresh_token"] == world.provider.good
                assert plane.standing == (Health.OK, "")
        assert world.provider.reused == 0
        assert world.provider.asked_with == [f"rt-{number}" for number in range(refreshes)]

    play(story)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("failing", "reason"),
    [(Next.FAILS, "HTTP 500"), (Next.HANGS, "no answer in time"), (Next.DENIES_CLIENT, "invalid_client")],
)
def test_on_failure_the_old_access_token_stays(
    play: Play, caplog: pytest.LogCaptureFixture, failing: Next, reason: str
) -> None:
    async def story(world: World) -> None:
        async with world.plane(timeout_s=0.3) as plane:
            await plane.oauth.look()
            since_ms = world.clock.now_ms = NOW_MS + REFRESH_AT_AGE_MS
            world.provider.coming = [failing] * 2
            for _ in range(2):
                for _ in range(3):
                    await plane.oauth.look()
                assert plane.standing == (Health.FAILING, reason)
                assert plane.oauth.standing.since_s == since_ms // 1000
                next_s = plane.oauth.standing.next_refresh_s
                assert next_s is not None
                world.clock.now_ms = next_s * 1000
            assert plane.published == ["at-1"]
            assert len(world.provider.forms) == 3
            await plane.oauth.look()
            assert plane.published == ["at-1", "at-2"]
            assert plane.standing == (Health.OK, "")

    play(story)
    assert caplog.messages == [f"oauth: not refreshed, what access token there is stays in use: {reason}"]


def test_a_spent_token_is_told_and_not_sent_again_and_again(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    async def story(world: World) -> None:
        async with world.plane() as plane:
            await plane.oauth.look()
            world.provider.good = "revoked"
            world.clock.now_ms += REFRESH_AT_AGE_MS
            for _ in range(60):
                await plane.oauth.look()
                world.clock.now_ms += 60_000
            assert world.provider.asked_with == ["rt-0", "rt-1"]
            assert plane.standing == (Health.FAILING, INVALID_GRANT)
            assert plane.published == ["at-1"]

    play(story)
    assert caplog.messages == [f"oauth: not refreshed, what access token there is stays in use: {INVALID_GRANT}"]


def test_a_new_setting_begins_a_new_chain_and_the_old_token_is_used_until_then(play: Play) -> None:
    async def story(world: World) -> None:
        async with world.plane() as plane:
            await plane.oauth.look()
        world.provider.good = "rt-new"
        world.provider.coming = [Next.FAILS]
        async with world.plane("rt-new") as plane:
            await plane.oauth.look()
            assert plane.published == ["at-1"]
            assert plane.standing == (Health.FAILING, "HTTP 500")
            world.clock.now_ms += HOUR_MS
            await plane.oauth.look()
            assert plane.published == ["at-1", "at-2"]
            assert world.provider.asked_with == ["rt-0", "rt-new", "rt-new"]
            assert plane.file()["refresh_token"] == "rt-2"

    play(story)


def test_what_cannot_be_stored_is_not_used_and_not_lost(
    play: Play, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(oauth, "SAVE_AGAIN_S", 0.1)

    async def story(world: World) -> None:
        async with world.plane() as plane, world.plane(machine="b") as other:
            plane.store.failing = [DatabaseDown("here", OSError("gone"))] * 2
            looking = asyncio.create_task(plane.oauth.look())

            async def written() -> bool:
                return plane.path.exists()

            await until(written)
            await other.oauth.look()
            assert other.published == [], "the lock is held, so nobody sends the spent token"
            assert plane.published == []
            assert plane.file()["refresh_token"] == "rt-1"
            await looking
            assert plane.published == ["at-1"]
            await other.oauth.look()
            assert other.published == ["at-1"]
        assert world.provider.asked_with == ["rt-0"]

    play(story)
    assert caplog.messages == [
        "oauth: the next refresh token is not stored yet: database: here: gone",
        "oauth: the next refresh token is stored",
    ]


def test_a_crash_before_sql_has_it_is_made_up_for_by_the_file(play: Play) -> None:
    async def story(world: World) -> None:
        for setting in ("rt-0", None):
            async with world.plane(setting) as plane:
                await plane.oauth.look()
                world.clock.now_ms += REFRESH_AT_AGE_MS
                plane.store.failing = [Crash()]
                with pytest.raises(Crash):
                    await plane.oauth.look()
            async with world.plane(setting) as plane:
                await plane.oauth.look()
                world.clock.now_ms += HOUR_MS
                await plane.oauth.look()
                assert plane.published[-1] == world.provider.access_token
                assert plane.standing == (Health.OK, "")

    play(story)


def test_a_crash_before_anything_has_it_is_told(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one case in which a chain is lost: nobody but the provider knows the next token."""

    def crash(*_: object) -> None:
        raise Crash

    async def story(world: World) -> None:
        async with world.plane() as plane:
            await plane.oauth.look()
            world.clock.now_ms += REFRESH_AT_AGE_MS
            with monkeypatch.context() as patched:
                patched.setattr(AuthFile, "write", crash)
                with pytest.raises(Crash):
                    await plane.oauth.look()
        async with world.plane() as plane:
            await plane.oauth.look()
            assert plane.published == ["at-1"]
            assert plane.standing == (Health.FAILING, INVALID_GRANT)
            plane.write(refresh_token=world.provider.good)
            await plane.oauth.look()
            assert plane.published == ["at-1", "at-3"], "a new login in the file helps at once"

    play(story)


def test_an_answer_on_its_way_is_not_lost_when_the_control_plane_ends(play: Play) -> None:
    async def story(world: World) -> None:
        world.provider.coming = [Next.SLOW]
        world.provider.slow_s = 0.5
        async with world.plane() as plane:
            looking = asyncio.create_task(plane.oauth.look())

            async def asked() -> bool:
                return bool(world.provider.forms)

            await until(asked)
            await end(looking)
            assert looking.cancelled()
        async with world.plane() as plane:
            await plane.oauth.look()
            assert plane.published == ["at-1"]
        assert world.provider.asked_with == ["rt-0"]

    play(story)


def test_but_it_is_not_waited_for_long(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oauth, "FINISH_S", 0.2)

    async def story(world: World) -> None:
        world.provider.coming = [Next.HANGS]
        async with world.plane(timeout_s=30) as plane:
            looking = asyncio.create_task(plane.oauth.look())
            await asyncio.sleep(0.2)
            async with asyncio.timeout(5):
                await end(looking)
            assert looking.cancelled()

    play(story)


def test_the_file_of_another_program_is_used_until_it_needs_refreshing(play: Play) -> None:
    async def story(world: World) -> None:
        async with world.plane(None) as plane:
            await plane.oauth.look()
            assert (plane.published, plane.standing) == ([], (Health.OFF, ""))
            world.clock.now_ms = int(plane.path.parent.stat().st_mtime * 1000)
            plane.write(refresh_token="rt-0", api_key="fk-0", expires_at=world.clock.now_ms + HOUR_MS, team="x")
            await plane.oauth.look()
            assert plane.published == ["fk-0"]
            assert world.provider.forms == []
            world.clock.now_ms += HOUR_MS - 300_000
            await plane.oauth.look()
            assert plane.published == ["fk-0", "at-1"]
            assert plane.file() == {
                "refresh_token": "rt-1",
                "api_key": "at-1",
                "expires_at": world.clock.now_ms + 8 * HOUR_MS,
                "team": "x",
            }

    play(story)


def test_another_program_may_go_on_with_the_chain(play: Play) -> None:
    async def story(world: World) -> None:
        world.provider.good = "rt-theirs"
        for setting in (None, "rt-0"):
            async with world.plane(setting, machine=str(setting)) as plane:
                plane.write(refresh_token=world.provider.good, api_key="fk-theirs", expires_at=4_000_000_000_000)
                world.clock.now_ms = int(plane.path.stat().st_mtime * 1000)
                await plane.oauth.look()
                assert plane.published == [{None: "fk-theirs", "rt-0": "at-1"}[setting]]

    play(story)


def test_a_broken_file_is_told_once_and_what_is_stored_goes_on(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    async def story(world: World) -> None:
        async with world.plane() as plane:
            await plane.oauth.look()
        for setting in (None, "rt-0"):
            caplog.clear()
            async with world.plane(setting) as plane:
                good = plane.path.read_text()
                plane.path.write_text('{"refresh_token": "canary')
                for _ in range(2):
                    await plane.oauth.look()
                    world.clock.now_ms += REFRESH_AT_AGE_MS
                assert plane.published[-1] == world.provider.access_token
                assert plane.path.read_text() == '{"refresh_token": "canary'
                plane.path.write_text(good)
                await plane.oauth.look()
                assert plane.file()["refresh_token"] == world.provider.good
                told = [f"oauth: {plane.path}: it is not JSON", f"oauth: {plane.path} is usable again"]
                assert caplog.messages == told
        assert world.provider.reused == 0

    play(story)


def test_a_broken_file_and_nothing_else(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    async def story(world: World) -> None:
        async with world.plane(None) as plane:
            plane.path.write_text("canary")
            for _ in range(3):
                await plane.oauth.look()
            assert plane.standing == (Health.FAILING, f"{plane.path}: it is not JSON")
            assert plane.published == []
            assert len(caplog.messages) == 1

    play(story)
    assert "canary" not in caplog.text


def test_an_access_token_alone_cannot_be_refreshed(play: Play) -> None:
    async def story(world: World) -> None:
        async with world.plane(None) as plane:
            plane.write(api_key="fk-0", expires_at=NOW_MS - 1)
            await plane.oauth.look()
            assert plane.published == ["fk-0"]
            assert plane.standing == (Health.FAILING, NO_TOKEN)
            plane.write(api_key="fk-1", expires_at=NOW_MS + 10**12)
            world.clock.now_ms = int(plane.path.stat().st_mtime * 1000)
            await plane.oauth.look()
            assert plane.published == ["fk-0", "fk-1"]
            assert plane.standing == (Health.OK, "")
        assert world.provider.forms == []

    play(story)


def test_without_a_source_nothing_is_used_any_more(play: Play) -> None:
    async def story(world: World) -> None:
        async with world.plane(None) as plane:
            plane.write(refresh_token="rt-0")
            await plane.oauth.look()
            plane.path.unlink()
            for _ in range(2):
                await plane.oauth.look()
            assert plane.published == ["at-1", None]
            assert plane.standing == (Health.OFF, "")
        async with world.plane(None) as plane:
            await plane.oauth.look()
            assert plane.published == [], "another machine may keep it fresh"
            world.clock.now_ms += 8 * HOUR_MS
            await plane.oauth.look()
            assert plane.published == [None]

    play(story)


def test_two_machines_with_two_logins_do_not_take_turns(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    async def story(world: World) -> None:
        async with world.plane(None, "a") as one, world.plane(None, "b") as other:
            one.write(refresh_token="rt-one", api_key="at-one", expires_at=4_000_000_000_000)
            other.write(refresh_token="rt-other", api_key="at-other", expires_at=4_000_000_000_000)
            world.clock.now_ms = int(one.path.stat().st_mtime * 1000)
            for _ in range(3):
                await one.oauth.look()
                await other.oauth.look()
            assert one.published == ["at-one", "at-other"]
            assert other.published == ["at-other"]
            assert one.file()["refresh_token"] == "rt-one"
            told = f"oauth: {one.path}: it holds another login, and is left as it is"
            assert caplog.messages == [told]

    play(story)


def test_a_clock_that_was_wrong_does_not_stop_it(play: Play) -> None:
    async def story(world: World) -> None:
        async with world.plane() as plane:
            world.clock.now_ms = NOW_MS + 24 * 365 * HOUR_MS
            await plane.oauth.look()
            world.clock.now_ms = NOW_MS
            await plane.oauth.look()
            assert plane.published == ["at-1", "at-2"]

    play(story)


def test_a_provider_that_keeps_its_refresh_token(play: Play) -> None:
    async def story(world: World) -> None:
        world.provider.coming = [Next.KEEPS_TOKEN] * 2
        async with world.plane() as plane:
            await plane.oauth.look()
            world.clock.now_ms += REFRESH_AT_AGE_MS
            await plane.oauth.look()
            assert plane.published == ["at-1", "at-2"]
            assert world.provider.asked_with == ["rt-0", "rt-0"]

    play(story)


def test_what_could_not_be_published_is_published_again(play: Play) -> None:
    async def story(world: World) -> None:
        async with world.plane() as plane:
            failing: list[Exception] = [DatabaseDown("here", OSError("gone"))]
            publish = plane.oauth._publish

            async def fail_once(access_token: str | None) -> None:
                if failing:
                    raise failing.pop()
                await publish(access_token)

            plane.oauth._publish = fail_once
            with pytest.raises(DatabaseDown):
                await plane.oauth.look()
            await plane.oauth.look()
            assert plane.published == ["at-1"]
            assert plane.standing == (Health.OK, "")

    play(story)


def test_without_redis_nothing_is_refreshed_and_what_there_is_stays(play: Play) -> None:
    async def story(world: World) -> None:
        async with world.plane() as plane:
            await plane.oauth.look()
        world.redis_url = f"redis://127.0.0.1:{free_port()}"
        async with world.plane() as plane:
            await plane.oauth.look()
            assert plane.published == ["at-1"]
            world.clock.now_ms += REFRESH_AT_AGE_MS
            with pytest.raises(StoreUnavailable):
                await plane.oauth.look()
        assert world.provider.asked_with == ["rt-0"]

    play(story)


def test_a_failure_that_another_control_plane_made_up_for_is_over(play: Play) -> None:
    async def story(world: World) -> None:
        async with world.plane() as plane, world.plane(machine="b") as other:
            await plane.oauth.look()
            world.clock.now_ms += REFRESH_AT_AGE_MS
            world.provider.coming = [Next.FAILS]
            await plane.oauth.look()
            assert plane.standing == (Health.FAILING, "HTTP 500")
            await other.oauth.look()
            await plane.oauth.look()
            assert plane.standing == (Health.OK, "")
            assert plane.published == ["at-1", "at-2"]

    play(story)


def test_a_lost_secret_key_is_no_end(play: Play) -> None:
    async def story(world: World) -> None:
        async with world.plane() as plane:
            await plane.oauth.look()
        async with world.plane() as plane:
            plane.store._secrets = Secrets([new_key()], "test")
            await plane.oauth.look()
            assert plane.published == ["at-2"], "the file has the next refresh token"
            assert world.provider.reused == 0

    play(story)


def test_no_token_is_in_any_line(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")

    async def story(world: World) -> None:
        world.provider.good = "canary-rt"
        for _ in range(2):
            async with world.plane("canary-rt") as plane:
                world.provider.coming = [Next.FAILS, Next.DENIES_CLIENT, Next.CUTS]
                for _ in range(6):
                    await plane.oauth.look()
                    world.clock.now_ms += REFRESH_AT_AGE_MS
                assert "canary" not in repr(plane.oauth.standing)

    play(story)
    assert caplog.messages
    for secret in ("canary", "rt-1", "at-1"):
        assert secret not in caplog.text
