"""Account: one line a request, with all that helps and nothing that is secret (C81), one count, and one span."""

from collections.abc import Mapping
from typing import Any

import pytest

from proxy.access_log import AccessLog
from proxy.errors import BODY_TOO_LARGE, CLOSED, NO_ROUTE, TRUNCATED
from proxy.phases.account import account, count, trace
from proxy.phases.route import route
from proxy.rules.client_address import ClientAddresses
from proxy.rules.trace_context import Parent
from proxy.statistics import Counts
from proxy.tracing import Tracing
from tests.proxy.asgi import Client, play, snapshot_of
from tests.proxy.counting import in_memory, taken


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
        account(exchange, log, None)
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


def test_the_client_that_is_written_down_is_the_one_behind_a_trusted_proxy() -> None:
    async def dialogue() -> None:
        log = Log()
        exchange = Client().exchange(headers=[(b"x-forwarded-for", b"127.0.0.1, 203.0.113.5")])
        exchange.clients = ClientAddresses(["192.0.2.0/24"])
        account(exchange, log, None)
        assert log.lines[0]["client"] == "203.0.113.5"

    play(dialogue)


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_request_that_came_to_nothing_is_written_down_too(kind: str) -> None:
    async def dialogue() -> None:
        log = Log()
        exchange = Client().exchange(path=b"/\xff", version="1")
        exchange.scope["type"] = kind
        if kind == "websocket":
            del exchange.scope["method"]
        account(exchange, log, None)
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
        tallies = in_memory()
        exchange = Client().exchange()
        for name, value in state.items():
            setattr(exchange, name, value)
        count(exchange, tallies.tally("/up", "up.example"))
        (row,) = taken(tallies)
        assert row.outcomes == {outcome: Counts(requests=1, truncated=int(exchange.response_started))}
        assert row.durations.count == (0 if exchange.status == 101 else 1)
        assert row.heads.count == row.overheads.count == row.upstreams.count == 0

    play(dialogue)


def test_requests_of_one_outcome_add_up() -> None:
    async def dialogue() -> None:
        tallies = in_memory()
        tally = tallies.tally("/up", "up.example")
        for attempts, taken_s in ((0, 0.5), (1, 0.25), (2, 0.125)):
            exchange = Client().exchange()
            exchange.status, exchange.attempts, exchange.request_bytes, exchange.response_bytes = 200, attempts, 3, 4
            exchange.started_s -= taken_s
            exchange.sent_s = exchange.started_s + taken_s / 8
            exchange.head_s = exchange.started_s + taken_s / 2
            count(exchange, tally)
        (row,) = taken(tallies)
        assert row.outcomes == {"2xx": Counts(requests=3, request_bytes=9, response_bytes=12, retries=1)}
        assert (row.durations.count, row.heads.count, row.heads.sum_us) == (3, 3, 437_500)
        assert 875_000 <= row.durations.sum_us < 3_000_000
        assert (row.overheads.count, row.overheads.sum_us) == (3, 109_375)
        assert (row.upstreams.count, row.upstreams.sum_us) == (3, row.durations.sum_us - 109_375)

    play(dialogue)


def test_a_tunnel_has_no_duration_but_the_time_until_it_was_open() -> None:
    async def dialogue() -> None:
        tallies = in_memory()
        exchange = Client().exchange()
        exchange.status, exchange.attempts = 101, 1
        exchange.sent_s, exchange.head_s = exchange.started_s + 0.125, exchange.started_s + 0.25
        count(exchange, tallies.tally("/up", "up.example"))
        (row,) = taken(tallies)
        assert (row.durations.count, row.upstreams.count) == (0, 0)
        assert (row.overheads.sum_us, row.heads.sum_us) == (125_000, 250_000)

    play(dialogue)


def test_kinds_of_requests_are_kept_apart() -> None:
    async def dialogue() -> None:
        tallies = in_memory()
        tally = tallies.tally("/up", "up.example")
        states: list[dict[str, Any]] = [
            {"status": 200},
            {"status": 200, "attempts": 2},
            {"status": 200, "truncated": True, "response_started": True},
            {"status": 502, "cause": CLOSED},
            {"status": 502, "cause": CLOSED, "attempts": 2},
            {"status": 502},
        ]
        for state in [*states, *states]:
            exchange = Client().exchange()
            for name, value in state.items():
                setattr(exchange, name, value)
            count(exchange, tally)
        (row,) = taken(tallies)
        assert row.outcomes == {
            "2xx": Counts(requests=4, retries=2),
            "client_left": Counts(requests=2, truncated=2),
            "closed": Counts(requests=4, retries=2),
            "5xx": Counts(requests=2),
        }

    play(dialogue)


