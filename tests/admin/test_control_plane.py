"""What the control plane does before it serves, and what it refuses to publish."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar.testing import TestClient

from admin.consumer import OF_EVENTS
from admin.control_plane import (
    EVENTS_LAG_MAX_S,
    backends_view,
    check_redis,
    database_url,
    editor,
    events_view,
    make,
    opened,
    prepare,
    validate,
)
from admin.grpc_api import management_pb2
from admin.key_commands import credentials_of
from admin.readiness import Health, View
from admin.rules import tokens
from admin.services.backend_states import BackendStates
from admin.services.routes import Routes
from admin.services.stream import Stream
from loadtests.processes import free_port
from proxy.config import (
    Admin,
    Backend,
    Config,
    ConfigError,
    Database,
    Grpc,
    Redis,
    Route,
    Server,
    Upstream,
    UpstreamTls,
)
from proxy.shared_state.backend_health import BackendHealth, write_health
from proxy.shared_state.breaker import Breaker, Guard
from proxy.shared_state.events import STATISTICS, event
from proxy.shared_state.keys import BACKEND_REPORTS, CONFIG_SECTIONS, EVENTS, SUMMARY, WORKERS
from proxy.shared_state.published import ROUTES as ROUTES_SECTION
from proxy.shared_state.published import RoutesSection, decode_routes
from proxy.shared_state.worker_state import encode_state
from proxy.statistics import StatisticsDelta
from tests.admin.counted import delta, packed, row, worker
from tests.admin.grpc_api.service import calling
from tests.end_to_end.waiting import eventually
from tests.redis_servers import DEADLINE_S, EMBEDDED, connected, redis_at, server, settle

TOKEN = "an admin token for tests only"

ROUTES = {"/a": Route(target="http://a.example")}


def test_the_file_is_applied_and_a_token_made_that_stays(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = Config(data_dir=str(tmp_path / "data"), routes=ROUTES)
    digest = asyncio.run(prepare(config))
    made = capfd.readouterr().err.split()[-1]
    assert tokens.matches(made, digest)
    assert asyncio.run(prepare(config)) == digest
    assert "token" not in capfd.readouterr().err

    async def stored() -> dict[str, Route]:
        async with opened(config) as database:
            return await Routes(editor(config, database)).all()

    assert asyncio.run(stored()) == ROUTES


def test_secrets_whose_key_is_gone_are_told_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = Config(data_dir=str(tmp_path / "data"))

    async def add() -> None:
        async with credentials_of(config) as (_, credentials):
            await credentials.create(secret="sk-one", notes="", group="default", actor="test")

    asyncio.run(add())
    asyncio.run(prepare(config))
    assert "secret" not in caplog.text
    (tmp_path / "data" / "secret.key").unlink()
    asyncio.run(prepare(config))
    assert [record.levelname for record in caplog.records if "put that key back" in record.message] == ["ERROR"]


def test_a_token_that_is_set_takes_the_place_of_what_was_kept(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first, second = (
        Config(data_dir=str(tmp_path), admin=Admin(token=token)) for token in ("the first token", "the second token")
    )
    digest = asyncio.run(prepare(first))
    assert tokens.matches("the first token", digest)
    assert asyncio.run(prepare(first)) == digest
    other = asyncio.run(prepare(second))
    assert tokens.matches("the second token", other)
    assert not tokens.matches("the first token", other)
    assert capfd.readouterr().err == ""


def test_without_a_url_the_database_lies_in_the_data_directory(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    assert database_url(Config(data_dir=str(folder))) == f"sqlite:///{folder}/relaygate.db"
    assert not folder.exists()
    assert database_url(Config(database=Database(url="sqlite:///x.db"), data_dir="/nowhere")) == "sqlite:///x.db"


def test_the_data_directory_is_made_for_its_owner_alone_with_the_database(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"

    async def open_and_close() -> None:
        async with opened(Config(data_dir=str(folder))):
            assert (folder / "relaygate.db").stat().st_mode & 0o777 == 0o600

    asyncio.run(open_and_close())
    assert folder.stat().st_mode & 0o777 == 0o700


def said_of_redis(url: str, caplog: pytest.LogCaptureFixture) -> str:
    """The one line that the check of a Redis logs."""
    caplog.clear()
    with caplog.at_level("INFO", "relaygate"):
        asyncio.run(check_redis(url))
    (record,) = caplog.records
    return record.getMessage()


def test_what_redis_is_and_whether_it_keeps_a_file_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with server(tmp_path / "willing") as port:
        url = f"redis://127.0.0.1:{port}"
        assert "append-only file turned on, but not in its configuration file" in said_of_redis(url, caplog)
        assert re.fullmatch(r"redis \d+\.\d+\.\d+, append-only file on", said_of_redis(url, caplog))
        asyncio.run(settle(url))
    with server(tmp_path / "unwilling", "--rename-command", "CONFIG", "") as port:
        assert "append-only file off, and it may not be turned on" in said_of_redis(f"redis://127.0.0.1:{port}", caplog)
    assert said_of_redis(f"redis://127.0.0.1:{port}", caplog) == "redis is not checked: connection"


def test_a_redis_that_may_not_be_asked_is_no_reason_not_to_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with server(tmp_path, *["--user", "weak", "on", ">pass", "~*", "+@all", "-info"]) as port:
        url = f"redis://weak:pass@127.0.0.1:{port}"
        assert said_of_redis(url, caplog) == "redis is not checked: NoPermissionError"


def test_a_redis_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("proxy.shared_state.client.VERSION_MIN", (99, 0))
    with (
        server(tmp_path) as port,
        pytest.raises(ConfigError, match=r"^redis: version [\d.]+; 6\.2 or newer is needed$"),
    ):
        asyncio.run(check_redis(f"redis://127.0.0.1:{port}"))


@pytest.mark.parametrize(
    ("route", "said"),
    [
        (Route(target="http://127.0.0.1:1"), r"^routes\./a\.target: http://127\.0\.0\.1:1 is "),
        (Route(target="https://a.example", tls=UpstreamTls(ca="/nowhere/ca.pem")), "^routes: "),
    ],
)
def test_routes_that_no_worker_could_use_are_refused(route: Route, said: str) -> None:
    async def main() -> None:
        validate(Config(), ROUTES, {})
        with pytest.raises(ConfigError, match=said):
            validate(Config(), {"/a": route}, {})
        validate(Config(server=Server(allow_private_targets=True)), {"/a": Route(target="http://127.0.0.1:1")}, {})

    asyncio.run(main())


@pytest.mark.parametrize(
    ("upstream", "said"),
    [
        (
            Upstream(backends=(Backend(url="https://a.example"), Backend(url="http://127.0.0.1:1"))),
            r"^upstreams\.api\.backends\.1\.url: http://127\.0\.0\.1:1 is loopback, expected a public host$",
        ),
        (Upstream(tls=UpstreamTls(ca="/nowhere/ca.pem")), r"^upstreams\.api\.tls\.ca: /nowhere/ca\.pem: No such file"),
        (Upstream(tls=UpstreamTls(key="/nowhere/key.pem")), r"^upstreams\.api\.tls: a key without its certificate$"),
    ],
)
def test_upstreams_that_no_worker_could_use_are_refused(upstream: Upstream, said: str) -> None:
    async def main() -> None:
        route = Route(upstream="api")
        with pytest.raises(ConfigError, match=said):
            validate(Config(), {"/a": route}, {"api": upstream})
        private = Upstream(backends=(Backend(url="http://127.0.0.1:1"),))
        validate(Config(server=Server(allow_private_targets=True)), {"/a": route}, {"api": private})

    asyncio.run(main())


def test_routes_at_paths_that_the_relay_answers_itself_are_refused() -> None:
    async def main() -> None:
        with pytest.raises(ConfigError, match=r"^routes\./healthz: the relay answers this .* server\.health_prefix$"):
            validate(Config(), {"/healthz": ROUTES["/a"]}, {})
        moved = Server(health_prefix="/-", stats_path="/stats")
        validate(Config(server=moved), {"/healthz": ROUTES["/a"]}, {})
        with pytest.raises(ConfigError, match=r"^routes\./stats: .* server\.stats_path$"):
            validate(Config(server=moved), {"/stats": ROUTES["/a"]}, {})

    asyncio.run(main())


def test_an_application_takes_what_workers_report_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # So that it looks at the start, and at the end.
    monkeypatch.setattr("admin.control_plane.OF_EVENTS", OF_EVENTS._replace(poll_s=3600.0))
    config = Config(data_dir=str(tmp_path / "data"), admin=Admin(token=TOKEN))

    def send(url: str, *deltas: StatisticsDelta) -> None:
        async def main() -> None:
            async with connected(url) as client:
                for one in deltas:
                    await client.xadd(EVENTS, event(STATISTICS, packed(one)))  # type: ignore[arg-type]
                state = encode_state(worker("w", configuration=0))
                await client.hset(WORKERS, "w", state)  # type: ignore[misc,arg-type,unused-ignore]

        asyncio.run(main())

    with redis_at(EMBEDDED, tmp_path / "redis") as url:
        config = msgspec.structs.replace(config, redis=Redis(url=url))
        digest = asyncio.run(prepare(config))
        send(url, delta(row(s2xx=3)))
        with TestClient(make(config, digest)) as client:
            fields = {"Authorization": f"Bearer {TOKEN}"}

            def stats() -> Any:
                return client.get("/stats?range=all", headers=fields).json()

            eventually(lambda: stats()["total"] == 3)
            eventually(lambda: client.get("/readyz").json()["components"]["workers"]["state"] == "ok")
            components = client.get("/readyz").json()["components"]
            assert {name: one["state"] for name, one in components.items()} == dict.fromkeys(
                ("database", "redis", "workers", "backends", "events", "ledger", "oauth"), "ok"
            )
            assert client.get("/api/workers", headers=fields).json()["workers"][0]["name"] == "w"
            eventually(lambda: summary_of(url)["total"] == 3)
            assert "relaygate_events_waiting" in client.get("/metrics", headers=fields).text
            send(url, *(delta(row(s2xx=1), sequence=sequence) for sequence in (2, 3, 4)))
        assert asyncio.run(left(url)) == 0, "what was sent last has been taken when the application has ended"
        with TestClient(make(config, digest)) as client:
            assert stats()["total"] == 6


def test_a_document_reaches_workers_and_so_does_a_report(tmp_path: Path) -> None:
    grpc = Grpc(enabled=True, port=free_port())
    config = Config(data_dir=str(tmp_path / "data"), admin=Admin(token=TOKEN), grpc=grpc)
    digest = asyncio.run(prepare(config))
    document = {
        "backends": {"default": [{"id": "backend1", "host": "b1.example", "port": 8081}]},
        "routing": {"default": {"path": "/", "upstream": "default"}},
    }
    report = {"upstream": "default", "backend_id": "backend1", "performance": {"cpu_usage": 45.2}}

    async def published(url: str) -> tuple[RoutesSection, int]:
        async with connected(url) as client:
            found: Any = await client.hget(CONFIG_SECTIONS, ROUTES_SECTION)  # type: ignore[misc,unused-ignore]
            reports = await client.hlen(BACKEND_REPORTS)  # type: ignore[misc,unused-ignore]
            return decode_routes(found) if found else RoutesSection(0, {}), reports

    with redis_at(EMBEDDED, tmp_path / "redis") as url:
        config = msgspec.structs.replace(config, redis=Redis(url=url))
        with TestClient(make(config, digest)) as client:
            client.headers["Authorization"] = f"Bearer {TOKEN}"
            version = client.put("/api/v1/config", json={"config": document}).json()["version"]
            eventually(lambda: asyncio.run(published(url))[0].version == version)
            section, _ = asyncio.run(published(url))
            assert section.upstreams == {
                "default": Upstream(backends=(Backend(url="http://b1.example:8081", id="backend1"),))
            }
            assert section.routes["/"] == Route(upstream="default")
            assert client.post("/api/v1/report", json=report).status_code == 200
            assert asyncio.run(published(url))[1] == 1
            (shown,) = client.get("/api/v1/stats/backend").json()["backends"]
            assert shown["performance"]["cpu_usage"] == 45.2
            assert client.get("/api/v1/stats/server").json()["stats"]["backends"] == 1
            assert client.post("/api/v1/config/reload-ssl").status_code == 409
            with calling(grpc.port) as call:
                metadata = (("x-admin-key", TOKEN),)
                found = call("ConfigService", "GetConfig", management_pb2.GetConfigRequest(), metadata)
                assert (found.version, found.config.grpc.port) == (version, grpc.port)
                request = management_pb2.UpdateConfigRequest(config=found.config)
                assert call("ConfigService", "UpdateConfig", request, metadata).version == version
            private = {"upstream": "default", "backend": {"host": "127.0.0.1"}}
            refused = client.post("/api/v1/backends/add", json=private)
            assert (refused.status_code, refused.json()["error"]) == (400, "unusable")


def test_an_access_token_that_is_not_kept_fresh_shows_in_readiness(tmp_path: Path) -> None:
    config = Config(data_dir=str(tmp_path / "data"), admin=Admin(token=TOKEN))
    digest = asyncio.run(prepare(config))
    (tmp_path / "data" / "auth.json").write_text("{")
    with redis_at(EMBEDDED, tmp_path / "redis") as url:
        config = msgspec.structs.replace(config, redis=Redis(url=url))
        with TestClient(make(config, digest)) as client:
            eventually(lambda: client.get("/readyz").json()["components"]["oauth"]["state"] == "down")
            ready = client.get("/readyz")
            assert (ready.status_code, ready.json()["status"]) == (200, "ok"), "it does not decide"
            assert "auth.json" not in ready.text


async def left(url: str) -> int:
    async with connected(url) as client:
        return await client.xlen(EVENTS)


def summary_of(url: str) -> Any:
    async def main() -> Any:
        async with connected(url) as client:
            return json.loads(await client.get(SUMMARY) or b'{"total": null}')

    return asyncio.run(main())


def test_backends_are_well_while_each_upstream_has_a_healthy_one(tmp_path: Path) -> None:
    ill, well = (BackendHealth(healthy=healthy, since_s=1.0, checked_s=1.0) for healthy in (False, True))
    seen = []

    async def main(url: str) -> None:
        async with connected(url) as client:
            guard = Guard(client, Breaker(), DEADLINE_S)
            backends = BackendStates(client, guard)
            for states in ({}, {("one", "a"): ill, ("one", "b"): well}, {("two", "a"): ill}):
                await write_health(client, guard, states, [], 1)
                await backends.look()
                seen.append(backends_view(backends))

    with redis_at(EMBEDDED, tmp_path) as url:
        asyncio.run(main(url))
    assert seen == [
        View(Health.OK, {"count": 0, "unhealthy": 0}),
        View(Health.OK, {"count": 2, "unhealthy": 1}),
        View(Health.DOWN, {"count": 3, "unhealthy": 2}),
    ]


def test_events_are_well_while_the_oldest_is_young() -> None:
    stream = Stream(lambda: 0.0)
    stream.note(2, EVENTS_LAG_MAX_S - 1)
    assert events_view(stream) == View(Health.OK, {"waiting": 2, "lag_s": EVENTS_LAG_MAX_S - 1})
    stream.note(2, EVENTS_LAG_MAX_S)
    assert events_view(stream).health is Health.DOWN
    assert events_view(Stream(lambda: 100.0)) == View(Health.DOWN, {})
