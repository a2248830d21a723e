"""Memory stays flat, whatever the sizes and however slow the other side (C31, C57): the cheap versions.

The full-size runs (1 GiB, eight at once) are `loadtests/compare.py`'s. Here bodies are hundreds of times larger than
the windows, so that a body held in memory shows.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from loadtests import fake_upstream
from loadtests.fake_behaviours import pattern_slice
from loadtests.fake_upstream import UpstreamInThread
from tests.end_to_end.asking import answer, sse
from tests.end_to_end.harness import RelayFarm, Seen
from tests.end_to_end.process_tree import established_to
from tests.end_to_end.raw_client import DEADLINE_S, BodyEnd, RawClient, request_bytes
from tests.end_to_end.relay_process import Relay
from tests.end_to_end.waiting import eventually, settled

BODY_BYTES = 48 << 20
GROWTH_BYTES_MAX = 16 << 20
UPLOADS = 8
# Windows of 32 KB in each of a stream's few buffers would come to 2 or 3 MiB for all of them together.
DOWNLOADS = 16


@pytest.fixture(name="lean", scope="module")
def fixture_lean(farm: RelayFarm, upstream: UpstreamInThread) -> Iterator[Relay]:
    """A relay of its own, warmed up, so that what others left behind is not counted."""
    with farm.running({"server": {"access_log": False}, "routes": {"/up": upstream.url}}) as relay:
        for _ in range(50):
            assert relay.request("POST", "/up/echo", [], bytes(100_000)).status == 200
        yield relay


class Peak:
    """The highest memory of a relay while the block runs."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.before_bytes = relay.memory_bytes()
        self.highest_bytes = self.before_bytes

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self.highest_bytes = max(self.highest_bytes, self._relay.memory_bytes())

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def assert_flat(self) -> None:
        grown = self.highest_bytes - self.before_bytes
        assert grown < GROWTH_BYTES_MAX, f"grew by {grown >> 20} MiB"


def in_threads(work: Callable[[], None], count: int) -> list[threading.Thread]:
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def push(client: RawClient, body_bytes: int, over: threading.Event) -> None:
    """Send so much, as fast as the other side takes it, until the test is over or the connection is."""
    piece, left = memoryview(bytes(65_536)), body_bytes
    client.socket.settimeout(0.2)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while left and not over.is_set():
            with contextlib.suppress(TimeoutError):
                left -= client.socket.send(piece[:left])


@pytest.fixture(name="deaf", scope="module")
def fixture_deaf(farm: RelayFarm) -> Iterator[tuple[Relay, UpstreamInThread]]:
    """A relay and an upstream that nobody else uses, so that the sockets between them can be counted."""
    with (
        fake_upstream.running_in_thread() as upstream,
        farm.running({"server": {"access_log": False}, "routes": {"/up": upstream.url}}) as relay,
    ):
        for _ in range(50):
            assert relay.request("POST", "/up/echo", [], bytes(100_000)).status == 200
        yield relay, upstream


@pytest.mark.parametrize("read", ["read=slow&read_bytes_per_s=500000", "read=none&head_delay_ms=15000"])
def test_c31_uploads_to_a_slow_upstream_are_held_up_not_held(deaf: tuple[Relay, UpstreamInThread], read: str) -> None:
    """Eight clients push; the upstream reads slowly or not at all. The relay keeps windows, not bodies.

    Then the clients leave (C63): no upload may stay behind, waiting for an upstream that takes nothing.
    """
    relay, upstream = deaf
    clients = [relay.client() for _ in range(UPLOADS)]
    with Peak(relay) as peak:
        for client in clients:
            client.send(request_bytes("POST", f"/up/answer?{read}", [(b"Content-Length", b"%d" % BODY_BYTES)]))
        over = threading.Event()
        senders = [threading.Thread(target=push, args=(client, BODY_BYTES, over)) for client in clients]
        for sender in senders:
            sender.start()
        eventually(lambda: established_to(upstream.port) >= UPLOADS)
        time.sleep(1.5)  # long enough for a relay that does not hold back to have taken all
        still_sending = sum(sender.is_alive() for sender in senders)
        over.set()
        for sender in senders:
            sender.join()
        for client in clients:
            client.reset()
    peak.assert_flat()
    assert still_sending == UPLOADS, "a slow upstream did not slow its client down"
    eventually(lambda: established_to(upstream.port) <= 1, 3.0, what="the close of the uploads' connections")


