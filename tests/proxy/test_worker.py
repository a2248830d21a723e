"""A worker: reloads that keep what stays, ids that are its own, and a tick that looks after what lasts (C63, C68)."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.client_sockets import Client as Address
from proxy.client_sockets import ClientSockets
from proxy.config import (
    Backend,
    Config,
    ConfigError,
    CredentialSource,
    KeyPool,
    Redis,
    Route,
    Server,
    Upstream,
    UpstreamTls,
)
from proxy.errors import NOT_READY
from proxy.exchange import Exchange
from proxy.rules.records import RECORD_BYTES
from proxy.snapshot import compile_snapshot
from proxy.tallies import FOLD_MIN
from proxy.worker import SWEEP_TICKS, Worker, watch
from tests.proxy.asgi import Client, play, pool_of, turns
from tests.proxy.counting import count_one, decoded, requests_of, taken


def config_with(*, access_log: bool = False, allow_private_targets: bool = False, **targets: str) -> Config:
    routes = {f"/{name}": Route(target=target) for name, target in targets.items()}
    return Config(server=Server(access_log=access_log, allow_private_targets=allow_private_targets), routes=routes)


class Files:
    """Where a worker finds its configuration when it is told to look again."""

    def __init__(self, config: Config) -> None:
        self.config: Config | Exception = config

    def load(self) -> Config:
        if isinstance(self.config, Exception):
            raise self.config
        return self.config


def worker_of(config: Config, files: Files | None = None) -> Worker:
    return Worker(asyncio.get_running_loop(), config, (files or Files(config)).load)


class Sockets(ClientSockets):
    """Answers whether a client stands when a test says so."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)
        self.answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def stands(self, _client: Address) -> bool:
        return await self.answer


def request(worker: Worker, client: Client, *, body_received: bool = True) -> Exchange:
    """A request that lasts until it is cancelled."""
    exchange = client.exchange()
    exchange.body_received = body_received
    exchange.task = asyncio.create_task(asyncio.sleep(9))  # type: ignore[arg-type,unused-ignore]
    worker.young.add(exchange)
    return exchange


async def end(worker: Worker, *exchanges: Exchange) -> None:
    for exchange in exchanges:
        worker.finish(exchange)
        exchange.task.cancel()
        await asyncio.wait([exchange.task])
    worker.close()


# ---- configurations -------------------------------------------------------------------------------------------------


def test_a_reload_keeps_the_pools_of_origins_that_stay_and_retires_the_others() -> None:
    async def dialogue() -> None:
        files = Files(config_with(a="http://a.example/v2", c="http://c.example"))
        worker = worker_of(config_with(a="http://a.example/v1", b="http://b.example"), files)
        before = worker.snapshot
        worker.reload()
        a, b = before.routes.match(b"/a"), before.routes.match(b"/b")
        kept = worker.snapshot.routes.match(b"/a")
        assert a is not None
        assert b is not None
        assert kept is not None
        assert pool_of(kept[0]) is pool_of(a[0])
        assert kept[0].base == b"/v2"
        assert not pool_of(a[0])._retired
        assert pool_of(b[0])._retired
        assert worker.snapshot.routes.match(b"/b") is None
        assert before.routes.match(b"/b") is not None, "requests in flight keep the snapshot that they began with"
        worker.close()

    play(dialogue)


def test_a_reload_that_changes_which_targets_are_allowed_keeps_no_pool() -> None:
    async def dialogue() -> None:
        files = Files(config_with(a="http://a.example"))
        worker = worker_of(config_with(a="http://a.example", allow_private_targets=True), files)
        before = worker.snapshot.routes.match(b"/a")
        worker.reload()
        after = worker.snapshot.routes.match(b"/a")
        assert before is not None
        assert after is not None
        assert pool_of(before[0])._retired
        assert pool_of(before[0]).origin.allow_private_targets
        assert not pool_of(after[0]).origin.allow_private_targets
        worker.close()

    play(dialogue)


