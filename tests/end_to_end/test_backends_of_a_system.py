"""Backends of `relaygate serve`: what the control plane finds out about them, and what workers tell each other.

How long it takes until workers heed it is printed (`pytest -s`).
"""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.end_to_end import backends as backend_servers
from tests.end_to_end import key_pool
from tests.end_to_end.backends import Backend, Backends, Does, backend_of, open_stream
from tests.end_to_end.balanced_load import ANSWERS, DEADLINE_S, WORKERS, BalancedLoad
from tests.end_to_end.harness import RelayFarm
from tests.end_to_end.process_tree import is_alive
from tests.end_to_end.raw_client import BodyEnd, RawClient
from tests.end_to_end.relay_process import CANARY
from tests.end_to_end.system import System
from tests.end_to_end.waiting import eventually
from tests.end_to_end.worker_clients import clients_of_each_worker

REDIS = r"redis-server|valkey-server"
ADMIN = r"-m admin admin"
INTERVAL_S = 0.2
FAILURES = 2
CAP = 4
CROWD = 24
WAIT_S = 1.0
KEYS = 3


@pytest.fixture(name="backends", scope="module")
def fixture_backends() -> Iterator[Backends]:
    with backend_servers.running("a", "b", "c") as backends:
        yield backends


@pytest.fixture(name="system", scope="module")
def fixture_system(farm: RelayFarm, backends: Backends) -> Iterator[System]:
    check = {"path": "/health", "interval_s": INTERVAL_S, "failures": FAILURES}
    all_of_them = backends.settings()
    ejection = {"ejection_s": 0.5, "ejection_max_s": 1.0}
    upstreams: dict[str, Any] = {
        "checked": {"backends": all_of_them, "balancer": "weight", "health_check": check},
        "capped": {"backends": [{**all_of_them[0], "max_connections": CAP}], "queue_wait_s": WAIT_S},
        "impatient": {"backends": [{**all_of_them[0], "max_connections": CAP}], "queue_wait_s": 0.2},
        "reporting": {"backends": all_of_them, "balancer": "performance_least_connections_weight"},
        "edited": {"backends": all_of_them[:2], "balancer": "weight"},
        "provider": {"backends": all_of_them[:2], "balancer": "weight", "ejection": ejection},
    }
    routes: dict[str, Any] = {f"/{name}": {"upstream": name} for name in upstreams}
    routes["/provider"] |= {"credential": "pool", "dialect": "openai", "head_timeout_s": 1.0}
    settings = {
        "server": {"workers": WORKERS, "access_log": False},
        "key_pool": {"retry_delay_ms": 20, "error_threshold": 3},
        "upstreams": upstreams,
        "routes": routes,
    }
    system = System(farm.directory(), settings)
    farm.adopt(system)
    eventually(system.admin_answers, DEADLINE_S, what="the admin API")
    eventually(lambda: system.get("/checked/").status == 200, DEADLINE_S, what="the routes")
    yield system
    farm.stop(system)


@pytest.fixture(autouse=True)
def _all_are_well(backends: Backends) -> Iterator[None]:
    backends.recover()
    yield
    backends.recover()


def await_left_alone(load: BalancedLoad, backend: Backend) -> int:
    """Returns how many requests it has had; many others were answered since the last one."""

    def alone() -> bool:
        before = len(backend.took)
        load.await_answers(100)
        return len(backend.took) == before

    eventually(alone, DEADLINE_S, what=f"the end of requests to {backend.id}")
    return len(backend.took)


def await_more(times: Sequence[object], count: int) -> None:
    """Until something has happened so often."""
    eventually(lambda: len(times) >= count, DEADLINE_S, what=f"number {count}")


def test_a_backend_that_says_it_is_unwell_is_left_alone(system: System, backends: Backends) -> None:
    """Its requests are answered still, so nothing but the check can tell."""
    _, unwell, _ = backends
    with BalancedLoad(system, "/checked").running() as load:
        backends.await_use()
        checks = len(unwell.checked_s)
        unwell.health_status = 503
        await_more(unwell.checked_s, checks + FAILURES)
        told_s = unwell.checked_s[checks + FAILURES - 1]
        had = await_left_alone(load, unwell)
        last_s = unwell.took[-1].at_s
        checks = len(unwell.checked_s)
        unwell.health_status = 200
        await_more(unwell.checked_s, checks + 1)
        await_more(unwell.took, had + 1)
        load.await_answers()
    print(f"\nlast reached {max(last_s - told_s, 0) * 1000:.0f} ms after the check that told")
    assert load.failures() == []


def test_no_request_is_lost_when_all_but_the_relay_dies(system: System, backends: Backends) -> None:
    _, unwell, _ = backends
    killed = system.pids_of(f"{ADMIN}|{REDIS}")
    with BalancedLoad(system, "/checked").running() as load:
        backends.await_use()
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        load.await_answers()
        eventually(lambda: not any(map(is_alive, killed)), DEADLINE_S, what="their end")
        eventually(system.admin_answers, DEADLINE_S, what="the admin API")
        system.excuse_output()
        unwell.health_status = 503
        had = await_left_alone(load, unwell)
        unwell.health_status = 200
        await_more(unwell.took, had + 1)
    assert load.failures() == []


