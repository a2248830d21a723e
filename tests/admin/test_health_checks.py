"""Checks of real backends, and what is published of them in a real Redis."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from admin.database import DatabaseDown
from admin.health_checks import HealthChecks
from admin.upstream_calls import Connections, UpstreamCalls
from loadtests.processes import free_port
from proxy.config import Backend, HealthCheck, Upstream, UpstreamTls
from proxy.shared_state.backend_feed import BackendFeed
from proxy.shared_state.backend_health import BEAT, BackendHealth, Board, board_of, read_health
from proxy.shared_state.breaker import Breaker, Guard
from proxy.shared_state.client import Client
from proxy.shared_state.keys import BACKEND_HEALTH, BACKENDS_CHANNEL
from proxy.shared_state.published import Mark, RoutesSection
from proxy.shared_state.tasks import end
from tests.admin.checked_backend import CheckedBackend, Mode, checked_backend
from tests.proxy.shared_state.backends import ToldGroups
from tests.redis_servers import DEADLINE_S, EMBEDDED, beside, connected, redis_at, until

A, B = ("up", "a"), ("up", "b")
OFTEN = HealthCheck(path="/health?deep=1", interval_s=0.05, timeout_s=0.2, failures=2, successes=2)
PATIENT = HealthCheck(interval_s=0.05, timeout_s=30.0, failures=1)


class Published:
    """The upstreams of the newest version."""

    def __init__(self) -> None:
        self.version = 0
        self.upstreams: dict[str, Upstream] = {}
        self.is_down = False

    def edit(self, upstream: Upstream | None) -> None:
        self.version += 1
        self.upstreams = {} if upstream is None else {"up": upstream}

    async def mark(self) -> Mark:
        if self.is_down:
            raise DatabaseDown("sqlite", OSError("no database"))
        return Mark(self.version, 1)

    async def section(self) -> RoutesSection:
        return RoutesSection(self.version, {}, 1, upstreams=self.upstreams)


class Bench:
    """Control planes of one Redis and one database, and what lies in that Redis."""

    def __init__(self, url: str, client: Client) -> None:
        self.url = url
        self.client = client
        self.guard = Guard(client, Breaker(), DEADLINE_S)
        self.published = Published()
        self.chances: list[float] = []

    def checks(self, client: Client | None = None, *, allow_private_targets: bool = True) -> HealthChecks:
        mine = client or self.client
        calls = UpstreamCalls(allow_private_targets=allow_private_targets, connections=Connections.OWN)
        return HealthChecks(
            mine, Guard(mine, Breaker(), DEADLINE_S), self.published.mark, self.published.section, calls, self.chance
        )

    def chance(self) -> float:
        return self.chances.pop() if self.chances else 0.0

    @asynccontextmanager
    async def checking(self, **options: Any) -> AsyncIterator[HealthChecks]:
        """One control plane that checks for the time of the block."""
        checks = self.checks(**options)
        try:
            async with beside(checks.run()):
                yield checks
        finally:
            await checks.close()

    async def board(self) -> Board:
        return board_of(await read_health(self.client, self.guard))

    async def states(self, seen: Callable[[dict[Any, BackendHealth]], object]) -> dict[Any, BackendHealth]:
        """What is known, as soon as it looks so."""

        async def look() -> bool:
            return bool(seen((await self.board()).states))

        await until(look)
        return (await self.board()).states

    async def healthy(self, **backends: bool) -> dict[Any, BackendHealth]:
        """What is known, as soon as just these backends are known to be so."""
        expected = {("up", name): is_so for name, is_so in backends.items()}
        return await self.states(lambda states: {name: one.healthy for name, one in states.items()} == expected)


def upstream(check: HealthCheck = OFTEN, tls: UpstreamTls | None = None, **urls: str) -> Upstream:
    backends = tuple(Backend(url=url, id=name) for name, url in urls.items())
    return Upstream(backends=backends, health_check=check, tls=tls or UpstreamTls())


@pytest.fixture(scope="module", name="url")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server of this module's own: the keys have fixed names."""
    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("admin.publishing.CHECK_S", 0.05)


