"""Who gets which request: by each balancer, by what a request is for, and while a backend drains."""

import select
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.end_to_end import backends as backend_servers
from tests.end_to_end.backends import ACCEPT_EVENTS, Backends, Does, backend_of, open_stream
from tests.end_to_end.balanced_load import WORKERS, BalancedLoad
from tests.end_to_end.harness import RelayFarm
from tests.end_to_end.raw_client import BodyEnd, RawClient, Response, request_bytes
from tests.end_to_end.relay_process import Relay
from tests.end_to_end.waiting import eventually, settled
from tests.end_to_end.websocket_crowd import met_by
from tests.end_to_end.websocket_frames import CLOSE, WebSocketClient, close_payload
from tests.end_to_end.worker_clients import clients_of_each_worker

WEIGHTS = {"a": 100, "b": 200, "c": 300}
BALANCERS = ("weight", "least_connections", "least_connections_weight", "performance_least_connections_weight")
ADDRESSES = [f"127.0.1.{number}" for number in range(1, 201)]
CONNECTIONS = 1000
ANSWER_S = 10.0
CAP = 2
QUEUE_MAX = 3
SHORT_WAIT_S = 0.4


@pytest.fixture(name="backends", scope="module")
def fixture_backends() -> Iterator[Backends]:
    with backend_servers.running(*WEIGHTS) as backends:
        yield backends


@pytest.fixture(name="balanced", scope="module")
def fixture_balanced(farm: RelayFarm, backends: Backends) -> Iterator[Relay]:
    """Two workers, and an upstream for each test, so that none has requests left of another."""
    all_of_them = backends.settings()
    weighted = [{**backend, "weight": WEIGHTS[backend["id"]]} for backend in all_of_them]
    upstreams: dict[str, Any] = {name: {"balancer": name, "backends": weighted} for name in BALANCERS}
    upstreams["ties"] = {"balancer": "least_connections", "backends": all_of_them}
    upstreams["draining"] = {"balancer": "least_connections", "backends": all_of_them}
    protocols = {"websocket": "ip_hash", "sse": "least_connections"}
    upstreams["mixed"] = {"balancer": "weight", "protocols": protocols, "backends": all_of_them}
    one_backend = [{**all_of_them[0], "max_connections": CAP}]
    upstreams["capped"] = {"backends": one_backend, "queue_max": QUEUE_MAX, "queue_wait_s": ANSWER_S}
    upstreams["impatient"] = {"backends": one_backend, "queue_wait_s": SHORT_WAIT_S}
    settings = {
        "server": {"workers": WORKERS, "access_log": False, "trusted_proxies": []},
        "upstreams": upstreams,
        "routes": {f"/{name}": {"upstream": name} for name in upstreams},
    }
    with farm.running(settings) as relay:
        yield relay


@pytest.fixture(autouse=True)
def _all_are_well(backends: Backends) -> Iterator[None]:
    backends.recover()
    yield
    backends.recover()


