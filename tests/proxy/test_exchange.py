"""A request's state before any phase has filled it."""

import asyncio

import pytest

from proxy.exchange import Exchange, http_version
from proxy.rules.client_address import ClientAddresses
from tests.proxy.asgi import Client, play


def test_an_exchange_begins_with_nothing_done() -> None:
    async def dialogue() -> None:
        exchange = Client().exchange()
        assert exchange.task is asyncio.current_task()
        assert exchange.loop is asyncio.get_running_loop()
        assert (exchange.status, exchange.attempts, exchange.request_bytes, exchange.response_bytes) == (0, 0, 0, 0)
        assert not any((exchange.body_received, exchange.response_started, exchange.truncated, exchange.congested))
        assert (exchange.watch, exchange.cause) == (None, None)

    play(dialogue)


def test_what_one_request_notes_is_not_anothers() -> None:
    async def dialogue() -> None:
        one, other = Client().exchange(), Client().exchange()
        one.attempts += 1
        one.body_received = True
        assert (other.attempts, other.body_received, Exchange.attempts) == (0, False, 0)

    play(dialogue)


def test_the_client_is_the_peer_unless_that_is_trusted_to_tell() -> None:
    async def dialogue() -> None:
        exchange = Client().exchange(headers=[(b"x-real-ip", b"203.0.113.5")])
        assert exchange.client_address == "192.0.2.7"
        exchange.clients = ClientAddresses(["192.0.2.7"], "x-real-ip")
        assert exchange.client_address == "203.0.113.5"

    play(dialogue)


@pytest.mark.parametrize(("of_granian", "version"), [("1", "1.0"), ("1.1", "1.1"), ("2", "2")])
def test_versions_have_their_usual_names(of_granian: str, version: str) -> None:
    assert http_version({"http_version": of_granian}) == version