def play(url: str, story: Callable[[Bench, CheckedBackend], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with connected(url) as client, checked_backend() as backend:
            await client.flushall()
            await story(Bench(url, client), backend)

    asyncio.run(main())


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "relaygate"]


def test_a_good_backend_is_known_to_be_healthy_after_its_first_check(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(bench: Bench, backend: CheckedBackend) -> None:
        bench.published.edit(upstream(a=backend.url))
        before_s = time.time()
        async with bench.checking():
            state = (await bench.healthy(a=True))[A]
            assert before_s <= state.since_s <= state.checked_s <= time.time()
            assert state.reason == ""

            async def again() -> bool:
                return len(backend.asked) >= 3

            await until(again)
        assert {path for _, path in backend.asked} == {"/health?deep=1"}
        assert len(backend.connections) == len(backend.asked), "one that takes no new connections is ill"
        assert backend.most == 1
        assert backend.fields["User-Agent"] == "relaygate-health-check"

    play(url, story)
    assert lines(caplog) == []


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        (Mode.REFUSES, "status 503"),
        (Mode.HANGS, "timed out"),
        (Mode.HANGS_WITHIN, "timed out"),
        (Mode.RESETS, "the connection ended without a whole answer"),
    ],
)
def test_an_ill_backend_is_told_and_so_is_its_return(
    url: str, caplog: pytest.LogCaptureFixture, mode: Mode, reason: str
) -> None:
    async def story(bench: Bench, backend: CheckedBackend) -> None:
        bench.published.edit(upstream(a=backend.url))
        async with bench.checking():
            well = (await bench.healthy(a=True))[A]
            backend.mode = mode
            ill = (await bench.healthy(a=False))[A]
            assert ill.reason == reason
            assert well.since_s < ill.since_s <= ill.checked_s
            backend.mode = Mode.GOOD
            again = (await bench.healthy(a=True))[A]
            assert again.since_s > ill.since_s
            assert again.reason == ""

    play(url, story)
    assert lines(caplog) == [
        f"backend a of upstream up is unhealthy: {reason}",
        "backend a of upstream up is healthy again",
    ]


def test_it_takes_failures_in_a_row_and_successes_in_a_row(url: str) -> None:
    async def story(bench: Bench, backend: CheckedBackend) -> None:
        check = HealthCheck(interval_s=0.05, failures=4, successes=3)
        backend.mode = Mode.REFUSES
        bench.published.edit(upstream(check, a=backend.url))
        async with bench.checking():
            ill = (await bench.healthy(a=False))[A]
            failures = [at_s for at_s, _ in backend.asked]
            assert len(failures) >= 4
            backend.mode = Mode.GOOD
            begun = len(backend.asked)
            assert (await bench.healthy(a=True))[A].since_s > ill.since_s
            assert len(backend.asked) - begun >= 3

    play(url, story)


def test_a_body_has_to_hold_its_text_and_a_redirection_is_not_followed(url: str) -> None:
    async def story(bench: Bench, backend: CheckedBackend) -> None:
        check = HealthCheck(interval_s=0.05, failures=1, statuses=(200,), body="is well")
        bench.published.edit(upstream(check, a=backend.url))
        async with bench.checking():
            await bench.healthy(a=True)
            backend.body = "x" * 70_000 + "it is well"
            ill = (await bench.healthy(a=False))[A]
            assert ill.reason == "status 200, without the text that is expected in its body"
            backend.body = "x" * 60_000 + "it is well"
            await bench.healthy(a=True)
            backend.mode = Mode.REDIRECTS
            assert (await bench.healthy(a=False))[A].reason == "status 302"
        assert {path for _, path in backend.asked} == {"/health"}

    play(url, story)