# ---- tracing --------------------------------------------------------------------------------------------------------


class Spans(Tracing):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.added: list[tuple[str, Parent | None, dict[str, Any], bool]] = []

    def add(
        self, name: str, parent: Parent | None, duration_s: float, attributes: Mapping[str, str | int], *, failed: bool
    ) -> None:
        assert 0 <= duration_s < 60
        self.added.append((name, parent, dict(attributes), failed))


def test_a_request_is_a_span_without_its_path_and_fields() -> None:
    async def dialogue() -> None:
        spans = Spans()
        context = (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        secret = (b"authorization", b"Bearer CANARY")
        exchange = Client().exchange(path=b"/up/CANARY", query=b"CANARY", method="POST", headers=[secret, context])
        route(exchange, snapshot_of())
        exchange.status, exchange.attempts, exchange.request_bytes, exchange.response_bytes = 200, 2, 3, 4
        trace(exchange, spans)
        ((name, parent, attributes, failed),) = spans.added
        assert (name, failed) == ("POST /up", False)
        assert parent == Parent(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7, sampled=True)
        assert attributes == {
            "http.request.method": "POST",
            "http.route": "/up",
            "http.response.status_code": 200,
            "http.request.body.size": 3,
            "http.response.body.size": 4,
            "network.protocol.version": "1.1",
            "url.scheme": "http",
            "relaygate.request_id": "relay-id",
            "relaygate.attempts": 2,
            "relaygate.upstream": exchange.hop.authority.decode(),
        }

    play(dialogue)


@pytest.mark.parametrize(
    ("state", "error", "failed"),
    [
        ({"status": 204}, None, False),
        ({"status": 404}, None, False),
        ({"status": 503}, "503", True),
        ({"status": 413, "cause": BODY_TOO_LARGE}, "body_too_large", False),
        ({"status": 502, "cause": CLOSED}, "closed", True),
        ({"status": 200, "cause": TRUNCATED, "truncated": True, "response_started": True}, "truncated", True),
        ({"status": 200, "truncated": True, "response_started": True}, "client_left", False),
        ({"truncated": True}, "client_left", False),
    ],
)
def test_what_went_wrong_is_the_spans_error(state: dict[str, Any], error: str | None, failed: bool) -> None:  # noqa: FBT001
    async def dialogue() -> None:
        spans = Spans()
        exchange = Client().exchange()
        route(exchange, snapshot_of())
        for name, value in state.items():
            setattr(exchange, name, value)
        trace(exchange, spans)
        ((_, _, attributes, said_failed),) = spans.added
        assert (attributes.get("error.type"), said_failed) == (error, failed)
        assert attributes.get("http.response.status_code", 0) == exchange.status

    play(dialogue)


@pytest.mark.parametrize(
    ("method", "name", "attribute"),
    [("DELETE", "DELETE", "DELETE"), ("PROPFIND", "HTTP", "_OTHER"), (None, "GET", "GET")],
)
def test_what_a_client_can_make_up_is_no_name_of_a_span(method: str | None, name: str, attribute: str) -> None:
    async def dialogue() -> None:
        spans = Spans()
        exchange = Client().exchange(path=b"/made/up")
        exchange.scope["method"] = method
        if method is None:  # a WebSocket that was refused before its handshake was read
            del exchange.scope["method"]
        exchange.cause, exchange.status = NO_ROUTE, 404
        trace(exchange, spans)
        ((said_name, _, attributes, _),) = spans.added
        assert (said_name, attributes["http.request.method"]) == (name, attribute)
        assert "http.route" not in attributes

    play(dialogue)


def test_health_is_no_span() -> None:
    async def dialogue() -> None:
        spans = Spans()
        exchange = Client().exchange(path=b"/healthz")
        exchange.status = 200
        trace(exchange, spans)
        assert not spans.added

    play(dialogue)
