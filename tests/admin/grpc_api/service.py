"""The management service beside the admin API in this process, on services in memory, and a client of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from admin.grpc_api import management_pb2_grpc
from admin.grpc_api.server import serving
from admin.management import BalancingManagement
from admin.tls_reload import Reloaded
from loadtests.processes import free_port
from proxy.config import (
    Backend,
    Balancer,
    Config,
    CredentialSource,
    Ejection,
    Grpc,
    HealthCheck,
    ListenerTls,
    Protocols,
    Route,
    Server,
    Upstream,
)
from proxy.shared_state.backend_reports import BackendReport
from tests.admin import api
from tests.admin.api import TOKEN
from tests.admin.balancing_memory import Health
from tests.admin.counted import NOW_S, delta, row, worker
from tests.admin.memory import Memory, Stored, Worker

BEARER = (("authorization", f"Bearer {TOKEN}"),)
DEADLINE_S = 10.0

CONFIG = Config(server=Server(trusted_proxies=("10.0.0.0/8",)), tls=ListenerTls(certificate="live.pem", key="live.key"))
CHECK = HealthCheck(timeout_s=0.5, successes=2, statuses=(200, 204), body="ok")
BACKENDS = (
    Backend(url="http://127.0.0.1:8081", id="one", health_check=CHECK),
    Backend(url="http://127.0.0.1:8082", id="two", weight=50),
)
UPSTREAM = Upstream(backends=BACKENDS, queue_max=10, ejection=Ejection(failures=None, share_max=0.25))
ROUTE = Route(
    upstream="default",
    balancer=Balancer.WEIGHT,
    protocols=Protocols(websocket=Balancer.IP_HASH),
    head_timeout_s=12.5,
    credential=CredentialSource.POOL,
    pool_groups=("main",),
    body_bytes_max=1_000_000,
)


class Service:
    """A service that listens, what lies behind it, and a client of the admin API beside it."""

    def __init__(self, port: int, client: api.Client, memory: Memory, management: BalancingManagement) -> None:
        self.port = port
        self.client = client
        self.memory = memory
        self.management = management

    @property
    def upstreams(self) -> dict[str, Upstream]:
        return self.memory.about_balancing.upstreams

    def ids(self, upstream: str = "default") -> list[str]:
        return [one.id for one in self.upstreams[upstream].backends]

    def outcomes(self) -> list[tuple[str, str, str]]:
        """Action, target and outcome of all that was recorded, oldest first."""
        return [(one.action, one.target, one.outcome) for one in self.memory.actions.actions]


class Caller:
    """A client: `caller("BackendService", "GetBackends", request)`."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel

    def __call__(self, service: str, method: str, request: Any, metadata: Any = BEARER) -> Any:
        method_ = self._method(service, method)
        return method_(request, metadata=metadata, timeout=DEADLINE_S, wait_for_ready=True)

    def unanswered(self, service: str, method: str, request: Any) -> bool:
        """Whether nobody is there to answer a call."""
        with pytest.raises(grpc.RpcError) as caught:
            self._method(service, method)(request, metadata=BEARER, timeout=DEADLINE_S)
        found: Any = caught.value
        return found.code() is grpc.StatusCode.UNAVAILABLE

    def refused(self, service: str, method: str, request: Any, metadata: Any = BEARER) -> Any:
        """How a call ended, which was not well."""
        with pytest.raises(grpc.RpcError) as caught:
            self(service, method, request, metadata)
        return caught.value

    def future(self, service: str, method: str, request: Any) -> Any:
        """A call that goes on."""
        return self._method(service, method).future(request, metadata=BEARER, timeout=DEADLINE_S, wait_for_ready=True)

    def _method(self, service: str, method: str) -> Any:
        return getattr(getattr(management_pb2_grpc, f"{service}Stub")(self.channel), method)


def fill(memory: Memory) -> None:
    """Makes all that the calls tell of what it is at first."""
    about = memory.about_balancing
    about.config, about.reloaded = CONFIG, Reloaded(2, 2)
    about.upstreams = {"default": UPSTREAM}
    about.health = {("default", "one"): Health(False, NOW_S - 30, NOW_S, "connection refused")}
    about.running = {("default", "two"): 4}
    about.reports = {("default", "two"): BackendReport(45.5, 67.75, 2.0, NOW_S)}
    memory.versions.versions.clear()
    memory.versions.stored.clear()
    memory.versions.stored["/"] = Stored("/", ROUTE, 0, 0)
    memory.versions.record("test", "at first")
    memory.statistics.now_s = NOW_S
    memory.statistics.deltas = [
        delta(row("/", "127.0.0.1:8081", at_s=NOW_S, seconds=0.25, s2xx=7, connect_refused=1), at_s=NOW_S)
    ]
    memory.workers.workers = [Worker(worker("a", in_flight=2), alive=True), Worker(worker("b"), alive=True)]
    memory.actions.actions.clear()


@contextmanager
def running(settings: Grpc | None = None, **options: Any) -> Iterator[Service]:
    """A service, on a port of its own unless `settings` name one; `options` go to `create_app`."""
    settings = settings or Grpc(enabled=True, port=free_port())
    memory = Memory()
    fill(memory)
    management = memory.management()
    lifespan = serving(settings, management, memory.actions)
    with api.serving(memory, lifespan=[lifespan], **options) as client:
        yield Service(settings.port, client, memory, management)


@contextmanager
def calling(port: int, ca: Path | None = None) -> Iterator[Caller]:
    """A client; one that trusts `ca` speaks TLS."""
    address = f"127.0.0.1:{port}"
    if ca is None:
        channel = grpc.insecure_channel(address)
    else:
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(ca.read_bytes()))
    with channel:
        yield Caller(channel)
