"""Stopping and reloading under load (C68): what runs ends, what is left is counted, a reload loses nothing."""

import os
import re
import signal
import time
from contextlib import suppress

import pytest

from loadtests.fake_upstream import UpstreamInThread
from tests.end_to_end.asking import answer, sse
from tests.end_to_end.harness import RelayFarm, Seen
from tests.end_to_end.load import Load
from tests.end_to_end.raw_client import BodyEnd, ClosedEarlyError, RawClient, request_bytes
from tests.end_to_end.relay_process import Relay
from tests.end_to_end.waiting import eventually
from tests.end_to_end.websocket_frames import TEXT, WebSocketClient
from tests.end_to_end.websocket_upstream import WebSocketUpstream


def start(farm: RelayFarm, upstream: UpstreamInThread, *, drain_timeout_s: float = 10, workers: int = 1) -> Relay:
    server = {"drain_timeout_s": drain_timeout_s, "workers": workers}
    return farm.start({"server": server, "routes": {"/up": upstream.url}})


def begin(relay: Relay, path: str) -> RawClient:
    client = relay.client()
    client.send(request_bytes("GET", f"/up{path}"))
    return client


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_c68_running_streams_end_before_the_relay_does(
    farm: RelayFarm, upstream: UpstreamInThread, seen: Seen, number: signal.Signals
) -> None:
    relay = start(farm, upstream)
    stream = begin(relay, sse(events=10, interval_ms=100))
    response = stream.read_head()
    waiting = begin(relay, answer(body="late", head_delay_ms=800))
    eventually(lambda: len(seen.all()) == 2)
    relay.signal(number)
    stream.read_body(response)
    assert (response.body.count(b"\n\n"), response.end) == (10, BodyEnd.COMPLETE)
    late = waiting.read_response()
    assert (late.status, late.body) == (200, b"late")
    stream.close()
    waiting.close()
    assert relay.wait(3) == 0
    farm.stop(relay)


def test_c68_an_upload_that_runs_is_finished(farm: RelayFarm, upstream: UpstreamInThread, seen: Seen) -> None:
    relay = start(farm, upstream)
    with relay.client() as client:
        client.send(request_bytes("POST", "/up/echo", [(b"Content-Length", b"10")]) + b"hello")
        eventually(lambda: seen.all() and seen.one().body_bytes == 5)
        relay.signal(signal.SIGTERM)
        time.sleep(0.3)  # the second half comes when the drain has begun
        client.send(b"world")
        assert client.read_response().status == 200
    assert bytes(seen.one().body) == b"helloworld"
    assert relay.wait(3) == 0
    farm.stop(relay)


def test_c68_new_connections_are_refused_while_draining(
    farm: RelayFarm, upstream: UpstreamInThread, seen: Seen
) -> None:
    relay = start(farm, upstream)
    stream = begin(relay, sse(events=20, interval_ms=100))
    response = stream.read_head()
    relay.signal(signal.SIGTERM)
    eventually(lambda: is_refused(relay), 1.0, what="the refusal of new connections")
    before = len(seen.all())
    for _ in range(5):
        assert is_refused(relay)
    assert len(seen.all()) == before
    stream.read_body(response)
    assert response.body.count(b"\n\n") == 20
    stream.close()
    assert relay.wait(3) == 0
    farm.stop(relay)


def is_refused(relay: Relay) -> bool:
    """Whether a new client is turned away: by the kernel, by a close, or by a 503."""
    try:
        return relay.get("/up/nothing-here").status == 503
    except (ConnectionRefusedError, ConnectionResetError, ClosedEarlyError):
        return True


def test_c68_idle_connections_do_not_hold_the_end_up(farm: RelayFarm, upstream: UpstreamInThread) -> None:
    relay = start(farm, upstream, drain_timeout_s=20)
    idle = [relay.client() for _ in range(5)]
    for client in idle:
        assert client.request("GET", "/up/echo").status == 200
    silent = relay.client()
    started_s = time.monotonic()
    relay.signal(signal.SIGTERM)
    assert relay.wait(6) == 0
    assert time.monotonic() - started_s < 5
    for client in [*idle, silent]:
        client.close()
    farm.stop(relay)


def test_c68_what_is_left_at_the_deadline_is_cut_and_counted(
    farm: RelayFarm, upstream: UpstreamInThread, seen: Seen
) -> None:
    """The clients see an error, the upstream a close, the operator a number and exit status 0."""
    relay = start(farm, upstream, drain_timeout_s=0.7)
    stream = begin(relay, sse(events=1000, interval_ms=50))
    response = stream.read_head()
    held = begin(relay, "/hold")
    eventually(lambda: len(seen.all()) == 2)
    started_s = time.monotonic()
    relay.signal(signal.SIGTERM)
    stream.read_body(response)
    assert response.end is not BodyEnd.COMPLETE
    with suppress(ClosedEarlyError):
        assert held.read_response().status == 503
    assert relay.wait(5) == 0
    assert 0.6 < time.monotonic() - started_s < 4
    eventually(lambda: all(recorded.peer_closed_s for recorded in seen.all()))
    assert re.search(r"\b2\b.*(left|request|stream)", relay.output()), relay.tail()
    stream.close()
    held.close()
    relay.excuse_output()
    farm.stop(relay)


def test_c68_a_second_signal_ends_the_waiting(farm: RelayFarm, upstream: UpstreamInThread, seen: Seen) -> None:
    relay = start(farm, upstream, drain_timeout_s=60)
    held = begin(relay, "/hold")
    eventually(seen.all)
    relay.signal(signal.SIGTERM)
    time.sleep(0.3)  # two signals at once are one
    relay.signal(signal.SIGTERM)
    assert relay.wait(6) == 0
    held.close()
    relay.excuse_output()
    farm.stop(relay)


