"""The life of a request, top to bottom: route, receive, (choose a credential, take a connection, forward)*, account.

Plain functions decide; only `receive_piece`, `fresh` and `forward` wait, and a choice that is a probe.
"""

from collections.abc import Awaitable, Callable
from functools import partial

from proxy.client_sockets import ClientSockets
from proxy.config import CredentialSource
from proxy.errors import RelayError, UpstreamClosed
from proxy.exchange import Exchange
from proxy.phases.choose import Attempts, TryAgain, present_own, source_of
from proxy.phases.forward import Judge, forward
from proxy.phases.receive import receive_kept, receive_piece
from proxy.phases.route import route
from proxy.phases.tunnel import route_handshake, tunnel
from proxy.rules.retries import may_retry
from proxy.snapshot import RouteCredentials, Snapshot
from proxy.upstream.connection import Connection

Send = Callable[[Exchange, Connection, Judge], Awaitable[None]]


async def relay(exchange: Exchange, snapshot: Snapshot) -> None:
    """Relays one request.

    Raises RelayError where it is to be answered by the relay itself, ClientGone where nobody waits.
    """
    route(exchange, snapshot)
    credentials = exchange.route.credentials
    if credentials is not None:
        source = source_of(credentials)
        if source is CredentialSource.POOL:
            if not exchange.body_received:
                await receive_kept(exchange, credentials.key_pool.settings.retry_body_bytes_max)
            return await with_keys(exchange, credentials, forward)
        if source is not CredentialSource.CLIENT:
            present_own(exchange, credentials, source)
    if not exchange.body_received and not exchange.head.expects_continue:
        exchange.first_piece = await receive_piece(exchange)
    pool = exchange.route.pool
    body_whole = exchange.body_received
    connection = pool.take() or await pool.fresh()
    while True:
        exchange.attempts += 1
        try:
            return await forward(exchange, connection)
        except UpstreamClosed:
            if not may_retry(exchange.scope["method"], exchange.attempts, connection.exchanges, body_whole=body_whole):
                raise
        finally:
            pool.give_back(connection)
        connection = await pool.fresh()


async def relay_websocket(exchange: Exchange, snapshot: Snapshot, sockets: ClientSockets) -> None:
    """Relays one WebSocket, from its handshake to its end.

    Raises RelayError where the relay itself refuses the handshake.
    """
    route_handshake(exchange, snapshot)
    await exchange.receive()  # `websocket.connect`, which says nothing
    credentials = exchange.route.credentials
    if credentials is not None:
        source = source_of(credentials)
        if source is CredentialSource.POOL:
            return await with_keys(exchange, credentials, partial(tunnel, sockets=sockets))
        if source is not CredentialSource.CLIENT:
            present_own(exchange, credentials, source)
    pool = exchange.route.pool
    connection = pool.take() or await pool.fresh()
    while True:
        exchange.attempts += 1
        try:
            return await tunnel(exchange, connection, sockets=sockets)
        except UpstreamClosed:
            if not may_retry("GET", exchange.attempts, connection.exchanges, body_whole=True):
                raise
        finally:
            pool.give_back(connection)
        connection = await pool.fresh()


async def with_keys(exchange: Exchange, credentials: RouteCredentials, send: Send) -> None:
    """Sends a request with a credential of the key pool, and with others as long as the client has seen nothing.

    `send` makes one attempt. Raises as it does, and RelayError where no credential is left.
    """
    attempts = Attempts(exchange, credentials)
    if not attempts.chooses_at_once():
        await attempts.choose_first()
    pool = exchange.route.pool
    try:
        while True:
            exchange.attempts += 1
            connection = None
            try:
                connection = None if attempts.needs_fresh else pool.take()
                connection = connection or await pool.fresh()
                return await send(exchange, connection, attempts)
            except TryAgain:
                pass
            except RelayError as error:
                reused = isinstance(error, UpstreamClosed) and connection is not None and connection.exchanges > 1
                await attempts.failed(error, reused=reused)
            finally:
                if connection is not None:
                    pool.give_back(connection)
            await attempts.pause()
    finally:
        attempts.end()
