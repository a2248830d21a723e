"""The life of a request, top to bottom: route, admit, count, receive, (choose a credential, choose a backend, take a
connection, forward)*, account.

Plain functions decide; only `count`, `receive_piece`, `fresh` and `forward` wait, and a choice that is a probe.
"""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from proxy.client_sockets import ClientSockets
from proxy.config import CredentialSource
from proxy.errors import RelayError, UpstreamClosed
from proxy.exchange import Exchange
from proxy.metering.gate import Gate
from proxy.phases.admit import admit, count
from proxy.phases.balance import Backends, receive_for_retries
from proxy.phases.choose import Attempts, TryAgain, first_source, present_own
from proxy.phases.forward import Judge, forward
from proxy.phases.receive import receive_kept, receive_piece
from proxy.phases.route import route
from proxy.phases.tunnel import route_handshake, tunnel
from proxy.rules.retries import may_retry
from proxy.snapshot import Balance, RouteCredentials, Snapshot
from proxy.upstream.connection import Connection

Relaying = Coroutine[Any, Any, None]
Send = Callable[[Exchange, Connection, Judge | None], Relaying]
"""Makes one attempt."""

# Module names, since looking a member up on its Enum costs as much as ten of anything else.
AUTO, CLIENT, POOL = CredentialSource.AUTO, CredentialSource.CLIENT, CredentialSource.POOL


def relay(exchange: Exchange, snapshot: Snapshot) -> Relaying:
    """Returns what relays one request.

    Here and there RelayError is raised where the relay itself is to answer, ClientGone where nobody waits.
    """
    route(exchange, snapshot)
    return let_in(exchange, forward)


async def relay_websocket(exchange: Exchange, snapshot: Snapshot, sockets: ClientSockets) -> None:
    """Relays one WebSocket, from its handshake to its end.

    Raises RelayError where the relay itself refuses the handshake.
    """
    route_handshake(exchange, snapshot)
    await exchange.receive()  # `websocket.connect`, which says nothing
    await let_in(exchange, partial(tunnel, sockets=sockets))


def let_in(exchange: Exchange, send: Send) -> Relaying:
    """Returns what relays a request, if its route is public or it shows an access token. Raises as `admit` does."""
    gate = exchange.route.gate
    if gate is None:
        return relayed(exchange, send)
    digest = admit(exchange, gate)
    return counted(exchange, gate, digest, send) if digest else relayed(exchange, send)


async def counted(exchange: Exchange, gate: Gate, digest: str, send: Send) -> None:
    """Relays a request once it has been counted. Raises as `count` and `send` do."""
    await count(exchange, gate, digest)
    await relayed(exchange, send)


def relayed(exchange: Exchange, send: Send) -> Relaying:
    """Returns what sends a request that may be relayed."""
    credentials = exchange.route.credentials
    return with_own(exchange, send) if credentials is None else with_credential(exchange, credentials, send)


def with_credential(exchange: Exchange, credentials: RouteCredentials, send: Send) -> Relaying:
    """Returns what relays a request whose route says where its credential comes from. Raises as `present_own` does."""
    source = credentials.source
    if source is AUTO:
        source = first_source(credentials)
    if source is POOL:
        return with_keys(exchange, credentials, send)
    judge = None if source is CLIENT else present_own(exchange, credentials, source)
    return with_own(exchange, send, judge)


def with_own(exchange: Exchange, send: Send, judge: Judge | None = None) -> Relaying:
    """Returns what relays a request that has its credential."""
    balance = exchange.route.balance
    return as_it_is(exchange, send, judge) if balance is None else balanced(exchange, balance, send, judge)


async def as_it_is(exchange: Exchange, send: Send, judge: Judge | None = None) -> None:
    """Sends a request to its one target, and again only where an idle connection closed on it.

    Raises as `send` does.
    """
    if not exchange.body_received and not exchange.request_bytes and not exchange.head.expects_continue:
        exchange.first_piece = await receive_piece(exchange)
    pool = exchange.hop.pool
    body_whole = exchange.body_received
    connection = pool.take() or await pool.fresh()
    while True:
        exchange.attempts += 1
        try:
            return await send(exchange, connection, judge)
        except UpstreamClosed:
            if not may_retry(exchange.scope["method"], exchange.attempts, connection.exchanges, body_whole=body_whole):
                raise
        finally:
            pool.give_back(connection)
        connection = await pool.fresh()


async def balanced(exchange: Exchange, balance: Balance, send: Send, judge: Judge | None) -> None:
    """Sends a request to a backend of its upstream, and to others as long as the client has seen nothing.

    Raises as `send` does, and RelayError where no backend may have it.
    """
    if not exchange.body_received:
        if not exchange.request_bytes and not exchange.head.expects_continue:
            exchange.first_piece = await receive_piece(exchange)
        if not exchange.body_received:
            await receive_for_retries(exchange, balance)
    backends = Backends(exchange, balance, judge)
    connection = backends.take()
    while True:
        connection = connection or await backends.connect()
        try:
            return await send(exchange, connection, backends)
        except TryAgain:
            pass
        except RelayError as error:
            backends.failed(error, connection)
        finally:
            exchange.hop.pool.give_back(connection)
            backends.leave()
        connection = None


async def with_keys(exchange: Exchange, credentials: RouteCredentials, send: Send) -> None:
    """Sends a request with a credential of the key pool, and with others as long as the client has seen nothing.

    Raises as `send` does, and RelayError where no credential is left.
    """
    if not exchange.body_received:
        if not exchange.request_bytes:
            exchange.first_piece = await receive_piece(exchange)
        if exchange.head.expects_continue or not exchange.body_received:
            await receive_kept(exchange, credentials.key_pool.settings.retry_body_bytes_max)
    attempts = Attempts(exchange, credentials)
    if not attempts.chosen:
        await attempts.choose_first()
    balance = exchange.route.balance
    backends = None if balance is None else Backends(exchange, balance, attempts)
    try:
        while True:
            connection = None
            try:
                if backends is None:
                    exchange.attempts += 1
                    pool = exchange.hop.pool
                    connection = None if attempts.needs_fresh else pool.take()
                    connection = connection or await pool.fresh()
                else:
                    connection = await backends.connect(fresh=attempts.needs_fresh)
                return await send(exchange, connection, backends or attempts)
            except TryAgain:
                pass
            except RelayError as error:
                reused = isinstance(error, UpstreamClosed) and connection is not None and connection.exchanges > 1
                if backends is not None and connection is not None:
                    backends.note(error, connection)
                await attempts.failed(error, reused=reused)
            finally:
                if connection is not None:
                    exchange.hop.pool.give_back(connection)
                if backends is not None:
                    backends.leave()
            await attempts.pause()
    finally:
        if attempts.chosen:
            attempts.leave()
