"""Every request of a real relay is counted exactly once, whichever way it ends and whoever dies meanwhile.

The deltas of its workers are read from the stream of a real Redis, as the control plane would. Most tests share a relay
of two workers. Each has a route of its own there, so it asserts all that was ever counted for it; when the relay has
ended, all is compared once more.
"""

import asyncio
import itertools
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any

import msgspec
import pytest
import redis

from loadtests.fake_upstream import UpstreamInThread
from proxy.shared_state.embedded import EmbeddedRedis
from proxy.shared_state.events import DATA
from proxy.shared_state.keys import EVENTS, SUMMARY, WORKERS
from proxy.shared_state.worker_state import WorkerState, decode_state
from proxy.statistics import Counts, RouteCounts, StatisticsDelta
from tests.end_to_end.asking import answer, sse
from tests.end_to_end.harness import BODY_BYTES_MAX, SHORT_TIMEOUT_S, Places, RelayFarm, Seen
from tests.end_to_end.process_tree import descendants
from tests.end_to_end.raw_client import ClosedEarlyError, request_bytes
from tests.end_to_end.relay_process import Relay
from tests.end_to_end.waiting import eventually
from tests.end_to_end.websocket_frames import BINARY, CLOSE, TEXT, WebSocketClient, close_payload
from tests.end_to_end.websocket_upstream import WebSocketUpstream
from tests.proxy.counting import Consumer
from tests.redis_servers import program

DEADLINE_S = 30.0
"""For what is told once a second, and for the dead every five."""
Outcomes = dict[str, Counts]


class Store:
    """A Redis that can go away and come back, with a database for each relay."""

    def __init__(self, directory: Path) -> None:
        program()
        self._runner = asyncio.Runner()
        self._server = EmbeddedRedis(directory)
        self._numbers = itertools.count()
        self.start()

    def start(self) -> None:
        self._runner.run(self._server.start())

    def stop(self) -> None:
        self._runner.run(self._server.stop())

    def close(self) -> None:
        self.stop()
        self._runner.close()

    def url(self) -> str:
        """The URL of a database that nobody has used yet."""
        return f"{self._server.url}?db={next(self._numbers)}"


@pytest.fixture(name="store", scope="module")
def fixture_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = Store(tmp_path_factory.mktemp("redis"))
    yield store
    store.close()


@contextmanager
def asked(relay: Relay) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(relay.configuration["redis"]["url"]) as client:
        yield client


def deltas(relay: Relay) -> list[StatisticsDelta]:
    with asked(relay) as client:
        entries: Any = client.xrange(EVENTS)
    return [msgspec.msgpack.decode(fields[DATA], type=StatisticsDelta) for _, fields in entries]


def rows(relay: Relay) -> dict[str, RouteCounts]:
    """All that has been told so far, by prefix."""
    consumer = Consumer()
    with asked(relay) as client:
        entries: Any = client.xrange(EVENTS)
    for _, fields in entries:
        consumer.take(fields[DATA])
    assert consumer.gaps == 0
    return {row.prefix: row for row in consumer.rows}


def requests_told(relay: Relay, prefix: str) -> int:
    row = rows(relay).get(prefix)
    return 0 if row is None else sum(counts.requests for counts in row.outcomes.values())


def workers(relay: Relay) -> list[WorkerState]:
    """The workers that say that they live."""
    with asked(relay) as client:
        found: Any = client.hgetall(WORKERS)
    return [decode_state(data) for data in found.values()]


def settings(store: Store, routes: dict[str, Any], **server: Any) -> dict[str, Any]:
    return {"server": {"access_log": False, **server}, "redis": {"url": store.url()}, "routes": routes}