def test_c68_two_workers_drain_together(farm: RelayFarm, upstream: UpstreamInThread, seen: Seen) -> None:
    relay = start(farm, upstream, workers=2)
    streams = [begin(relay, sse(events=8, interval_ms=100)) for _ in range(8)]
    responses = [stream.read_head() for stream in streams]
    relay.signal(signal.SIGTERM)
    for stream, response in zip(streams, responses, strict=True):
        stream.read_body(response)
        assert (response.body.count(b"\n\n"), response.end) == (8, BodyEnd.COMPLETE)
        stream.close()
    assert relay.wait(3) == 0
    assert len(seen.all()) == 8
    farm.stop(relay)


def test_c68_websockets_are_told_to_go(farm: RelayFarm, websockets: WebSocketUpstream) -> None:
    """A WebSocket has no end of its own to wait for: Granian says 1001 at once; both sides are closed, none is left."""
    relay = farm.start({"server": {"drain_timeout_s": 5}, "routes": {"/ws": websockets.url}})
    with relay.client() as wire:
        client = WebSocketClient(wire)
        assert client.handshake("/ws/echo").status == 101
        client.send(TEXT, b"here")
        assert client.receive_message().payload == b"here"
        relay.signal(signal.SIGTERM)
        assert client.receive_close()[0] in {1001, 1012}
    assert relay.wait(4) == 0
    eventually(lambda: websockets.open == 0)
    farm.stop(relay)


def reload(relay: Relay, routes: dict[str, object]) -> None:
    relay.configuration = {**relay.configuration, "routes": routes}
    relay.write_configuration()
    relay.signal(signal.SIGHUP)


@pytest.mark.parametrize("workers", [1, 2])
def test_sighup_reads_the_yaml_again_without_losing_a_request(
    farm: RelayFarm, upstream: UpstreamInThread, workers: int
) -> None:
    relay = start(farm, upstream, workers=workers)
    pids = relay.pids()
    load = Load(relay, "/up/echo", clients=4)
    with load.running():
        for number in range(6):
            seen_before = load.answered
            reload(relay, {"/up": upstream.url, f"/new{number}": upstream.url})
            eventually(lambda number=number: relay.get(f"/new{number}/echo").status == 200)  # type: ignore[misc]
            eventually(lambda before=seen_before: load.answered > before + 20)  # type: ignore[misc]
    assert load.failures == []
    eventually(lambda: relay.get("/new0/echo").status == 404)
    assert relay.pids() == pids
    farm.stop(relay)


def test_sighup_lets_running_streams_keep_their_route(farm: RelayFarm, upstream: UpstreamInThread) -> None:
    """A stream goes on though its route is gone, and a connection that is idle too is closed."""
    relay = start(farm, upstream)
    stream = begin(relay, sse(events=15, interval_ms=100))
    response = stream.read_head()
    reload(relay, {"/other": {"target": upstream.url, "connect_timeout_s": 3}})
    eventually(lambda: relay.get("/up/echo").status == 404)
    assert relay.get("/other/echo").status == 200
    stream.read_body(response)
    assert (response.body.count(b"\n\n"), response.end) == (15, BodyEnd.COMPLETE)
    stream.close()
    farm.stop(relay)


def test_sighup_with_bad_yaml_changes_nothing(farm: RelayFarm, upstream: UpstreamInThread) -> None:
    relay = start(farm, upstream)
    for bad in ("routes: [", "routes: {/up: 'ftp://x'}", "sever: {}", ""):
        printed = len(relay.output())
        relay.config_file.write_text(bad)
        relay.signal(signal.SIGHUP)
        if bad:
            eventually(lambda printed=printed: re.search("not reloaded", relay.output()[printed:]))  # type: ignore[misc]
            assert relay.get("/up/echo").status == 200
    relay.write_configuration()
    relay.signal(signal.SIGHUP)
    eventually(lambda: relay.get("/up/echo").status == 200)
    farm.stop(relay)


def test_a_storm_of_sighups_locks_nothing_up(farm: RelayFarm, upstream: UpstreamInThread) -> None:
    """Each interrupts the parent wherever it is, so its handler may neither take a lock nor write a log line."""
    relay = start(farm, upstream)
    for number in range(5000):
        relay.signal(signal.SIGHUP)
        time.sleep(number % 11 / 20_000)
    reload(relay, {"/up": upstream.url, "/after": upstream.url})
    eventually(lambda: relay.get("/after/echo").status == 200)
    farm.stop(relay)


def test_sighup_moves_a_route_to_another_target(farm: RelayFarm, upstream: UpstreamInThread) -> None:
    relay = start(farm, upstream)
    assert relay.get("/up/echo").json()["target"] == "/echo"
    reload(relay, {"/up": f"{upstream.url}/echo/moved"})
    eventually(lambda: relay.get("/up/x").status == 200)
    assert relay.get("/up/x").json()["target"] == "/echo/moved/x"
    farm.stop(relay)


def test_a_worker_that_is_killed_is_replaced(farm: RelayFarm, upstream: UpstreamInThread) -> None:
    """And the new one has the configuration of the last reload, not of the start."""
    relay = start(farm, upstream)
    reload(relay, {"/up": upstream.url, "/later": upstream.url})
    eventually(lambda: relay.get("/later/echo").status == 200)
    assert relay.process is not None
    before = relay.pids()
    for pid in before - {relay.process.pid}:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: relay.pids() - before and answers(relay), 10.0, what="a new worker")
    relay.excuse_output()
    farm.stop(relay)


def answers(relay: Relay) -> bool:
    try:
        return relay.get("/later/echo").status == 200
    except (OSError, ClosedEarlyError):
        return False
