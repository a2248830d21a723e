"""One of three backends fails under constant load, in each way that there is: no idempotent request is lost by it.

What is not idempotent is processed once at most. How long it takes until a backend is left alone, and until it gets
requests again, is printed (`pytest -s`).
"""

import time
from collections.abc import Iterator

import pytest

from tests.end_to_end import backends as backend_servers
from tests.end_to_end.backends import Backend, Backends, Does
from tests.end_to_end.balanced_load import ANSWERS, DEADLINE_S, WORKERS, BalancedLoad
from tests.end_to_end.harness import RelayFarm
from tests.end_to_end.relay_process import Relay
from tests.end_to_end.waiting import eventually
from tests.end_to_end.websocket_crowd import met_by
from tests.end_to_end.worker_clients import clients_of_each_worker

EJECTION = {"ejection_s": 0.5, "ejection_max_s": 1.0}
BAD = (Does.DEAD, Does.HANGS, Does.FAILS, Does.CLOSES, Does.GONE)
FLAPS = (Does.DEAD, Does.CLOSES, Does.FAILS)
FLAP_ANSWERS = 40
WEBSOCKETS = 40
SMALL_SHARE = 0.05
HASTY = {"connect_timeout_s": 1.0, "head_timeout_s": 1.0}


@pytest.fixture(name="backends", scope="module")
def fixture_backends() -> Iterator[Backends]:
    with backend_servers.running("a", "b", "c") as backends:
        yield backends


@pytest.fixture(name="balanced", scope="module")
def fixture_balanced(farm: RelayFarm, backends: Backends) -> Iterator[Relay]:
    """Two workers. With `/turns`, the backend that fails gets its share of requests until it is left alone."""
    balancers = {"turns": "weight", "latency": "least_latency"}
    settings = {
        "server": {"workers": WORKERS, "access_log": False},
        "upstreams": {
            name: {"balancer": balancer, "backends": backends.settings(), "ejection": EJECTION}
            for name, balancer in balancers.items()
        },
        "routes": {f"/{name}": {"upstream": name, **HASTY} for name in balancers},
    }
    with farm.running(settings) as relay:
        yield relay


@pytest.fixture(autouse=True)
def _all_are_well(backends: Backends) -> Iterator[None]:
    backends.recover()
    yield
    backends.recover()


@pytest.fixture(name="bad")
def fixture_bad(backends: Backends) -> Backend:
    """The backend that will fail where requests go to each in turn."""
    _, bad, _ = backends
    return bad


def favourite(load: BalancedLoad, backends: Backends) -> Backend:
    """The one that has the most requests. Who happened to be slow once may have none for a while."""
    load.await_answers()
    return max(backends, key=lambda backend: len(backend.took))


def ejections(relay: Relay, bad: Backend) -> int:
    """How often a worker has left it alone, where it gets requests in turns."""
    return relay.output().count(f"backend {bad.id} of upstream turns is left alone")


def await_use(bad: Backend, since_s: float) -> None:
    eventually(lambda: bad.reached_s > since_s, DEADLINE_S, what="its next request")


def assert_nothing_lost(load: BalancedLoad, backends: Backends) -> None:
    """No idempotent request failed; no other one was processed twice, and none that succeeded not at all."""
    assert load.idempotent_failures() == []
    processed = backends.processed()
    assert [asked for asked in load.posts() if processed[asked.marker] > 1] == []
    assert [asked for asked in load.posts() if asked.status == 200 and processed[asked.marker] != 1] == []
    assert len(load.workers()) == WORKERS


def report(what: str, load: BalancedLoad, began_s: float, said: str) -> None:
    posts = load.posts()
    lost = sum(1 for asked in posts if asked.failure)
    failed = f"{len(load.idempotent_failures())} idempotent ones and {lost} of {len(posts)} POSTs failed"
    print(f"\n{what}: of {load.answered} requests {failed}, longest answer {load.longest_s(began_s):.2f} s; {said}")


