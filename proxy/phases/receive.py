"""Receive: the client's body, piece by piece.

A client that leaves or breaks its framing never looks like the end of a body.
"""

import asyncio

from proxy.errors import BODY_TIMEOUT, BODY_TOO_LARGE, ClientGone, RelayError
from proxy.exchange import Exchange
from proxy.rules.framing import SIZED, without_expectation


async def receive_piece(exchange: Exchange) -> bytes:
    """Returns the next piece of the body, at most 32 KB, and notes whether it was the last.

    A stated length tells the end without asking once more: each question costs a thread hop in Granian. Raises
    ClientGone, and RelayError where the body is over its limit or too slow.
    """
    timeout_s = exchange.route.body_timeout_s
    if timeout_s is None:
        message = await exchange.receive()
    else:
        try:
            async with asyncio.timeout(timeout_s):
                message = await exchange.receive()
        except TimeoutError:
            raise RelayError(BODY_TIMEOUT) from None
    if message["type"] != "http.request":
        raise ClientGone
    piece: bytes = message["body"]
    exchange.request_bytes += len(piece)
    head = exchange.head
    limit = exchange.route.body_bytes_max
    if limit is not None and exchange.request_bytes > limit:
        raise RelayError(BODY_TOO_LARGE)
    exchange.body_received = not message["more_body"] or (head.body is SIZED and exchange.request_bytes >= head.length)
    return piece


async def receive_kept(exchange: Exchange, bytes_max: int) -> None:
    """Adds to the first piece what is kept for another attempt: the whole body, if that is no more than `bytes_max`.

    Of a longer one there is a beginning, which may name the model. A client that waits for `100 Continue` has it then.
    Raises as `receive_piece` does.
    """
    pieces = [exchange.first_piece]
    while not exchange.body_received and max(exchange.request_bytes, exchange.head.length) <= bytes_max:
        pieces.append(await receive_piece(exchange))
    exchange.first_piece = b"".join(pieces)
    if exchange.head.expects_continue:
        exchange.head = without_expectation(exchange.head)