def test_requests_are_in_proportion_to_weights(balanced: Relay) -> None:
    """No backend is further than two requests from its share, in each worker."""
    with clients_of_each_worker(balanced, 1) as workers:
        for (client,) in workers:
            met = Counter(backend_of(client.request("GET", "/weight/")) for _ in range(60))
            assert {name: abs(met[name] - weight // 10) <= 2 for name, weight in WEIGHTS.items()} == dict.fromkeys(
                WEIGHTS, True
            ), met


@pytest.mark.parametrize(
    ("balancer", "expected"),
    [
        ("least_connections", {"a": 4, "b": 4, "c": 4}),
        ("least_connections_weight", {"a": 2, "b": 4, "c": 6}),
        ("performance_least_connections_weight", {"a": 2, "b": 4, "c": 6}),
    ],
)
def test_requests_that_run_are_even(
    balanced: Relay, backends: Backends, balancer: str, expected: dict[str, int]
) -> None:
    with clients_of_each_worker(balanced, 12) as (clients, _):
        assert Counter(backend_of(open_stream(client, f"/{balancer}")) for client in clients) == expected
        assert {backend.id: backend.running for backend in backends} == expected


def test_ties_are_met_by_chance(balanced: Relay) -> None:
    """Each has 100 of 300, give or take 60 or more with odds of 3 * 2 exp(-2 * 60 ** 2 / 300) < 1e-9 (Hoeffding)."""
    with balanced.client() as client:
        met = Counter(backend_of(client.request("GET", "/ties/")) for _ in range(300))
    assert all(abs(met[name] - 100) < 60 for name in WEIGHTS), met


def test_a_draining_backend_ends_its_streams_and_gets_nothing_new(balanced: Relay, backends: Backends) -> None:
    _, draining, _ = backends

    def drain(*, drains: bool) -> None:
        balanced.configuration["upstreams"]["draining"]["backends"][1]["draining"] = drains
        balanced.write_configuration()
        balanced.signal(signal.SIGHUP)

    with clients_of_each_worker(balanced, 6) as workers:
        streams = [(client, open_stream(client, "/draining")) for clients in workers for client in clients]
        assert Counter(backend_of(stream) for _, stream in streams) == {"a": 4, "b": 4, "c": 4}
        with BalancedLoad(balanced, "/draining").running() as load:
            eventually(lambda: all(len(backend.took) > 20 for backend in backends), what="the use of all")
            drain(drains=True)
            settled(lambda: len(draining.took))
            before = len(draining.took)
            load.await_answers()
            assert len(draining.took) == before, "it has got new requests"
            assert draining.running == 4, "its streams run"
            draining.end_streams()
            for client, stream in streams:
                if backend_of(stream) == draining.id:
                    client.read_body(stream)
                    assert stream.end is BodyEnd.COMPLETE
                    assert stream.body.endswith(b"data: b\n\ndata: end\n\n")
            eventually(lambda: draining.running == 0, what="the end of its streams")
            assert all(backend.running >= 4 for backend in backends if backend is not draining)
            drain(drains=False)
            eventually(lambda: len(draining.took) > before + 20, what="its use again")
    assert load.failures() == []


def test_websockets_are_sticky_while_other_requests_are_not(balanced: Relay, backends: Backends) -> None:
    with clients_of_each_worker(balanced, 3) as (clients, _):
        streams = [(client, open_stream(client, "/mixed")) for client in clients]
        assert {backend_of(stream) for _, stream in streams} == set(WEIGHTS), "the fewest requests that run"
        with BalancedLoad(balanced, "/mixed", clients=4).running() as load:
            met = met_by(balanced.port, "/mixed/", ADDRESSES * (CONNECTIONS // len(ADDRESSES)))
        for backend in backends:
            backend.end_streams()
        for client, stream in streams:
            client.read_body(stream)
            assert stream.end is BodyEnd.COMPLETE
    assert {address: names for address, names in met.items() if len(names) != 1} == {}
    # Ids and addresses are always the same, and so are shares.
    shares = Counter(name for names in met.values() for name in names)
    assert all(shares[name] > len(ADDRESSES) // 4 for name in WEIGHTS), shares
    # The plain requests went to all in turn, whatever address they came from.
    assert load.failures() == []
    turns = Counter({backend.id: sum(took.marker != "" for took in backend.took) for backend in backends})
    assert max(turns.values()) - min(turns.values()) <= 4 * WORKERS, turns

    # Only clients of the one that goes meet another one.
    _, gone, _ = backends
    gone.becomes(Does.DEAD)
    then = met_by(balanced.port, "/mixed/", ADDRESSES)
    assert gone.id not in set().union(*then.values())
    moved = {address for address in ADDRESSES if then[address] != met[address]}
    assert moved == {address for address in ADDRESSES if met[address] == {gone.id}}


def assert_busy(response: Response) -> None:
    assert (response.status, response.error_type()) == (503, "backends_busy")
    assert int(response.value("retry-after")) >= 1


def first_answered(clients: Sequence[RawClient]) -> RawClient:
    """The first of them to which something is said."""
    sockets = {client.socket: client for client in clients}
    readable, _, _ = select.select(list(sockets), [], [], ANSWER_S)
    assert readable, "nobody was answered"
    return sockets[readable[0]]


def test_at_its_cap_a_backend_has_requests_wait(balanced: Relay, backends: Backends) -> None:
    """Who leaves gives up a place, be it at the backend or in the queue."""
    capped, *_ = backends
    with clients_of_each_worker(balanced, CAP + QUEUE_MAX + 1) as (clients, _):
        running, waiting = clients[:CAP], clients[CAP:]
        for client in running:
            assert backend_of(open_stream(client, "/capped")) == capped.id
        for client in waiting:
            client.send(request_bytes("GET", "/capped/"))
        refused = first_answered(waiting)
        assert_busy(refused.read_response())
        leaving, *staying = [client for client in waiting if client is not refused]
        leaving.close()
        running[0].close()
        for client in staying:
            assert backend_of(client.read_response()) == capped.id
        assert backend_of(refused.request("GET", "/capped/")) == capped.id
        assert capped.running_max == CAP


def test_nobody_waits_for_ever(balanced: Relay, backends: Backends) -> None:
    """WebSockets are requests that run, too."""
    capped, *_ = backends
    with clients_of_each_worker(balanced, CAP + 1) as ((tunnel, stream, client), _):
        websocket = WebSocketClient(tunnel)
        assert websocket.handshake("/impatient/").status == 101
        assert backend_of(open_stream(stream, "/impatient")) == capped.id
        began_s = time.monotonic()
        assert_busy(client.request("GET", "/impatient/"))
        assert time.monotonic() - began_s >= SHORT_WAIT_S
        websocket.send(CLOSE, close_payload(1000))
        tunnel.read_until_closed()
        eventually(lambda: client.request("GET", "/impatient/").status == 200, what="an answer")
        assert capped.running_max == CAP


@pytest.mark.parametrize("does", [Does.WELL, Does.HANGS])
def test_whoever_leaves_gives_up_a_place(balanced: Relay, backends: Backends, does: Does) -> None:
    """In whatever state: with an answer that has begun, with none, in the queue."""
    capped, *_ = backends
    capped.becomes(does)
    with clients_of_each_worker(balanced, CAP + QUEUE_MAX) as workers:
        everybody = [client for clients in workers for client in clients]
        for client in everybody:
            client.send(request_bytes("GET", "/capped/events", ACCEPT_EVENTS))
        eventually(lambda: capped.running == CAP * WORKERS, what="all places taken")
        for client in everybody:
            client.reset()
        eventually(lambda: capped.running == 0, what="the end of all requests")
    capped.becomes(Does.WELL)
    with clients_of_each_worker(balanced, CAP) as workers:
        for clients in workers:
            for client in clients:
                assert backend_of(open_stream(client, "/capped")) == capped.id
