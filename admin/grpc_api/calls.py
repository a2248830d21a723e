"""Who may make a call, and how it is answered: as over HTTP, but with gRPC's statuses.

A call that has begun goes on when its client leaves, as a request of HTTP does: an edit is done whole, and the log of
actions says so.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, NamedTuple, NoReturn
from urllib.parse import unquote

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from admin.answers import INTERNAL, UNAVAILABLE, Refusal, of_failure, place_of
from admin.auth import Authentication, Caller, token_in
from admin.balancing_ports import Management
from admin.context import recorded_of
from admin.database import DatabaseDown
from admin.grpc_api import management_pb2 as pb
from admin.ports import ActionsService

log = logging.getLogger("relaygate")

Context = grpc.aio.ServicerContext[Any, Any]

OF_ERROR = {"duplicate": grpc.StatusCode.ALREADY_EXISTS}
"""By the word that programs match on over HTTP, where its status says less."""
OF_STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}


class Call(NamedTuple):
    """One call: what it is made on, and who makes it."""

    management: Management
    actions: ActionsService
    caller: Caller

    def recorded(
        self, action: str, target: str, detail: Mapping[str, Any] | None = None
    ) -> AbstractAsyncContextManager[Caller]:
        """Appends what is done within to the log of actions. What a service refuses becomes a Refusal."""
        return recorded_of(self.actions, self.caller, action, target, detail)


Method = Callable[[Call, Any], Awaitable[Message]]
Services = Mapping[str, Mapping[str, Method]]
"""Methods by the names of their service and their own."""


class Calls:
    """Answers calls."""

    def __init__(self, management: Management, actions: ActionsService, authentication: Authentication) -> None:
        self._management = management
        self._actions = actions
        self._authentication = authentication
        self._running: set[asyncio.Task[Message | Refusal]] = set()

    def handlers(self, services: Services) -> list[grpc.GenericRpcHandler]:
        """Returns what a server is given. Raises KeyError where the proto file has a method that `services` has not."""
        return [
            grpc.method_handlers_generic_handler(
                service.full_name,
                {
                    method.name: grpc.unary_unary_rpc_method_handler(
                        partial(self._answer, services[service.name][method.name]),
                        GetMessageClass(method.input_type).FromString,
                        GetMessageClass(method.output_type).SerializeToString,
                    )
                    for method in service.methods
                },
            )
            for service in pb.DESCRIPTOR.services_by_name.values()
        ]

    async def authenticate(self, context: Context) -> None:
        """Ends a call with its status unless it may be made."""
        try:
            await self._caller(context)
        except Refusal as refusal:
            await abort(context, refusal)

    async def finish(self) -> None:
        """Returns when the calls have ended that were going on."""
        while self._running:
            await asyncio.wait(self._running)

    async def _answer(self, method: Method, request: Message, context: Context) -> Message:
        task = asyncio.get_running_loop().create_task(self._outcome(method, request, context))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        outcome = await asyncio.shield(task)
        if isinstance(outcome, Refusal):
            await abort(context, outcome)
        return outcome

    async def _outcome(self, method: Method, request: Message, context: Context) -> Message | Refusal:
        try:
            caller = await self._caller(context)
            return await method(Call(self._management, self._actions, caller), request)
        except Exception as error:
            return refusal_of(error)

    async def _caller(self, context: Context) -> Caller:
        """Returns who makes a call. Raises Refusal."""
        fields = [(name, value) for name, value in context.invocation_metadata() or () if isinstance(value, str)]
        forwarded_for = [value for name, value in fields if name == "x-forwarded-for"]
        address = self._authentication.address(peer_address(context.peer()), forwarded_for)
        return await self._authentication.caller_with(token_in(dict(fields)), address)


def refusal_of(error: Exception) -> Refusal:
    """Returns the answer to a call that failed; what is not foreseen is told in the log, in one line."""
    refusal = of_failure(error)
    if refusal is not None:
        return refusal
    if isinstance(error, DatabaseDown):
        return Refusal(503, UNAVAILABLE.error, UNAVAILABLE.message)
    log.error("a gRPC call failed: %s%s", type(error).__name__, place_of(error))
    return Refusal(500, INTERNAL.error, INTERNAL.message)


def peer_address(peer: str) -> str:
    """Returns the IP address in what gRPC calls a peer: `ipv4:192.0.2.1:80`, `ipv6:%5B2001:db8::1%5D:80`."""
    return unquote(peer.partition(":")[2]).rpartition(":")[0].strip("[]") or "local"


async def abort(context: Context, refusal: Refusal) -> NoReturn:
    """Ends a call with a refusal's status and message. Raises what tells gRPC so."""
    code = OF_ERROR.get(refusal.problem.error) or OF_STATUS.get(refusal.status, grpc.StatusCode.FAILED_PRECONDITION)
    trailing = tuple((name.lower(), value) for name, value in refusal.headers.items())
    await context.abort(code, refusal.problem.message, trailing)