@pytest.mark.parametrize(
    "bad",
    [
        ConfigError("relaygate.yaml:3", "server.port", "expected a number"),
        OSError("gone"),
        Config(routes={"/a": Route(target="https://a.example", tls=UpstreamTls(ca="/nowhere/ca.pem"))}),
    ],
    ids=["refused", "unreadable", "unusable"],
)
def test_a_configuration_that_cannot_be_used_changes_nothing_and_is_one_line(
    bad: Config | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def dialogue() -> None:
        files = Files(config_with(a="http://a.example"))
        worker = worker_of(config_with(a="http://a.example", b="http://b.example"), files)
        before = worker.snapshot
        files.config = bad
        worker.reload()
        assert worker.snapshot is before
        found = before.routes.match(b"/b")
        assert found is not None
        assert not pool_of(found[0])._retired
        (record,) = caplog.records
        assert record.levelname == "ERROR"
        assert "\n" not in record.getMessage()
        assert record.exc_info is None
        worker.close()

    play(dialogue)


# ---- published routes -----------------------------------------------------------------------------------------------


def test_published_routes_stand_in_for_the_files_and_over_a_reload_of_it() -> None:
    async def dialogue() -> None:
        files = Files(config_with(a="http://changed.example", allow_private_targets=True))
        worker = worker_of(config_with(a="http://a.example"), files)
        published = config_with(b="http://b.example").routes
        worker.use_routes(published, KeyPool(), {})
        assert worker.snapshot.routes.match(b"/a") is None
        assert worker.snapshot.routes.match(b"/b") is not None
        worker.reload()
        assert worker.snapshot.routes.match(b"/a") is None, "the control plane applies the file, no worker does"
        found = worker.snapshot.routes.match(b"/b")
        assert found is not None
        assert pool_of(found[0]).origin.allow_private_targets, "all else in the file is used"
        worker.close()

    play(dialogue)


def test_published_routes_keep_the_pools_of_origins_that_stay() -> None:
    async def dialogue() -> None:
        worker = worker_of(config_with(a="http://a.example/v1", b="http://b.example"))
        a, b = worker.snapshot.routes.match(b"/a"), worker.snapshot.routes.match(b"/b")
        worker.use_routes(config_with(c="http://a.example/v2").routes, KeyPool(), {})
        c = worker.snapshot.routes.match(b"/c")
        assert a is not None
        assert b is not None
        assert c is not None
        assert pool_of(c[0]) is pool_of(a[0])
        assert pool_of(b[0])._retired
        worker.close()

    play(dialogue)


def test_a_published_route_without_the_key_that_it_wants_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Not one of the settings' own, of which the parent tells."""
    fixed = Route(target="http://a.example", credential=CredentialSource.FIXED)

    async def dialogue() -> None:
        worker = worker_of(Config(routes={"/own": fixed}))
        for routes in ({"/own": fixed}, {"/new": fixed}, {"/new": fixed}, {}, {"/own": fixed}):
            worker.use_routes(routes, KeyPool(), {})
        worker.close()

    play(dialogue)
    assert [record.getMessage().partition(" (")[0] for record in caplog.records] == [
        "credentials.api_key is not set: requests of /new"
    ]


def test_published_upstreams_stand_in_for_the_files_and_over_a_reload_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[dict[str, Upstream]] = []

    def compile_recorded(config: Config, *rest: Any) -> Any:
        compiled.append(config.upstreams)
        return compile_snapshot(config, *rest)

    monkeypatch.setattr("proxy.worker.compile_snapshot", compile_recorded)
    own, published = ({name: Upstream(backends=(Backend(url=f"http://{name}.example"),))} for name in "ab")

    async def dialogue() -> None:
        worker = worker_of(Config(upstreams=own))
        assert compiled[-1] == own
        worker.reload()
        assert compiled[-1] == own, "nothing has been published"
        worker.use_routes({}, KeyPool(), published)
        assert compiled[-1] == published
        worker.reload()
        assert compiled[-1] == published
        worker.close()

    play(dialogue)
    assert len(compiled) == 5


def test_a_published_route_whose_upstream_nobody_checks_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def dialogue() -> None:
        worker = worker_of(Config())
        worker.use_routes({"/lax": Route(target="https://a.example", tls=UpstreamTls(verify=False))}, KeyPool(), {})
        worker.close()

    play(dialogue)
    (line,) = caplog.records
    assert line.getMessage().startswith("tls.verify is false")
    assert line.getMessage().endswith("requests of /lax")


def test_no_published_routes_are_no_routes() -> None:
    async def dialogue() -> None:
        config = config_with(a="http://a.example")
        worker = worker_of(config, Files(config))
        worker.use_routes({}, KeyPool(ban_401=True), {})
        assert worker.key_pool.settings.ban_401
        worker.reload()
        assert worker.snapshot.routes.match(b"/a") is None
        worker.close()

    play(dialogue)


def test_published_routes_that_cannot_be_used_change_nothing_also_at_the_next_reload() -> None:
    async def dialogue() -> None:
        config = config_with(a="http://file.example")
        worker = worker_of(config, Files(config))
        worker.use_routes(config_with(b="http://b.example").routes, KeyPool(), {})
        before = worker.snapshot
        unusable = Route(target="https://c.example", tls=UpstreamTls(ca="/nowhere/ca.pem"))
        with pytest.raises(OSError, match=r"ca\.pem|No such file"):
            worker.use_routes({"/c": unusable}, KeyPool(), {})
        assert worker.snapshot is before
        found = before.routes.match(b"/b")
        assert found is not None
        assert not pool_of(found[0])._retired
        worker.reload()
        assert worker.snapshot.routes.match(b"/b") is not None
        assert worker.snapshot.routes.match(b"/a") is None
        worker.close()

    play(dialogue)


def test_an_access_log_that_is_turned_off_loses_no_line(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    async def dialogue() -> None:
        files = Files(config_with(access_log=True))
        worker = worker_of(config_with(access_log=True), files)
        log = worker.access_log
        worker.reload()
        assert log is not None
        assert [worker.access_log] == [log]
        log.write({"request_id": "last"})
        files.config = config_with()
        worker.reload()
        assert [worker.access_log] == [None]
        worker.close()

    play(dialogue)
    assert b'"request_id":"last"' in capfdbinary.readouterr().out


def counting(tmp_path: Path, *, statistics: bool = True) -> Config:
    """Settings with somebody to tell what is counted."""
    config = config_with(a="http://a.example")
    server = msgspec.structs.replace(config.server, statistics=statistics)
    return msgspec.structs.replace(
        config, server=server, redis=Redis(url="redis://nobody.example"), data_dir=str(tmp_path / "data")
    )


def test_a_worker_signs_what_it_has_counted_with_what_its_request_ids_begin_with(tmp_path: Path) -> None:
    async def dialogue() -> None:
        before_s = time.time()
        worker = worker_of(counting(tmp_path))
        assert worker.tallies is not None
        assert worker.snapshot.unmatched is not None
        count_one(worker.snapshot.unmatched)
        delta = decoded(worker.tallies.offer(0.0) or b"")
        assert worker.new_request_id().startswith(delta.worker.encode())
        assert (delta.worker, len(delta.worker), delta.sequence) == (worker.name, 16, 1)
        assert before_s <= delta.started_s == worker.started_s <= time.time()
        assert [path.stem for path in (tmp_path / "data" / "statistics").iterdir()] == [worker.name]
        worker.close()

    play(dialogue)


def test_nothing_is_counted_where_nobody_is_told(tmp_path: Path) -> None:
    async def dialogue() -> None:
        for config in (config_with(a="http://a.example"), counting(tmp_path, statistics=False)):
            worker = worker_of(config)
            found = worker.snapshot.routes.match(b"/a")
            assert found is not None
            assert (worker.tallies, found[0].tally, worker.snapshot.unmatched) == (None, None, None)
            worker.close()
        assert not (tmp_path / "data").exists()

    play(dialogue)


def test_counting_is_switched_on_and_off_by_reloads_and_loses_nothing(tmp_path: Path) -> None:
    async def dialogue() -> None:
        files = Files(counting(tmp_path))
        worker = worker_of(counting(tmp_path, statistics=False), files)
        worker.reload()
        assert worker.snapshot.unmatched is not None
        count_one(worker.snapshot.unmatched)
        files.config = counting(tmp_path, statistics=False)
        worker.reload()
        assert [worker.snapshot.unmatched] == [None]
        assert worker.tallies is not None
        assert worker.tallies.unsent == 1
        files.config = counting(tmp_path)
        worker.reload()
        assert worker.snapshot.unmatched is not None
        count_one(worker.snapshot.unmatched)
        assert requests_of(taken(worker.tallies)) == {"": 2}
        worker.close()

    play(dialogue)


def test_records_are_folded_on_ticks(tmp_path: Path) -> None:
    async def dialogue() -> None:
        worker = worker_of(counting(tmp_path))
        found = worker.snapshot.routes.match(b"/a")
        assert found is not None
        assert found[0].tally is not None
        assert worker.tallies is not None
        for _ in range(FOLD_MIN // RECORD_BYTES):
            count_one(found[0].tally)
        before_s = time.time()
        worker._timer.cancel()
        worker._tick()
        assert worker.tallies._rows
        assert worker.tallies.journal.time_s >= before_s
        assert requests_of(taken(worker.tallies)) == {"/a": FOLD_MIN // RECORD_BYTES}
        worker.close()

    play(dialogue)


def test_request_ids_are_sane_and_no_two_are_equal() -> None:
    async def dialogue() -> None:
        workers = worker_of(config_with()), worker_of(config_with())
        ids = [worker.new_request_id() for worker in workers for _ in range(100)]
        assert len(set(ids)) == 200
        assert all(value.isalnum() and len(value) == 24 for value in ids)
        for worker in workers:
            worker.close()

    play(dialogue)


# ---- looking after requests -----------------------------------------------------------------------------------------


def test_a_request_that_lasts_is_watched_and_cancelled_when_its_client_leaves() -> None:
    """C63."""

    async def dialogue() -> None:
        worker = worker_of(config_with())
        client = Client()
        exchange = request(worker, client)
        worker._tick()
        assert (worker.young, worker.watched, worker.in_flight) == (set(), {exchange}, 1)
        await turns()
        assert not exchange.task.cancelling()
        client.leave()
        await asyncio.wait([exchange.task])
        assert exchange.task.cancelled()
        await end(worker, exchange)
        assert worker.in_flight == 0

    play(dialogue)


def test_a_request_whose_body_still_comes_reads_for_itself_and_is_not_watched() -> None:
    async def dialogue() -> None:
        worker = worker_of(config_with())
        exchange = request(worker, Client(), body_received=False)
        worker._tick()
        assert (worker.young, worker.watched, exchange.watch) == ({exchange}, set(), None)
        await end(worker, exchange)

    play(dialogue)


def test_what_a_client_sends_too_much_is_no_leaving() -> None:
    async def dialogue() -> None:
        client = Client()
        exchange = client.exchange()
        exchange.task = asyncio.create_task(asyncio.sleep(9))  # type: ignore[arg-type,unused-ignore]
        client.put(b"", more=False)
        watching = asyncio.create_task(watch(exchange))
        await turns()
        assert not watching.done()
        client.leave()
        await watching
        await asyncio.wait([exchange.task])
        assert exchange.task.cancelled()

    play(dialogue)


def congest(worker: Worker, exchange: Exchange) -> None:
    """The upload waits for its upstream, and a second has passed."""
    exchange.congested = True
    for _ in range(SWEEP_TICKS):
        worker._tick()


@pytest.mark.parametrize("stands", [True, False])
def test_an_upload_that_nobody_takes_is_cancelled_only_if_its_client_has_left(*, stands: bool) -> None:
    """C63."""

    async def dialogue() -> None:
        worker = worker_of(config_with())
        worker.client_sockets = sockets = Sockets()
        exchange = request(worker, Client(), body_received=False)
        congest(worker, exchange)
        await turns()
        sockets.answer.set_result(stands)
        await turns()
        assert exchange.task.cancelled() is not stands
        assert exchange.watch is None
        await end(worker, exchange)
        assert worker.in_flight == 0

    play(dialogue)


def test_an_upload_that_ends_while_its_client_is_looked_for_is_forgotten_when_it_has_ended() -> None:
    async def dialogue() -> None:
        worker = worker_of(config_with())
        worker.client_sockets = sockets = Sockets()
        exchange = request(worker, Client(), body_received=False)
        congest(worker, exchange)
        await turns()
        exchange.congested, exchange.body_received = False, True
        worker._tick()
        await turns()
        sockets.answer.set_result(True)
        await turns()
        worker._tick()
        await turns()
        assert worker.watched == {exchange}
        await end(worker, exchange)
        assert worker.in_flight == 0

    play(dialogue)


def test_idle_connections_are_swept_and_the_log_is_written_on_ticks(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    async def dialogue() -> None:
        worker = worker_of(config_with(access_log=True))
        sweeps: list[int] = []
        monkeypatch.setattr(worker.pools, "sweep", lambda: sweeps.append(1))
        assert worker.access_log is not None
        worker.access_log.write({"request_id": "one"})
        for _ in range(2 * SWEEP_TICKS):
            worker._timer.cancel()
            worker._tick()
        assert len(sweeps) == 2
        worker.close()

    play(dialogue)
    assert b'"request_id":"one"' in capfdbinary.readouterr().out


# ---- the end --------------------------------------------------------------------------------------------------------


def test_what_is_left_at_the_deadline_is_counted_and_broken_off(caplog: pytest.LogCaptureFixture) -> None:
    """C68."""

    async def dialogue() -> None:
        worker = worker_of(config_with())
        exchanges = [request(worker, Client()) for _ in range(3)]
        worker._tick()
        exchanges.append(request(worker, Client(), body_received=False))
        worker.end_drain()
        await asyncio.wait([exchange.task for exchange in exchanges])
        assert all(exchange.task.cancelled() and exchange.cause is NOT_READY for exchange in exchanges)
        assert "4 requests were left" in caplog.text
        await end(worker, *exchanges)

    play(dialogue)


@pytest.fixture
def interrupts() -> Iterator[list[int]]:
    """The interrupts that come, which would otherwise end the tests."""
    came: list[int] = []

    def note(number: int, _frame: Any) -> None:
        came.append(number)

    before: Callable[..., Any] | int | None = signal.signal(signal.SIGINT, note)
    yield came
    signal.signal(signal.SIGINT, before)


def test_a_drain_closes_the_tunnels_and_leaves_requests_to_granian(interrupts: list[int]) -> None:
    """C68."""

    async def dialogue() -> None:
        worker = worker_of(config_with())
        tunnel, ordinary = request(worker, Client()), request(worker, Client())
        worker.young.discard(tunnel)
        worker.tunnels.add(tunnel)
        worker.begin_drain()
        assert worker.draining
        await worker._drain
        assert tunnel.task.cancelled()
        assert not ordinary.task.cancelling()
        assert interrupts == [signal.SIGINT]
        worker.tunnels.discard(tunnel)
        await end(worker, ordinary)

    play(dialogue)


def test_a_worker_that_closes_stops_its_tick_and_its_pools() -> None:
    async def dialogue() -> None:
        worker = worker_of(config_with(a="http://a.example"))
        found = worker.snapshot.routes.match(b"/a")
        worker.close()
        assert worker._timer.cancelled()
        assert found is not None
        assert pool_of(found[0])._retired

    play(dialogue)


def test_what_has_not_noticed_that_its_client_is_gone_is_ended() -> None:
    async def dialogue() -> None:
        worker = worker_of(config_with())
        exchanges = [request(worker, Client()) for _ in range(2)]
        worker.tunnels.add(exchanges[0])
        await worker.end_requests()
        assert all(exchange.task.cancelled() for exchange in exchanges)
        await end(worker, *exchanges)

    play(dialogue)
