"""What real workers hear of backends through Redis: which are ill, and what the other worker has running there."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from loadtests import fake_upstream
from loadtests.fake_upstream import UpstreamInThread
from proxy.shared_state.backend_counts import summed
from proxy.shared_state.backend_health import BackendHealth, announce_health, write_health
from proxy.shared_state.breaker import Breaker, Guard
from proxy.shared_state.keys import BACKENDS_RUNNING, WORKERS
from proxy.shared_state.worker_state import decode_state
from tests.end_to_end.harness import RelayFarm
from tests.end_to_end.raw_client import ClosedEarlyError, request_bytes
from tests.end_to_end.relay_process import Relay
from tests.end_to_end.waiting import eventually
from tests.end_to_end.worker_clients import clients_of_each_worker
from tests.redis_servers import DEADLINE_S, EMBEDDED, connected, redis_at

ASKED = 12
"""Requests on connections of their own, which both workers get some of."""


@pytest.fixture(name="other", scope="module")
def fixture_other() -> Iterator[UpstreamInThread]:
    with fake_upstream.running_in_thread() as upstream:
        yield upstream


@pytest.fixture(name="shared", scope="module")
def fixture_shared(
    farm: RelayFarm, upstream: UpstreamInThread, other: UpstreamInThread, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Relay]:
    """A relay of two workers with a Redis, and no control plane."""
    configuration: dict[str, Any] = {
        "server": {"workers": 2, "allow_private_targets": True},
        "upstreams": {
            "pair": {
                "balancer": "weight",
                "backends": [{"id": "a", "url": upstream.url}, {"id": "b", "url": other.url}],
            },
            "narrow": {"queue_max": 0, "backends": [{"id": "a", "url": upstream.url, "max_connections": 2}]},
        },
        "routes": {"/pair": {"upstream": "pair"}, "/narrow": {"upstream": "narrow"}},
    }
    with (
        redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url,
        farm.running(configuration | {"redis": {"url": url}}) as relay,
    ):
        yield relay


def tell(relay: Relay, *, healthy: bool) -> None:
    """Publishes what a control plane would of backend `a`."""

    async def main() -> None:
        async with connected(relay.configuration["redis"]["url"]) as client:
            guard = Guard(client, Breaker(), DEADLINE_S)
            states = {("pair", "a"): BackendHealth(healthy=healthy, since_s=time.time(), checked_s=time.time())}
            await write_health(client, guard, states, [], int(time.time() * 1000))
            await announce_health(client, guard)

    asyncio.run(main())


def running(relay: Relay) -> dict[tuple[str, str], int]:
    """What workers have told of their requests."""

    async def main() -> dict[tuple[str, str], int]:
        async with connected(relay.configuration["redis"]["url"]) as client:
            found: Any = await client.hvals(BACKENDS_RUNNING)  # type: ignore[misc,unused-ignore]
        return {name: told.running for name, told in summed(found).items()}

    return asyncio.run(main())


def workers(relay: Relay) -> list[int]:
    """The processes of the workers that say that they live."""

    async def main() -> list[int]:
        async with connected(relay.configuration["redis"]["url"]) as client:
            found: Any = await client.hvals(WORKERS)  # type: ignore[misc,unused-ignore]
        return [decode_state(data).pid for data in found]

    return asyncio.run(main())


def test_a_backend_that_is_told_to_be_ill_gets_no_request_until_it_is_told_to_be_well(
    shared: Relay, upstream: UpstreamInThread, other: UpstreamInThread
) -> None:
    def asked() -> tuple[int, int]:
        before = len(upstream.requests), len(other.requests)
        for _ in range(ASKED):
            assert shared.get("/pair/answer").status == 200
        return len(upstream.requests) - before[0], len(other.requests) - before[1]

    assert min(asked()) > 0
    tell(shared, healthy=False)
    eventually(lambda: asked() == (0, ASKED))
    tell(shared, healthy=True)
    eventually(lambda: min(asked()) > 0)


def test_a_cap_holds_over_all_workers_and_a_dead_one_has_nothing_running(shared: Relay) -> None:
    def statuses() -> set[int]:
        return {shared.get("/narrow/answer").status for _ in range(ASKED)}

    assert statuses() == {200}
    with clients_of_each_worker(shared, 1) as clients:
        for (client,) in clients:
            client.send(request_bytes("GET", "/narrow/hold"))
        eventually(lambda: running(shared) == {("narrow", "a"): 2})
        eventually(lambda: statuses() == {503}, what="that both workers know of both requests")
    eventually(lambda: statuses() == {200})
    eventually(lambda: running(shared) == {}, what="that nothing is told where nothing is running")
    with clients_of_each_worker(shared, 1) as clients:
        for (client,) in clients:
            client.send(request_bytes("GET", "/narrow/hold"))
        eventually(lambda: running(shared) == {("narrow", "a"): 2})
        for pid in workers(shared):
            os.kill(pid, signal.SIGKILL)

        def is_served() -> bool:
            try:
                return statuses() == {200}
            except (OSError, ClosedEarlyError):  # they are not replaced yet
                return False

        eventually(is_served, 20, what="that the dead hold nothing")
    shared.excuse_output()  # of those who died
