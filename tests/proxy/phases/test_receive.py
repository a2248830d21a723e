"""Receive: pieces of a body, its end, and what is no end (C28, C30, C67)."""

import asyncio
from typing import Any

import pytest

from proxy.config import Server
from proxy.errors import BODY_TIMEOUT, BODY_TOO_LARGE, ClientGone, RelayError
from proxy.exchange import Exchange
from proxy.phases.receive import receive_piece
from proxy.phases.route import route
from tests.proxy.asgi import Client, play, snapshot_of

SIZED_9 = (b"content-length", b"9")
CHUNKED = (b"transfer-encoding", b"chunked")


def begin(client: Client, server: Server | None = None, /, **request: Any) -> Exchange:
    exchange = client.exchange(method="POST", **request)
    route(exchange, snapshot_of(server))
    return exchange


def test_a_stated_length_tells_the_end_without_another_question() -> None:
    async def dialogue() -> None:
        client = Client()
        exchange = begin(client, headers=[SIZED_9])
        client.put(b"12345", more=True)
        assert await receive_piece(exchange) == b"12345"
        assert (exchange.body_received, exchange.request_bytes) == (False, 5)
        client.put(b"6789", more=True)
        assert await receive_piece(exchange) == b"6789"
        assert (exchange.body_received, exchange.request_bytes) == (True, 9)

    play(dialogue)


def test_any_other_body_ends_where_the_client_ends_it() -> None:
    async def dialogue() -> None:
        for request in ({"headers": [CHUNKED]}, {"version": "2"}):
            client = Client()
            exchange = begin(client, **request)
            for piece, more in ((b"1", True), (b"", True), (b"2", False)):
                client.put(piece, more=more)
                assert await receive_piece(exchange) == piece
                assert exchange.body_received is not more

    play(dialogue)


def test_a_client_that_leaves_has_not_ended_its_body() -> None:
    async def dialogue() -> None:
        client = Client()
        exchange = begin(client, headers=[CHUNKED])
        client.put(b"1", more=True)
        client.leave()
        await receive_piece(exchange)
        with pytest.raises(ClientGone):
            await receive_piece(exchange)
        assert not exchange.body_received

    play(dialogue)


def test_a_body_over_its_limit_is_refused_as_soon_as_that_is_known() -> None:
    async def dialogue() -> None:
        client = Client()
        exchange = begin(client, Server(body_bytes_max=5), headers=[CHUNKED])
        client.put(b"12345", more=True)
        await receive_piece(exchange)
        client.put(b"6", more=True)
        with pytest.raises(RelayError) as caught:
            await receive_piece(exchange)
        assert caught.value.cause is BODY_TOO_LARGE

    play(dialogue)


def test_a_client_that_sends_too_slowly_is_not_waited_for() -> None:
    async def dialogue() -> None:
        client = Client()
        exchange = begin(client, Server(body_timeout_s=0.02), headers=[SIZED_9])
        client.put(b"1", more=True)
        assert await receive_piece(exchange) == b"1"
        with pytest.raises(RelayError) as caught:
            await receive_piece(exchange)
        assert caught.value.cause is BODY_TIMEOUT

    play(dialogue)


def test_a_wait_that_is_cancelled_is_no_timeout() -> None:
    async def dialogue() -> None:
        exchange = begin(Client(), Server(body_timeout_s=9), headers=[SIZED_9])
        receiving = asyncio.create_task(receive_piece(exchange))
        await asyncio.sleep(0)
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving

    play(dialogue)