def test_c31_a_large_upload_arrives_whole(lean: Relay, seen: Seen) -> None:
    with Peak(lean) as peak, lean.client() as client:
        client.send(request_bytes("POST", "/up/echo", [(b"Content-Length", b"%d" % BODY_BYTES)]))
        push(client, BODY_BYTES, threading.Event())
        client.socket.settimeout(DEADLINE_S)
        assert client.read_response().json()["body_bytes"] == BODY_BYTES
    peak.assert_flat()
    assert seen.one().complete


def test_c57_clients_that_do_not_read_pause_their_upstreams(farm: RelayFarm, upstream: UpstreamInThread) -> None:
    """A fresh relay, so that no memory that others needed before hides what these streams hold."""
    with farm.running({"routes": {"/up": upstream.url}}) as relay:
        seen = Seen(upstream)
        with Peak(relay) as peak:
            clients = [relay.client(receive_buffer_bytes=65_536) for _ in range(DOWNLOADS)]
            for client in clients:
                client.send(request_bytes("GET", "/up" + answer(body_bytes=1 << 30)))
                assert client.read_head().status == 200
            eventually(lambda: len(seen.all()) == DOWNLOADS)
            time.sleep(1)  # long enough for a relay that does not pause to have taken far more than its windows
            assert not any(recorded.peer_closed_s for recorded in seen.all())
            for client in clients:
                client.reset()
        peak.assert_flat()
        eventually(lambda: all(recorded.peer_closed_s for recorded in seen.all()), what="the close of all upstreams")


def test_c57_a_slow_client_gets_every_byte(lean: Relay) -> None:
    """Paused and resumed many times, the body is whole and in order."""
    size = 12 << 20
    with Peak(lean) as peak, lean.client(receive_buffer_bytes=32_768) as client:
        client.send(request_bytes("GET", "/up" + answer(body_bytes=size)))
        response = client.read_head()
        for _ in range(20):
            time.sleep(0.02)
            client.receive_more()
        client.read_body(response)
    assert response.end is BodyEnd.COMPLETE
    assert response.body == pattern_slice(0, size)
    peak.assert_flat()


def test_c57_other_streams_are_not_starved(lean: Relay) -> None:
    """While firehoses run into clients that do not read and one that does, small requests are answered at once."""
    stalled = [lean.client(receive_buffer_bytes=32_768) for _ in range(4)]
    firehose = lean.client()
    for client in [*stalled, firehose]:
        client.send(request_bytes("GET", "/up" + answer(body_bytes=1 << 30)))
        client.read_head()
    drinking = in_threads(lambda: drink(firehose, 1.5), 1)
    waits = []
    for _ in range(20):
        started_s = time.monotonic()
        assert lean.get("/healthz").status == 200
        waits.append(time.monotonic() - started_s)
    for client in stalled:
        client.reset()
    for thread in drinking:
        thread.join()
    firehose.reset()
    assert sorted(waits)[len(waits) // 2] < 0.25


def drink(client: RawClient, for_s: float) -> None:
    end_s = time.monotonic() + for_s
    while time.monotonic() < end_s and client.read_some():
        time.sleep(0.001)  # leaves the machine to others


def test_a_long_event_stream_leaves_nothing_behind(lean: Relay) -> None:
    with Peak(lean) as peak:
        response = lean.get("/up" + sse(events=20_000, event_bytes=500))
    assert response.body.count(b"\n\n") == 20_000
    peak.assert_flat()


def test_many_requests_leave_nothing_behind(lean: Relay) -> None:
    """Two thousand of all kinds, and what is kept afterwards is what was kept before."""
    targets = ["/up/echo", "/nowhere", "/up" + answer(framing="chunked", body="x"), "/up/die", "/base/..", "/healthz"]

    def ask_all() -> None:
        with lean.client() as client:
            for number in range(1000):
                if client.request("GET", targets[number % len(targets)]).status == 400:
                    break

    ask_all()
    before = settled(lambda: lean.memory_bytes() >> 20)
    ask_all()
    assert settled(lambda: lean.memory_bytes() >> 20) - before <= 2
