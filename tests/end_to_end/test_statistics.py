"""Every request of a real relay is counted exactly once, whichever way it ends.

The deltas of its workers come from `statistics_tap`, ten times a second. Most tests share a relay of two workers. Each
has a route of its own there, so it asserts all that was ever counted for it; when the relay has ended, all is compared
once more.
"""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadtests.fake_upstream import UpstreamInThread
from proxy.statistics import Counts, RouteCounts, StatisticsDelta, merged
from tests.end_to_end.asking import answer, sse
from tests.end_to_end.harness import BODY_BYTES_MAX, SHORT_TIMEOUT_S, Places, RelayFarm, Seen
from tests.end_to_end.raw_client import ClosedEarlyError, request_bytes
from tests.end_to_end.relay_process import REPOSITORY, Relay
from tests.end_to_end.waiting import eventually
from tests.end_to_end.websocket_frames import BINARY, CLOSE, TEXT, WebSocketClient, close_payload
from tests.end_to_end.websocket_upstream import WebSocketUpstream

TAP = {"PYTHONPATH": f"{Path(__file__).parent / 'statistics_tap'}:{REPOSITORY}"}
MARK = "statistics "
Outcomes = dict[str, Counts]


def deltas(relay: Relay) -> list[StatisticsDelta]:
    lines = [line for line in relay.output().splitlines() if line.startswith(MARK)]
    return [msgspec.json.decode(line.removeprefix(MARK), type=StatisticsDelta) for line in lines]


def rows(relay: Relay) -> dict[str, RouteCounts]:
    """All that has been counted so far, by prefix."""
    return {row.prefix: row for row in merged(row for delta in deltas(relay) for row in delta.routes)}


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
            return eventually(has_come)  # type: ignore[return-value]
        except AssertionError:
            raise AssertionError(f"{rows(self.relay).get(prefix)}, expected {expected}") from None


@pytest.fixture(name="counted", scope="module")
def fixture_counted(
    farm: RelayFarm, upstream: UpstreamInThread, websockets: WebSocketUpstream, places: Places
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
    server = {"workers": 2, "access_log": False}
    relay = farm.start({"server": server, "routes": routes}, environment=TAP)
    counted = Counted(relay)
    yield counted
    farm.stop(relay)
    assert {prefix: row.outcomes for prefix, row in rows(relay).items()} == counted.expected
    for worker in {delta.worker for delta in deltas(relay)}:
        sequences = [delta.sequence for delta in deltas(relay) if delta.worker == worker]
        assert sequences == sorted(set(sequences))


def test_a_whole_exchange(counted: Counted) -> None:
    response = counted.relay.request("POST", "/whole" + answer(status=201, body="hello"), [], b"abc")
    assert response.status == 201
    row = counted.expect("/whole", of_2xx=Counts(requests=1, request_bytes=3, response_bytes=5))
    assert (row.durations.count, row.heads.count) == (1, 1)
    assert 0 < row.heads.sum_us <= row.durations.sum_us < 5_000_000


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
    assert row.durations.count == row.heads.count == 800
    assert row.authority == upstream.authority
    workers = {delta.worker for delta in deltas(counted.relay)}
    assert len(workers) == 2, "one of the workers had nothing to count"


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
    assert (row.durations.count, row.heads.count) == (1, 0)
    counted.expect("/limited", body_too_large=Counts(requests=1))
    row = counted.expect("/head-timeout", head_timeout=Counts(requests=1))
    assert row.durations.sum_us >= SHORT_TIMEOUT_S * 900_000


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
        lambda: [row.outcomes for row in rows(counted.relay).values() if row.prefix == "/left-reading"]
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
    assert (row.durations.count, row.heads.count) == (0, 1)


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


def test_what_a_drain_breaks_off_and_what_it_lets_end(farm: RelayFarm, upstream: UpstreamInThread, seen: Seen) -> None:
    routes = {f"/{name}": upstream.url for name in ("ends", "waits", "streams")}
    relay = farm.start({"server": {"drain_timeout_s": 0.7, "access_log": False}, "routes": routes}, environment=TAP)
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
    assert relay.wait(5) == 0
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
    assert deltas(relay)[-1].in_flight == 0


def test_a_reload_keeps_counts_and_running_requests(farm: RelayFarm, upstream: UpstreamInThread) -> None:
    routes = {"/up": upstream.url, "/gone": upstream.url}
    relay = farm.start({"server": {"access_log": False}, "routes": routes}, environment=TAP)
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


def test_what_is_switched_off_counts_nothing(farm: RelayFarm, upstream: UpstreamInThread) -> None:
    relay = farm.start({"routes": {"/up": upstream.url}}, environment=TAP | {"ENABLE_STATS": "false"})
    assert relay.get("/up/echo").status == 200
    assert relay.get("/nowhere").status == 404
    farm.stop(relay)
    assert deltas(relay) == []