class Counted:
    """A relay, and what it must have counted when it ends."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.expected: dict[str, Outcomes] = {}

    def expect(self, prefix: str, **outcomes: Counts) -> RouteCounts:
        """Waits until exactly this has been counted for a route."""
        self.expected[prefix] = expected = {name.removeprefix("of_"): counts for name, counts in outcomes.items()}

        def has_come() -> RouteCounts | None:
            row = rows(self.relay).get(prefix)
            return row if row is not None and row.outcomes == expected else None

        try:
            return eventually(has_come, DEADLINE_S)  # type: ignore[return-value]
        except AssertionError:
            raise AssertionError(f"{rows(self.relay).get(prefix)}, expected {expected}") from None


@pytest.fixture(name="counted", scope="module")
def fixture_counted(
    farm: RelayFarm, store: Store, upstream: UpstreamInThread, websockets: WebSocketUpstream, places: Places
) -> Iterator[Counted]:
    routes: dict[str, Any] = {
        "/whole": upstream.url,
        "/many": upstream.url,
        "/refused": f"http://{places.refused}",
        "/limited": {"target": upstream.url, "body_bytes_max": BODY_BYTES_MAX},
        "/head-timeout": {"target": upstream.url, "head_timeout_s": SHORT_TIMEOUT_S},
        "/cut": upstream.url,
        "/retry": upstream.url,
        "/left-waiting": upstream.url,
        "/left-reading": upstream.url,
        "/left-sending": upstream.url,
        "/pipelined": upstream.url,
        "/tunnel": websockets.url,
        "/tunnel-refused": websockets.url,
        "/tunnel-left": websockets.url,
        "/tunnel-cut": websockets.url,
    }
    relay = farm.start(settings(store, routes, workers=2))
    counted = Counted(relay)
    yield counted
    farm.stop(relay)
    assert {prefix: row.outcomes for prefix, row in rows(relay).items()} == counted.expected
    for worker in {delta.worker for delta in deltas(relay)}:
        sequences = [delta.sequence for delta in deltas(relay) if delta.worker == worker]
        assert sequences == list(range(1, len(sequences) + 1))
    assert workers(relay) == []
    assert list((relay.directory / "data" / "statistics").iterdir()) == []


def test_a_whole_exchange(counted: Counted) -> None:
    response = counted.relay.request("POST", "/whole" + answer(status=201, body="hello"), [], b"abc")
    assert response.status == 201
    row = counted.expect("/whole", of_2xx=Counts(requests=1, request_bytes=3, response_bytes=5))
    assert (row.durations.count, row.heads.count, row.overheads.count, row.upstreams.count) == (1, 1, 1, 1)
    assert 0 < row.overheads.sum_us < row.heads.sum_us <= row.durations.sum_us < 5_000_000
    assert abs(row.overheads.sum_us + row.upstreams.sum_us - row.durations.sum_us) <= 2


def test_as_many_as_there_were(counted: Counted, upstream: UpstreamInThread) -> None:
    """From many clients at once, on both workers."""

    def ask(number: int) -> None:
        with counted.relay.client() as client:
            for _ in range(25):
                status = 200 if number % 2 else 404
                assert client.request("GET", "/many" + answer(status=status, body="ok")).status == status

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(ask, range(32)))
    half = Counts(requests=400, response_bytes=800)
    row = counted.expect("/many", of_2xx=half, of_4xx=half)
    assert row.durations.count == row.heads.count == row.overheads.count == row.upstreams.count == 800
    assert row.authority == upstream.authority
    assert len({delta.worker for delta in deltas(counted.relay)}) == 2, "one of the workers had nothing to count"


def test_the_relays_own_errors(counted: Counted) -> None:
    relay = counted.relay
    assert relay.get("/nowhere/one").status == 404
    assert relay.get("/nowhere/two").status == 404
    assert relay.request("CONNECT", "/whole").status == 405
    assert relay.get("/refused/x").status == 502
    assert relay.request("POST", "/limited/echo", [], bytes(BODY_BYTES_MAX + 1)).status == 413
    assert relay.get("/head-timeout/hold").status == 504
    counted.expect("", no_route=Counts(requests=2), method_not_allowed=Counts(requests=1))
    row = counted.expect("/refused", connect_refused=Counts(requests=1))
    assert (row.durations.count, row.heads.count, row.overheads.count, row.upstreams.count) == (1, 0, 0, 0)
    counted.expect("/limited", body_too_large=Counts(requests=1))
    row = counted.expect("/head-timeout", head_timeout=Counts(requests=1))
    assert row.durations.sum_us >= row.upstreams.sum_us >= SHORT_TIMEOUT_S * 900_000


def test_a_truncation(counted: Counted) -> None:
    response = counted.relay.get("/cut" + answer(body_bytes=100_000, cut_after_bytes=70_000, end="fin"))
    assert response.failed
    counted.expect("/cut", truncated=Counts(requests=1, response_bytes=70_000, truncated=1))


def test_a_retry(counted: Counted) -> None:
    with counted.relay.client() as client:
        assert client.request("GET", "/retry" + answer(body="ok")).status == 200
        assert client.request("HEAD", "/retry/die?on=reused").status == 200
    counted.expect("/retry", of_2xx=Counts(requests=2, response_bytes=2, retries=1))


def test_a_client_that_leaves_while_it_waits(counted: Counted, seen: Seen) -> None:
    with counted.relay.client() as client:
        client.send(request_bytes("GET", "/left-waiting/hold"))
        eventually(seen.all)
    row = counted.expect("/left-waiting", client_left=Counts(requests=1))
    assert row.heads.count == 0


def test_a_client_that_leaves_while_it_reads(counted: Counted) -> None:
    with counted.relay.client() as client:
        client.send(request_bytes("GET", "/left-reading" + sse(events=10_000, interval_ms=20, event_bytes=50)))
        client.read_head()
    outcomes = eventually(
        lambda: [row.outcomes for row in rows(counted.relay).values() if row.prefix == "/left-reading"], DEADLINE_S
    )
    left = outcomes[0]["client_left"]
    assert (left.requests, left.truncated) == (1, 1)
    row = counted.expect("/left-reading", client_left=left)
    assert row.heads.count == 1


def test_a_client_that_leaves_while_it_sends(counted: Counted, seen: Seen) -> None:
    with counted.relay.client() as client:
        client.send(request_bytes("POST", "/left-sending/echo", [(b"Content-Length", b"10")]) + b"hello")
        eventually(lambda: seen.all() and seen.one().body_bytes == 5)
    counted.expect("/left-sending", bad_request=Counts(requests=1, request_bytes=5))


def test_pipelined_requests(counted: Counted) -> None:
    with counted.relay.client() as client:
        client.send(request_bytes("GET", "/pipelined" + answer(body="ok")) * 5)
        for _ in range(5):
            assert client.read_response().status == 200
    counted.expect("/pipelined", of_2xx=Counts(requests=5, response_bytes=10))


def test_a_tunnel_counts_once_at_its_end(counted: Counted) -> None:
    with counted.relay.client() as wire:
        client = WebSocketClient(wire)
        assert client.handshake("/tunnel/echo").status == 101
        client.send(TEXT, b"hello")
        client.send(BINARY, bytes(1000))
        assert client.receive_message().payload == b"hello"
        assert len(client.receive_message().payload) == 1000
        assert "/tunnel" not in rows(counted.relay)
        client.send(CLOSE, close_payload(1000))
        assert client.receive_close()[0] == 1000
    row = counted.expect("/tunnel", of_1xx=Counts(requests=1, request_bytes=1005, response_bytes=1005))
    assert (row.durations.count, row.heads.count, row.overheads.count, row.upstreams.count) == (0, 1, 1, 0)


def test_a_refused_handshake(counted: Counted) -> None:
    with counted.relay.client() as wire:
        response = WebSocketClient(wire).handshake("/tunnel-refused/refuse")
    assert response.status == 401
    row = counted.expect("/tunnel-refused", of_4xx=Counts(requests=1, response_bytes=len(response.body)))
    assert (row.durations.count, row.heads.count) == (1, 1)


def test_tunnels_that_break_off(counted: Counted) -> None:
    with counted.relay.client() as wire:
        client = WebSocketClient(wire)
        assert client.handshake("/tunnel-left/echo").status == 101
        client.send(TEXT, b"hello")
        assert client.receive_message().payload == b"hello"
        wire.reset()
    counted.expect("/tunnel-left", client_left=Counts(requests=1, request_bytes=5, response_bytes=5, truncated=1))
    with counted.relay.client() as wire:
        client = WebSocketClient(wire)
        assert client.handshake("/tunnel-cut/abort").status == 101
        assert client.receive_message().payload == b"before"
        assert client.receive_close()[0] is None
    counted.expect("/tunnel-cut", truncated=Counts(requests=1, response_bytes=6, truncated=1))


def test_what_a_drain_breaks_off_and_what_it_lets_end(
    farm: RelayFarm, store: Store, upstream: UpstreamInThread, seen: Seen
) -> None:
    routes = {f"/{name}": upstream.url for name in ("ends", "waits", "streams")}
    relay = farm.start(settings(store, routes, drain_timeout_s=0.7))
    ends, waits, streams = relay.client(), relay.client(), relay.client()
    ends.send(request_bytes("GET", "/ends" + answer(body="late", head_delay_ms=300)))
    waits.send(request_bytes("GET", "/waits/hold"))
    streams.send(request_bytes("GET", "/streams" + sse(events=1000, interval_ms=50)))
    streams.read_head()
    eventually(lambda: len(seen.all()) == 3)
    relay.signal(signal.SIGTERM)
    assert ends.read_response().body == b"late"
    with suppress(ClosedEarlyError):
        assert waits.read_response().status == 503
    assert relay.wait() == 0
    for client in (ends, waits, streams):
        client.close()
    relay.excuse_output()
    farm.stop(relay)
    outcomes = {prefix: row.outcomes for prefix, row in rows(relay).items()}
    streamed = outcomes["/streams"]["draining"].response_bytes
    assert outcomes == {
        "/ends": {"2xx": Counts(requests=1, response_bytes=4)},
        "/waits": {"draining": Counts(requests=1)},
        "/streams": {"draining": Counts(requests=1, response_bytes=streamed, truncated=1)},
    }


def test_a_reload_keeps_counts_and_running_requests(farm: RelayFarm, store: Store, upstream: UpstreamInThread) -> None:
    routes = {"/up": upstream.url, "/gone": upstream.url}
    relay = farm.start(settings(store, routes))
    with relay.client() as client:
        client.send(request_bytes("GET", "/gone" + sse(events=20, interval_ms=50, event_bytes=50)))
        response = client.read_head()
        assert relay.get("/up/echo").status == 200
        relay.configuration["routes"] = {"/up": upstream.url, "/new": upstream.url}
        relay.write_configuration()
        relay.signal(signal.SIGHUP)
        eventually(lambda: relay.get("/new" + answer(body="ok")).status == 200)
        assert relay.get("/up/echo").status == 200
        client.read_body(response)
    farm.stop(relay)
    found = rows(relay)
    assert found["/up"].outcomes["2xx"].requests == 2
    assert found["/gone"].outcomes == {"2xx": Counts(requests=1, response_bytes=len(response.body))}
    assert found["/new"].outcomes == {"2xx": Counts(requests=1, response_bytes=2)}


def test_a_retired_worker_tells_what_it_counts_to_its_end(
    farm: RelayFarm, store: Store, upstream: UpstreamInThread
) -> None:
    """Also what began before it was retired and was still running long after."""
    relay = farm.start(settings(store, {"/up": upstream.url}))
    assert relay.process is not None
    old = descendants(relay.process.pid)
    with relay.client() as client:
        client.send(request_bytes("GET", "/up" + sse(events=60, interval_ms=50, event_bytes=50)))
        response = client.read_head()
        relay.configuration["server"]["header_timeout_s"] = 1
        relay.write_configuration()
        relay.signal(signal.SIGHUP)
        eventually(lambda: descendants(relay.process.pid) - old)  # type: ignore[union-attr]
        client.read_body(response)
        assert client.request("GET", "/up/echo").status == 200
    eventually(lambda: requests_told(relay, "/up") == 2, DEADLINE_S)
    farm.stop(relay)
    assert rows(relay)["/up"].outcomes["2xx"].requests == 2


def test_what_is_switched_off_counts_nothing(farm: RelayFarm, store: Store, upstream: UpstreamInThread) -> None:
    relay = farm.start(settings(store, {"/up": upstream.url}), environment={"ENABLE_STATS": "false"})
    assert relay.get("/up/echo").status == 200
    assert relay.get("/nowhere").status == 404
    eventually(lambda: workers(relay), DEADLINE_S)
    farm.stop(relay)
    assert deltas(relay) == []
    assert workers(relay) == []


def test_without_a_redis_nothing_is_counted(farm: RelayFarm, upstream: UpstreamInThread) -> None:
    relay = farm.start({"routes": {"/up": upstream.url}})
    assert relay.get("/up/echo").status == 200
    farm.stop(relay)
    assert not (relay.directory / "data").exists()


def test_workers_say_that_they_live(farm: RelayFarm, store: Store, upstream: UpstreamInThread) -> None:
    relay = farm.start(settings(store, {"/up": upstream.url}, workers=2))
    found = eventually(lambda: len(workers(relay)) == 2 and workers(relay), DEADLINE_S)
    assert found
    assert {state.pid for state in found} <= relay.pids()
    with relay.client() as client:
        client.send(request_bytes("GET", "/up" + sse(events=1000, interval_ms=50)))
        client.read_head()
        eventually(lambda: sum(state.in_flight for state in workers(relay)) == 1, DEADLINE_S)
    before = {state.name: state.time_s for state in workers(relay)}
    eventually(lambda: all(state.time_s > before[state.name] for state in workers(relay)), DEADLINE_S)
    farm.stop(relay)
    assert workers(relay) == []


def test_figures_are_answered_where_they_are_wanted(farm: RelayFarm, store: Store, upstream: UpstreamInThread) -> None:
    relay = farm.start(settings(store, {"/up": upstream.url}, stats_path="/-/stats"))
    assert relay.get("/-/stats").status == 503
    with asked(relay) as client:
        client.set(SUMMARY, b'{"total": 7}')
    eventually(lambda: relay.get("/-/stats?x").body == b'{"total": 7}', DEADLINE_S)
    with asked(relay) as client:
        client.delete(SUMMARY)
    eventually(lambda: relay.get("/-/stats").status == 503, DEADLINE_S)
    farm.stop(relay)
    assert deltas(relay) == []


# ---- who dies meanwhile ---------------------------------------------------------------------------------------------

CLIENTS = 8


class Load:
    """Clients that ask as fast as they are answered, and count their answers."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.answers = [0] * CLIENTS
        self._stop = Event()
        self._threads = ThreadPoolExecutor(CLIENTS)

    def __enter__(self) -> "Load":
        self._running = [self._threads.submit(self._ask, number) for number in range(CLIENTS)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._threads.shutdown()
        for each in self._running:
            each.result()

    @property
    def answered(self) -> int:
        return sum(self.answers)

    def go_on(self, answers: int = 500) -> None:
        """Waits until so many more have come."""
        wanted = self.answered + answers
        eventually(lambda: self.answered >= wanted, DEADLINE_S)

    def _ask(self, number: int) -> None:
        while not self._stop.is_set():
            with suppress(ClosedEarlyError, OSError), self.relay.client() as client:
                while not self._stop.is_set():
                    assert client.request("GET", "/up" + answer(body="ok")).status == 200
                    self.answers[number] += 1


def worker_pids(relay: Relay) -> set[int]:
    return {state.pid for state in workers(relay)} & relay.pids()


def told_of(relay: Relay, load: Load, lost_max: int = 0) -> int:
    """Waits until as many requests have been told as were answered, but for so many; returns how many."""
    eventually(lambda: requests_told(relay, "/up") >= load.answered - lost_max, DEADLINE_S)
    return requests_told(relay, "/up")


def test_a_killed_worker_takes_no_count_along(farm: RelayFarm, store: Store, upstream: UpstreamInThread) -> None:
    relay = farm.start(settings(store, {"/up": upstream.url}, workers=2))
    eventually(lambda: len(worker_pids(relay)) == 2, DEADLINE_S)
    with Load(relay) as load:
        for _ in range(3):
            load.go_on()
            os.kill(min(worker_pids(relay)), signal.SIGKILL)
            load.go_on()
            eventually(lambda: len(worker_pids(relay)) >= 2, DEADLINE_S)
    relay.excuse_output()
    told = told_of(relay, load, 3 * CLIENTS)
    farm.stop(relay)
    assert abs(requests_told(relay, "/up") - load.answered) <= 3 * CLIENTS, "more than what was in flight"
    assert requests_told(relay, "/up") >= told
    assert list((relay.directory / "data" / "statistics").iterdir()) == []


def test_what_was_counted_is_told_after_all_were_killed(
    farm: RelayFarm, store: Store, upstream: UpstreamInThread
) -> None:
    relay = farm.start(settings(store, {"/up": upstream.url}, workers=2))
    answered = 0
    with relay.client() as client:
        began_s = time.monotonic()
        while time.monotonic() - began_s < 1.5:
            assert client.request("GET", "/up" + answer(body="ok")).status == 200
            answered += 1
        # A request is counted at its end, which its client may see first. The worker's next answer comes later.
        assert client.request("GET", "/healthz").status == 200
    farm.alive.remove(relay)
    relay.signal(signal.SIGSTOP)  # or it would replace a worker that is killed before itself
    relay.kill()
    relay.excuse_output()
    assert list((relay.directory / "data" / "statistics").iterdir())
    relay.start()
    farm.alive.append(relay)
    eventually(lambda: requests_told(relay, "/up") == answered, DEADLINE_S)
    farm.stop(relay)
    assert requests_told(relay, "/up") == answered
    assert list((relay.directory / "data" / "statistics").iterdir()) == []


def test_what_is_counted_without_redis_is_told_when_it_is_back(
    farm: RelayFarm, store: Store, upstream: UpstreamInThread
) -> None:
    relay = farm.start(settings(store, {"/up": upstream.url}))
    with Load(relay) as load:
        load.go_on()
        store.stop()
        try:
            load.go_on(1500)
        finally:
            store.start()
        load.go_on()
    assert told_of(relay, load) == load.answered
    assert [state.unsent for state in workers(relay)] in ([0], [load.answered])
    farm.stop(relay)
    assert requests_told(relay, "/up") == load.answered


def test_what_an_end_without_redis_leaves_is_told_by_the_next_start(
    farm: RelayFarm, store: Store, upstream: UpstreamInThread
) -> None:
    relay = farm.start(settings(store, {"/up": upstream.url}, workers=2))
    with Load(relay) as load:
        load.go_on()
        store.stop()
        load.go_on()
    farm.stop(relay)
    assert "could not be told; the next worker here will tell" in relay.output()
    store.start()
    assert requests_told(relay, "/up") < load.answered
    relay.start()
    farm.alive.append(relay)
    assert told_of(relay, load) == load.answered
    farm.stop(relay)
    assert requests_told(relay, "/up") == load.answered
    assert list((relay.directory / "data" / "statistics").iterdir()) == []


def test_where_nothing_can_be_written_all_is_counted_and_told(
    farm: RelayFarm, store: Store, upstream: UpstreamInThread, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    relay = farm.start({**settings(store, {"/up": upstream.url}), "data_dir": str(tmp_path / "file")})
    for _ in range(3):
        assert relay.get("/up" + answer(body="ok")).status == 200
    farm.stop(relay)
    assert requests_told(relay, "/up") == 3
    assert relay.output().count("statistics cannot be kept on disk") == 1
