"""The listener of the management service, and the services that come with every gRPC server: health and reflection."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2
from litestar import Litestar

from admin import jobs
from admin.balancing_ports import Management
from admin.grpc_api import management_pb2 as pb
from admin.grpc_api.calls import Calls, Context
from admin.grpc_api.certificate import Certificate
from admin.grpc_api.services import SERVICES
from admin.ports import ActionsService
from proxy.config import ConfigError, Grpc
from proxy.shared_state.tasks import end

log = logging.getLogger("relaygate")

NAMES = tuple(service.full_name for service in pb.DESCRIPTOR.services_by_name.values())
OPTIONS = (
    ("grpc.max_allowed_incoming_connections", 256),
    ("grpc.max_concurrent_streams", 32),
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.server_handshake_timeout_ms", 10_000),
)
"""What anybody may take who can connect: of one connection, and in all."""
DRAIN_S = 5.0
"""How long calls may go on that run when the process is told to end."""
WATCHERS_S = 0.2
"""How long, after that, answers may be on their way. Who watches the health of a service would do so for ever."""
AGAIN_S = 5.0
"""How soon an address is tried again that could not be had."""


class Server:
    """Listens from `start` on, and takes no more connections from `leave` on."""

    def __init__(self, settings: Grpc, calls: Calls) -> None:
        self._settings = settings
        self._calls = calls
        self._health = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None
        self._ending: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Does nothing where it has been started already. Raises ConfigError for an address that cannot be had."""
        if self._server is not None or self._ending is not None:
            return
        refuse_address_in_use(self._settings.host, self._settings.port)
        server = grpc.aio.server(options=OPTIONS)
        server.add_generic_rpc_handlers(self._calls.handlers(SERVICES))
        server.add_generic_rpc_handlers([reflection_for(self._calls)])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        self._listen(server)
        for name in NAMES:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._server = server
        await server.start()
        log.info("management service over gRPC on %s", address_of(self._settings))

    def leave(self) -> None:
        """Has clients go elsewhere, as to another process on this address. Calls that run may go on for a while."""
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._end())

    async def close(self) -> None:
        """Leaves, and returns when that is done."""
        self.leave()
        if self._ending is not None:
            await self._ending

    async def _end(self) -> None:
        if self._server is None:
            return
        await self._health.enter_graceful_shutdown()
        leaving = asyncio.get_running_loop().create_task(self._server.stop(DRAIN_S))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await self._calls.finish()
        await self._server.stop(WATCHERS_S)
        await leaving

    def _listen(self, server: grpc.aio.Server) -> None:
        settings, address = self._settings, address_of(self._settings)
        try:
            if settings.certificate is None or settings.key is None:
                server.add_insecure_port(address)
            else:
                server.add_secure_port(address, Certificate(settings.certificate, settings.key).credentials())
        except RuntimeError:
            raise ConfigError("grpc", address, "cannot listen here") from None


def serving(
    settings: Grpc, management: Management, actions: ActionsService
) -> Callable[[Litestar], AbstractAsyncContextManager[None]]:
    """Returns a lifespan during which the service is there, or is tried again and again where its address is taken.

    Who may make calls is for the application's own `authentication`.
    """

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        server = Server(settings, Calls(management, actions, app.state.authentication))
        app.state.leaving.append(server.leave)
        starting = asyncio.get_running_loop().create_task(jobs.repeat("the gRPC service", server.start, AGAIN_S))
        try:
            yield
        finally:
            await end(starting)
            await server.close()

    return lifespan


def reflection_for(calls: Calls) -> grpc.GenericRpcHandler:
    """Tells what services there are, to who may use them."""
    services: Any = reflection.aio.ReflectionServicer((*NAMES, health.SERVICE_NAME, reflection.SERVICE_NAME))

    async def reflect(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        await calls.authenticate(context)
        async for answer in services.ServerReflectionInfo(requests, context):
            yield answer

    handler = grpc.stream_stream_rpc_method_handler(
        reflect,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(reflection.SERVICE_NAME, {"ServerReflectionInfo": handler})


def address_of(settings: Grpc) -> str:
    return f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"


def refuse_address_in_use(host: str, port: int) -> None:
    """Raises ConfigError with the reason, which gRPC does not tell, where an address cannot be had.

    It may be shared with a process that is about to end, whose place this one takes; so gRPC binds it too.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError("grpc", f"{host}:{port}", f"cannot listen here: {error.strerror}") from None
