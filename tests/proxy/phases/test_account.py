"""Account: one line a request, with all that helps and nothing that is secret (C81)."""

from typing import Any

import pytest

from proxy.access_log import AccessLog
from proxy.errors import TRUNCATED
from proxy.phases.account import account
from proxy.phases.route import route
from tests.proxy.asgi import Client, play, snapshot_of


class Log(AccessLog):
    """A log whose lines a test reads."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []

    def write(self, fields: dict[str, Any]) -> None:
        self.lines.append(fields)


def test_a_request_is_written_down_with_what_became_of_it() -> None:
    async def dialogue() -> None:
        log = Log()
        secret = (b"authorization", b"Bearer CANARY")
        exchange = Client().exchange(path=b"/up/x", query=b"key=CANARY", method="POST", headers=[secret])
        route(exchange, snapshot_of())
        exchange.status, exchange.attempts, exchange.request_bytes, exchange.response_bytes = 200, 2, 3, 4
        exchange.truncated, exchange.cause = True, TRUNCATED
        account(exchange, log)
        (line,) = log.lines
        duration_ms = line.pop("duration_ms")
        assert 0 <= duration_ms < 5000
        assert line == {
            "request_id": "relay-id",
            "client": "192.0.2.7",
            "method": "POST",
            "target": "/up/x?key=***",
            "protocol": "1.1",
            "route": "/up",
            "status": 200,
            "error": "truncated",
            "truncated": True,
            "attempts": 2,
            "request_bytes": 3,
            "response_bytes": 4,
        }

    play(dialogue)


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_request_that_came_to_nothing_is_written_down_too(kind: str) -> None:
    async def dialogue() -> None:
        log = Log()
        exchange = Client().exchange(path=b"/\xff", version="1")
        exchange.scope["type"] = kind
        if kind == "websocket":
            del exchange.scope["method"]
        account(exchange, log)
        (line,) = log.lines
        assert (line["route"], line["status"], line["error"], line["method"]) == (None, 0, None, "GET")
        assert (line["target"], line["protocol"]) == ("/\xff", "1.0")

    play(dialogue)
