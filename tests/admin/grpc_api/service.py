"""The management service beside the admin API in this process, and a client of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from admin.grpc_api import management_pb2_grpc
from admin.grpc_api.server import serving
from loadtests.processes import free_port
from proxy.config import Grpc
from tests.admin import api
from tests.admin.api import TOKEN
from tests.admin.management_memory import ManagementMemory
from tests.admin.memory import Memory

BEARER = (("authorization", f"Bearer {TOKEN}"),)
DEADLINE_S = 10.0


class Service:
    """A service that listens, what lies behind it, and a client of the admin API beside it."""

    def __init__(self, port: int, client: api.Client, memory: Memory, management: ManagementMemory) -> None:
        self.port = port
        self.client = client
        self.memory = memory
        self.management = management

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


@contextmanager
def running(settings: Grpc | None = None, **options: Any) -> Iterator[Service]:
    """A service, on a port of its own unless `settings` name one; `options` go to `create_app`."""
    settings = settings or Grpc(enabled=True, port=free_port())
    memory, management = Memory(), ManagementMemory()
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
