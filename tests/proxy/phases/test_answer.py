"""Answer: every error of the relay's own is JSON with a word, a sentence and the request's id (C80)."""

import json
from typing import Any

import pytest

from proxy import errors
from proxy.errors import Cause, RelayError
from proxy.phases.answer import answer_error, answer_health, answer_statistics
from tests.proxy.asgi import Client, play

CAUSES = {name: cause for name, cause in vars(errors).items() if isinstance(cause, Cause)}


@pytest.mark.parametrize("cause", CAUSES.values(), ids=CAUSES)
@pytest.mark.parametrize("version", ["1", "1.1", "2"])
def test_an_error_is_json_with_all_that_a_client_may_know(cause: Cause, version: str) -> None:
    async def dialogue() -> None:
        client = Client()
        exchange = client.exchange(version=version)
        await answer_error(exchange, cause)
        assert client.status == exchange.status == cause.status
        assert exchange.response_started
        assert client.has_ended()
        assert json.loads(client.body) == {
            "error": {"type": cause.word, "message": cause.message, "request_id": "relay-id"}
        }
        headers = dict(client.headers)
        assert headers[b"content-type"] == b"application/json"
        assert headers[b"content-length"] == b"%d" % len(client.body)
        assert headers[b"x-request-id"] == b"relay-id"
        assert headers[b"server"] == b"relaygate"
        assert (b"retry-after" in headers) is (cause.status in (429, 503))
        assert (headers.get(b"www-authenticate") == b"Bearer") is (cause.status == 401)
        assert (b"allow" in headers) is (cause.status == 405)
        assert (headers.get(b"connection") == b"close") is (cause.status in (400, 408, 413) and version != "2")

    play(dialogue)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_health_is_answered_to_those_who_only_look(method: str) -> None:
    async def dialogue() -> None:
        client = Client()
        await answer_health(client.exchange(method=method))
        assert (client.status, json.loads(client.body)) == (200, {"status": "ok"})

    play(dialogue)


def test_health_is_nothing_to_post_to() -> None:
    async def dialogue() -> None:
        with pytest.raises(RelayError, match="method_not_allowed"):
            await answer_health(Client().exchange(method="POST"))

    play(dialogue)


def test_figures_are_answered_as_they_were_given() -> None:
    async def dialogue() -> None:
        client = Client()
        await answer_statistics(client.exchange(), b'{"total": 7}')
        assert (client.status, client.body) == (200, b'{"total": 7}')
        with pytest.raises(RelayError, match="no_statistics"):
            await answer_statistics(client.exchange(), None)
        with pytest.raises(RelayError, match="method_not_allowed"):
            await answer_statistics(client.exchange(method="PUT"), b"{}")

    play(dialogue)


def test_a_handshake_is_refused_with_an_answer() -> None:
    async def dialogue() -> None:
        client = Client()
        exchange = client.exchange()
        exchange.scope["type"] = "websocket"
        await answer_error(exchange, errors.NO_ROUTE)
        kinds: list[Any] = [message["type"] for message in client.got]
        assert kinds == ["websocket.http.response.start", "websocket.http.response.body"]

    play(dialogue)
