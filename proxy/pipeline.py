"""The life of a request, top to bottom: route, receive, (choose a connection, forward)*, account.

Plain functions decide; only `receive_piece`, `fresh` and `forward` wait.
"""

from proxy.client_sockets import ClientSockets
from proxy.errors import UpstreamClosed
from proxy.exchange import Exchange
from proxy.phases.forward import forward
from proxy.phases.receive import receive_piece
from proxy.phases.route import route
from proxy.phases.tunnel import route_handshake, tunnel
from proxy.rules.retries import may_retry
from proxy.snapshot import Snapshot


async def relay(exchange: Exchange, snapshot: Snapshot) -> None:
    """Relays one request.

    Raises RelayError where it is to be answered by the relay itself, ClientGone where nobody waits.
    """
    route(exchange, snapshot)
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
    pool = exchange.route.pool
    connection = pool.take() or await pool.fresh()
    while True:
        exchange.attempts += 1
        try:
            return await tunnel(exchange, connection, sockets)
        except UpstreamClosed:
            if not may_retry("GET", exchange.attempts, connection.exchanges, body_whole=True):
                raise
        finally:
            pool.give_back(connection)
        connection = await pool.fresh()
