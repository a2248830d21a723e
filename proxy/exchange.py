"""The typed state of one request, its fields grouped by the phase that fills them."""

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

from proxy.dialects.usage.readers import Reader
from proxy.errors import Cause
from proxy.metering.meter import Meter
from proxy.rules.batches import NOTHING_ASKED, Admission
from proxy.rules.client_address import ClientAddresses
from proxy.rules.framing import RequestHead
from proxy.rules.headers import Header
from proxy.rules.reservations import Reservation
from proxy.snapshot import CompiledRoute, Hop
from proxy.tallies import Tally

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Exchange:
    """One request and what has become of it so far.

    Class attributes are the values of fields that no phase has filled yet.
    """

    # arrival
    scope: Scope
    receive: Receive
    send: Send
    loop: asyncio.AbstractEventLoop
    started_s: float  # of perf_counter; the loop's own clock steps in whole milliseconds
    task: asyncio.Task[None]
    # Waits for the client's leaving, once the request has lasted longer than a moment.
    watch: asyncio.Task[None] | None = None
    # route
    request_id = b""
    head: RequestHead
    route: CompiledRoute
    hop: Hop  # of a route with an upstream: chosen for each attempt
    target: bytes
    tally: Tally | None = None  # None where nothing is counted
    clients = ClientAddresses()  # whose word on a client's address counts
    # receive
    body_received = False
    first_piece = b""
    request_bytes = 0
    # admit
    meter: Meter | None = None  # what is to hear how the request ended; None where nothing was counted
    asked = NOTHING_ASKED  # what it was counted as
    admission: Admission | None = None  # None where the worker let it in without Redis
    reservation: Reservation | None = None  # None where each request counts as one
    reader: Reader | None = None  # what reads the usage beside the answer
    limits: tuple[Header, ...] = ()  # what tells the client its rate
    # choose
    credential_id = ""  # of the key pool
    shown = b""  # the relay's own credential as it stands in the query, where it does
    # forward
    attempts = 0
    sent_s = 0.0  # of perf_counter, when the first attempt's head had been written; 0 if none has, or nobody counts
    was_sent = False  # whether an upstream has been sent any of it
    congested = False  # the upload waits for its upstream, so nobody asks Granian for the client's bytes
    status = 0
    head_s = 0.0  # of perf_counter, when the upstream's response head had come; 0 if none has, or nobody counts
    response_started = False
    response_bytes = 0
    # ending
    truncated = False
    retry_after_s = 1  # what a 429 and a 503 say
    cause: Cause | None = None

    def __init__(self, scope: Scope, receive: Receive, send: Send, loop: asyncio.AbstractEventLoop) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.loop = loop
        self.started_s = perf_counter()
        # Never None: each request runs in a task.
        self.task = asyncio.current_task(loop)  # type: ignore[assignment]

    @property
    def client_address(self) -> str:
        """The client's own address, as far as proxies in front are trusted to tell it."""
        scope = self.scope
        return self.clients.of(scope["client"][0], scope["headers"])


def http_version(scope: Scope) -> str:
    """Returns the client's version of HTTP; Granian calls 1.0 `1`."""
    version: str = scope["http_version"]
    return "1.0" if version == "1" else version