def test_one_that_refuses_connections_is_unhealthy(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def story(bench: Bench, backend: CheckedBackend) -> None:
        bench.published.edit(upstream(a=backend.url, b=f"http://127.0.0.1:{free_port()}"))
        async with bench.checking():
            states = await bench.healthy(a=True, b=False)
            assert states[B].reason == "connection refused"

    play(url, story)
    assert lines(caplog) == ["backend b of upstream up is unhealthy: connection refused"]


def test_private_targets_are_guarded_here_too(url: str) -> None:
    async def story(bench: Bench, backend: CheckedBackend) -> None:
        port = backend.url.rpartition(":")[2]
        bench.published.edit(upstream(a=backend.url, b=f"http://localhost:{port}"))
        async with bench.checking(allow_private_targets=False):
            states = await bench.healthy(a=False, b=False)
        assert {one.reason for one in states.values()} == {"its address is not public"}
        assert backend.asked == []

    play(url, story)


def test_one_that_hangs_delays_no_other(url: str) -> None:
    async def story(bench: Bench, backend: CheckedBackend) -> None:
        backend.mode = Mode.HANGS
        async with checked_backend() as good:
            bench.published.edit(upstream(PATIENT, a=good.url, b=backend.url))
            async with bench.checking():

                async def often() -> bool:
                    return len(good.asked) >= 5 and backend.running == 1

                await until(often)
                assert (await bench.board()).states.keys() == {A}
                assert len(backend.asked) == 1

    play(url, story)


def test_first_checks_are_spread_and_come_within_a_second(url: str) -> None:
    async def story(bench: Bench, backend: CheckedBackend) -> None:
        bench.chances = [0.3]
        bench.published.edit(upstream(HealthCheck(interval_s=86_400.0), a=backend.url))
        async with bench.checking():
            began_s = time.monotonic()
            await bench.healthy(a=True)
            ((at_s, _),) = backend.asked
            assert at_s - began_s >= 0.2

    play(url, story)


def test_edits_keep_what_is_known_and_another_server_begins_anew(url: str) -> None:
    async def story(bench: Bench, backend: CheckedBackend) -> None:
        backend.mode = Mode.REFUSES
        bench.published.edit(upstream(a=backend.url))
        async with bench.checking() as checks:
            ill = (await bench.healthy(a=False))[A]
            watch = checks._watches[A]
            changed = Upstream(
                backends=(Backend(url=backend.url, id="a", weight=7, draining=True),), health_check=OFTEN, retry_max=7
            )
            bench.published.edit(changed)
            await followed(bench, checks)
            assert checks._watches[A] is watch, "nothing of its check has changed"
            bench.published.edit(upstream(HealthCheck(interval_s=3600.0, failures=9), a=backend.url))
            await followed(bench, checks)
            assert (await bench.healthy(a=False))[A].since_s == ill.since_s
            async with checked_backend() as other:
                bench.published.edit(upstream(a=other.url))
                assert (await bench.healthy(a=True))[A].since_s > ill.since_s

    play(url, story)


async def followed(bench: Bench, checks: HealthChecks) -> None:
    async def look() -> bool:
        return checks._version == Mark(bench.published.version, 1)

    await until(look)


def test_a_backend_that_is_removed_or_not_in_use_leaves_nothing(url: str) -> None:
    async def story(bench: Bench, backend: CheckedBackend) -> None:
        both = upstream(a=backend.url, b=backend.url.replace("127.0.0.1", "localhost"))
        bench.published.edit(both)
        async with bench.checking():
            await bench.healthy(a=True, b=True)
            off = Backend(url=backend.url, id="a", active=False)
            bench.published.edit(Upstream(backends=(off, both.backends[1]), health_check=OFTEN))
            await bench.healthy(b=True)
            bench.published.edit(None)
            await bench.healthy()
            assert (await bench.board()).beat is not None, "it says that nothing is known"
            asked = len(backend.asked)
            await asyncio.sleep(0.15)
            assert len(backend.asked) == asked

    play(url, story)


def test_what_nobody_knows_about_is_removed_and_what_redis_has_lost_is_written_again(url: str) -> None:
    async def story(bench: Bench, backend: CheckedBackend) -> None:
        backend.mode = Mode.REFUSES
        await bench.client.hset(BACKEND_HEALTH, b"strange", b"x")  # type: ignore[misc,arg-type,unused-ignore]
        bench.published.edit(upstream(a=backend.url))
        async with bench.checking():
            ill = await bench.healthy(a=False)
            assert (await read_health(bench.client, bench.guard)).keys() == {BEAT, b"up\0a"}
            await bench.client.flushall()
            assert (await bench.healthy(a=False))[A].since_s == ill[A].since_s
            assert (await bench.board()).beat is not None

    play(url, story)


def test_only_changes_are_announced_and_the_time_of_checks_is_written_now_and_then(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("admin.health_checks.BEAT_S", 0.2)

    async def story(bench: Bench, backend: CheckedBackend) -> None:
        bench.published.edit(upstream(a=backend.url))
        async with bench.client.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(BACKENDS_CHANNEL)
            await channel.get_message(timeout=DEADLINE_S)
            async with bench.checking():
                first = (await bench.healthy(a=True))[A]
                assert await channel.get_message(timeout=DEADLINE_S), "it is news that it is checked"
                beat = (await bench.board()).beat
                later = (await bench.states(lambda states: states[A].checked_s > first.checked_s + 0.4))[A]
                assert later.since_s == first.since_s
                assert (await bench.board()).beat != beat
                assert await channel.get_message(timeout=0.01) is None
                backend.mode = Mode.REFUSES
                await bench.healthy(a=False)
                assert await channel.get_message(timeout=DEADLINE_S)

    play(url, story)


def test_while_the_database_is_away_checks_go_on(url: str) -> None:
    async def story(bench: Bench, backend: CheckedBackend) -> None:
        bench.published.edit(upstream(a=backend.url))
        async with bench.checking():
            await bench.healthy(a=True)
            bench.published.is_down = True
            backend.mode = Mode.REFUSES
            await bench.healthy(a=False)

    play(url, story)


def test_one_control_plane_checks_and_another_takes_over(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("admin.health_checks.LOCK_MS", 300)

    async def story(bench: Bench, backend: CheckedBackend) -> None:
        backend.mode = Mode.REFUSES
        bench.published.edit(upstream(a=backend.url))
        async with connected(url) as other_client, connected(url) as third_client, contextlib.AsyncExitStack() as stack:
            first, second, third = bench.checks(), bench.checks(other_client), bench.checks(third_client)
            for checks in (first, second, third):
                stack.push_async_callback(checks.close)
            running = asyncio.create_task(first.run())
            ill = (await bench.healthy(a=False))[A]
            async with beside(second.run()):
                await asyncio.sleep(0.5)
                assert (second._watches, backend.most) == ({}, 1), "one checks for all"
                await end(running)  # it dies, and gives nothing up
                await first._stop()

                async def taken_over() -> bool:
                    return A in second._watches

                await until(taken_over)
                assert not second._watches[A].standing.healthy, "it goes on from what is known"
                assert (await bench.board()).states[A].since_s == ill.since_s
                backend.mode = Mode.GOOD
                assert (await bench.healthy(a=True))[A].since_s > ill.since_s
            await second.close()
            async with beside(third.run()):
                backend.mode = Mode.REFUSES
                await bench.healthy(a=False)

    play(url, story)


def test_how_long_a_change_takes_from_the_check_to_a_worker(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it goes in service: what is looked at every second is told at once."""
    monkeypatch.setattr("admin.publishing.CHECK_S", 1.0)
    took_ms: list[float] = []

    async def story(bench: Bench, backend: CheckedBackend) -> None:
        groups = ToldGroups()
        check = HealthCheck(interval_s=0.1, failures=1)
        bench.published.edit(upstream(check, a=backend.url))
        async with connected(url) as client:
            feed = BackendFeed(client, Guard(client, Breaker(), DEADLINE_S), groups, "worker")
            async with bench.checking(), beside(feed.follow()):
                await told(groups, healthy=True)
                for mode in (Mode.REFUSES, Mode.GOOD) * 5:
                    backend.mode = mode
                    await told(groups, healthy=mode is Mode.GOOD)
                    took_ms.append((time.monotonic() - backend.asked[-1][0]) * 1000)

    play(url, story)
    took_ms.sort()
    print(f"from a check to a worker: median {took_ms[5]:.1f} ms, longest {took_ms[-1]:.1f} ms")


async def told(groups: ToldGroups, *, healthy: bool) -> None:
    async def look() -> bool:
        return A in groups.states and groups.states[A].healthy is healthy

    end_s = time.monotonic() + DEADLINE_S
    while not await look():
        assert time.monotonic() < end_s
        await asyncio.sleep(0.001)


class Authority:
    """A CA with the files that it makes."""

    def __init__(self, folder: Path) -> None:
        ca = trustme.CA()
        self.ca, self.certificate, self.key = (str(folder / name) for name in ("ca.pem", "client.crt", "client.key"))
        ca.cert_pem.write_to_path(self.ca)
        issued = ca.issue_cert("client.example")
        issued.cert_chain_pems[0].write_to_path(self.certificate)
        issued.private_key_pem.write_to_path(self.key)
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("backend.example").configure_cert(self.server)
        self.server.verify_mode = ssl.CERT_REQUIRED
        ca.configure_trust(self.server)


def test_tls_is_that_of_the_upstream(url: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    def tls(ca: str | None, server_name: str | None = "backend.example", *, verify: bool = True) -> UpstreamTls:
        return UpstreamTls(
            ca=ca, server_name=server_name, verify=verify, certificate=authority.certificate, key=authority.key
        )

    cases = {
        "right": (tls(authority.ca), ""),
        "unverified": (tls(None, None, verify=False), ""),
        "other-name": (tls(authority.ca, None), "its certificate is not valid"),
        "other-ca": (tls(None), "its certificate is not valid"),
        "no-certificate": (UpstreamTls(ca=authority.ca, server_name="backend.example"), None),
    }

    async def story(bench: Bench, _: CheckedBackend) -> None:
        async with checked_backend(authority.server) as backend:
            bench.published.version = 1
            bench.published.upstreams = {name: upstream(OFTEN, how, a=backend.url) for name, (how, _) in cases.items()}
            async with bench.checking():
                states = await bench.states(
                    lambda states: (
                        {name: not one.healthy for (name, _), one in states.items()}
                        == {name: reason != "" for name, (_, reason) in cases.items()}
                    )
                )
        for name, (_how, reason) in cases.items():
            assert reason in (None, states[name, "a"].reason), name

    play(url, story)