@pytest.mark.parametrize("does", BAD)
def test_a_backend_that_fails_is_left_alone(balanced: Relay, backends: Backends, bad: Backend, does: Does) -> None:
    with BalancedLoad(balanced, "/turns").running() as load:
        backends.await_use()
        goal = ejections(balanced, bad) + WORKERS
        began_s = bad.becomes(does)
        eventually(lambda: ejections(balanced, bad) >= goal, DEADLINE_S, what="each worker's ejection")
        alone_s = time.monotonic()
        load.await_answers()
        well_s = bad.becomes(Does.WELL)
        await_use(bad, well_s)
        back_s = bad.reached_s
        load.await_answers(ANSWERS // 3)
    alone_ms, back_ms = (alone_s - began_s) * 1000, (back_s - well_s) * 1000
    report(
        does, load, began_s, f"left alone {alone_ms:.0f} ms after it began, used again {back_ms:.0f} ms after its end"
    )
    assert_nothing_lost(load, backends)


@pytest.mark.parametrize("does", [Does.DEAD, Does.HANGS])
def test_a_backend_that_fails_where_latency_decides(balanced: Relay, backends: Backends, does: Does) -> None:
    """It has fewer requests to fail with then, and may not be ejected at all."""
    with BalancedLoad(balanced, "/latency").running() as load:
        bad = favourite(load, backends)
        began_s = bad.becomes(does)
        load.await_answers()
        well_s = bad.becomes(Does.WELL)
        await_use(bad, well_s)
        back_s = bad.reached_s
    report(f"{does}, least_latency", load, began_s, f"used again {(back_s - well_s) * 1000:.0f} ms after its end")
    assert_nothing_lost(load, backends)


@pytest.mark.parametrize("does", BAD)
def test_websockets_open_all_the_same(balanced: Relay, backends: Backends, bad: Backend, does: Does) -> None:
    """A handshake is a GET."""
    with clients_of_each_worker(balanced, 1) as workers:
        for (client,) in workers:
            eventually(lambda client=client: client.request("GET", "/turns/").value("x-backend") == bad.id.encode())  # type: ignore[misc]
    bad.becomes(does)
    met = met_by(balanced.port, "/turns/", ["127.0.0.1"] * WEBSOCKETS)
    assert met == {"127.0.0.1": {backend.id for backend in backends if backend is not bad}}


def test_a_backend_that_comes_and_goes(balanced: Relay, backends: Backends, bad: Backend) -> None:
    with BalancedLoad(balanced, "/turns").running() as load:
        backends.await_use()
        began_s = time.monotonic()
        for does in FLAPS:
            bad.becomes(does)
            load.await_answers(FLAP_ANSWERS)
            await_use(bad, bad.becomes(Does.WELL))
    report("comes and goes", load, began_s, f"{len(bad.took)} requests reached it")
    assert_nothing_lost(load, backends)


def test_all_fail_and_come_back(balanced: Relay, backends: Backends) -> None:
    """Clients are told at once while nobody is there, since there is nothing to wait for, and served again at once."""
    with BalancedLoad(balanced, "/turns").running() as load:
        backends.await_use()
        began_s = time.monotonic()
        for backend in backends:
            backend.becomes(Does.DEAD)
        load.await_answers()
        for backend in backends:
            well_s = backend.becomes(Does.WELL)
        backends.await_use()
        ended_s = time.monotonic()
        load.await_answers()
    told = [asked for asked in load.idempotent_failures() if began_s <= asked.began_s]
    report("all dead", load, began_s, f"all in use {(ended_s - well_s) * 1000:.0f} ms after that")
    assert {asked.status for asked in told} <= {502}
    assert [asked for asked in load.idempotent_failures() if asked.ended_s < began_s or asked.began_s > well_s] == []


def test_a_backend_that_becomes_slow_gets_few_requests(balanced: Relay, backends: Backends) -> None:
    """With least_latency. In turns it would have a third of all, whatever it takes."""
    with BalancedLoad(balanced, "/latency").running() as load:
        slow = favourite(load, backends)
        began_s = slow.becomes(Does.SLOW)

        def share() -> float:
            """Its share of the next requests."""
            before_all, before = load.answered, len(slow.took)
            load.await_answers()
            return (len(slow.took) - before) / (load.answered - before_all)

        first = share()
        eventually(lambda: share() < SMALL_SHARE, DEADLINE_S, what="a small share")
    report("slow", load, began_s, f"its share of the first requests was {first:.3f}")
    assert_nothing_lost(load, backends)