def test_workers_share_a_cap(system: System, backends: Backends) -> None:
    """What one worker has running is the other's business as soon as that is told."""
    capped, *_ = backends
    with clients_of_each_worker(system, CAP) as (first, (one, other, *_)):

        def told(status: int) -> bool:
            return other.request("GET", "/impatient/").status == status

        for client in (*first, one):
            assert backend_of(open_stream(client, "/impatient")) == capped.id
        began_s = time.monotonic()
        eventually(lambda: told(503), DEADLINE_S, what="a refusal by the other worker")
        refused_s = time.monotonic()
        response = other.request("GET", "/impatient/")
        assert (response.status, response.error_type()) == (503, "backends_busy")
        assert int(response.value("retry-after")) >= 1
        for client in first[:2]:
            client.close()
        left_s = time.monotonic()
        eventually(lambda: told(200), DEADLINE_S, what="an answer by the other worker")
        served_s = time.monotonic()
        assert capped.running_max <= CAP + 2, "the other worker had one, and asked for one at a time"
    full_ms, free_ms = (refused_s - began_s) * 1000, (served_s - left_s) * 1000
    print(f"\nthe other worker knew after {full_ms:.0f} ms of too little room, after {free_ms:.0f} ms of enough")


def test_who_waits_for_a_capped_backend_is_served(system: System, backends: Backends) -> None:
    """Six times as many clients as it may have requests, of 10 ms: each waits for those before it, about 60 ms."""
    capped, *_ = backends
    capped.slow_s = 0.01
    capped.becomes(Does.SLOW)
    with BalancedLoad(system, "/capped", clients=CROWD).running() as load:
        load.await_answers(3 * ANSWERS)
    print(f"\n{capped.running_max} at once where {CAP} may be, the longest answer took {load.longest_s():.2f} s")
    assert load.failures() == []
    assert capped.running_max <= CAP * WORKERS


def test_edits_cost_no_request_and_no_stream(system: System, backends: Backends) -> None:
    _, b, c = backends
    load = BalancedLoad(system, "/edited")

    def edit(method: str, path: str, body: Any = None) -> None:
        answer = system.admin(method, f"/api/v1/backends/{path}", body)
        assert answer.status in (200, 201), answer

    def share(backend: Backend) -> float:
        """Its share of the next requests."""
        before, others = len(backend.took), load.answered
        load.await_answers(100)
        return (len(backend.took) - before) / (load.answered - others)

    with clients_of_each_worker(system, 2) as workers:
        streams = [(client, open_stream(client, "/edited")) for clients in workers for client in clients]
        of_b = [(client, stream) for client, stream in streams if backend_of(stream) == b.id]
        assert len(of_b) == len(streams) // 2
        with load.running():
            edit("POST", "add", {"upstream": "edited", "backend": {"id": c.id, "host": "127.0.0.1", "port": c.port}})
            await_more(c.took, 20)
            edit("PUT", "update", {"upstream": "edited", "backend": {"id": c.id, "weight": 800}})
            eventually(lambda: share(c) > 0.6, DEADLINE_S, what="its greater share, eight tenths")
            edit("POST", f"disconnect?upstream=edited&backend_id={b.id}")
            had = await_left_alone(load, b)
            assert b.running == len(of_b), "its streams go on"
            edit("PUT", "update", {"upstream": "edited", "backend": {"id": b.id, "active": True}})
            await_more(b.took, had + 20)
            edit("DELETE", f"remove?upstream=edited&backend_id={b.id}")
            await_left_alone(load, b)
            assert b.running == len(of_b), "its streams go on"
        b.end_streams()
        for client, stream in of_b:
            client.read_body(stream)
            assert stream.end is BodyEnd.COMPLETE
    assert load.failures() == []


def test_who_says_that_it_is_busy_gets_fewer_requests(system: System, backends: Backends) -> None:
    busy, *_ = backends
    performance = {"cpu_usage": 90.0, "memory_usage": 90.0, "load_avg_1": 1.0}
    body = {"upstream": "reporting", "backend_id": busy.id, "performance": performance}
    assert system.admin("POST", "/api/v1/report", body).status == 200

    def is_passed_over(client: RawClient) -> bool:
        return all(backend_of(client.request("GET", "/reporting/")) != busy.id for _ in range(10))

    with clients_of_each_worker(system, 10) as workers:
        for client, *_ in workers:
            eventually(lambda client=client: is_passed_over(client), DEADLINE_S, what="the report")  # type: ignore[misc]
        # 0.3 * 100 * 0.92 are more than 0.7 / 100 for each request that the others have.
        assert busy.id not in {backend_of(open_stream(client, "/reporting")) for client in workers[0]}


@pytest.fixture(name="keys", scope="module")
def fixture_keys(system: System) -> list[str]:
    keys = [f"sk-{CANARY}-backends-{number:04}" for number in range(KEYS)]
    answer = system.admin("POST", "/admin/keys/batch", {"keys": keys, "poolGroup": "default"})
    assert answer.body["success"] is True, answer
    return keys


def keys_put_aside(system: System) -> int:
    """How often a worker has said that it does not use a key for a while."""
    return system.output().count(" is put aside")


@pytest.mark.parametrize("does", [Does.DEAD, Does.HANGS, Does.FAILS, Does.CLOSES])
def test_a_backend_that_fails_is_no_fault_of_the_keys(
    system: System, backends: Backends, keys: list[str], does: Does
) -> None:
    """The backend is left alone for it and no key is, and no client sees an error."""
    good, bad, _ = backends
    with clients_of_each_worker(system, 1) as workers:
        for (client,) in workers:
            eventually(lambda client=client: client.request("GET", "/provider/").status == 200, what="the keys")  # type: ignore[misc]
    before = keys_put_aside(system)
    with BalancedLoad(system, "/provider").running() as load:
        await_more(bad.took, 20)
        bad.becomes(does)
        load.await_answers()
        bad.becomes(Does.WELL)
        await_more(bad.took, len(bad.took) + 20)
    assert load.failures() == []
    assert keys_put_aside(system) == before
    assert {row["status"] for row in key_pool.rows(system)} == {"active"}
    assert {took.authorization for took in good.took} == {f"Bearer {key}" for key in keys}
