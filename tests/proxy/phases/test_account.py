"""Account: one line a request, with all that helps and nothing that is secret (C81), and one count."""

from typing import Any

import pytest

from proxy.access_log import AccessLog
from proxy.errors import CLOSED, TRUNCATED
from proxy.phases.account import account, count
from proxy.phases.route import route
from proxy.statistics import Counts, Statistics
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


# ---- counting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        ({"status": 204}, "2xx"),
        ({"status": 599}, "5xx"),
        ({"status": 101}, "1xx"),
        ({"status": 502, "cause": CLOSED}, "closed"),
        ({"status": 200, "cause": TRUNCATED, "truncated": True, "response_started": True}, "truncated"),
        ({"truncated": True}, "client_left"),
        ({"status": 200, "truncated": True, "response_started": True}, "client_left"),
    ],
)
def test_a_request_has_one_outcome(state: dict[str, Any], outcome: str) -> None:
    async def dialogue() -> None:
        statistics = Statistics("worker", 0.0)
        exchange = Client().exchange()
        for name, value in state.items():
            setattr(exchange, name, value)
        count(exchange, statistics.tally("/up", "up.example"))
        (row,) = statistics.delta(0.0, 0).routes
        assert row.outcomes == {outcome: Counts(requests=1, truncated=int(exchange.response_started))}
        assert row.durations.count == (0 if exchange.status == 101 else 1)
        assert row.heads.count == 0

    play(dialogue)


def test_requests_of_one_outcome_add_up() -> None:
    async def dialogue() -> None:
        statistics = Statistics("worker", 0.0)
        tally = statistics.tally("/up", "up.example")
        for attempts, taken_s in ((0, 0.5), (1, 0.25), (2, 0.125)):
            exchange = Client().exchange()
            exchange.status, exchange.attempts, exchange.request_bytes, exchange.response_bytes = 200, attempts, 3, 4
            exchange.started_s -= taken_s
            exchange.head_s = exchange.started_s + taken_s / 2
            count(exchange, tally)
        (row,) = statistics.delta(0.0, 0).routes
        assert row.outcomes == {"2xx": Counts(requests=3, request_bytes=9, response_bytes=12, retries=1)}
        assert (row.durations.count, row.heads.count, row.heads.sum_us) == (3, 3, 437_500)
        assert 875_000 <= row.durations.sum_us < 3_000_000

    play(dialogue)
