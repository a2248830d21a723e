"""Tracing: the client's trace context crosses untouched, and each request is one span at a collector."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from loadtests.fake_upstream import UpstreamInThread
from tests import otlp_collector
from tests.end_to_end.asking import answer, sse
from tests.end_to_end.harness import Places, RelayFarm, Seen, program
from tests.end_to_end.raw_client import Header, request_bytes
from tests.end_to_end.relay_process import CANARY, Relay
from tests.end_to_end.waiting import eventually
from tests.end_to_end.websocket_frames import CLOSE, WebSocketClient, close_payload
from tests.end_to_end.websocket_upstream import WebSocketUpstream
from tests.otlp_collector import Collector, attributes_of

# Of level 1, and such as no version of W3C's Trace Context or Baggage allows: what it means is the upstream's business.
CONTEXTS: list[list[Header]] = [
    [
        (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        (b"tracestate", b"vendor=a b=c;d, other@tenant=\tx ,,"),
        (b"tracestate", b"third=1"),
        (b"baggage", b"user=Am%C3%A9lie;p=1 ,\tserver=x"),
    ],
    [(b"traceparent", b"ff-0-0-ZZ-later"), (b"tracestate", b"\xe9=\xff"), (b"baggage", b"=;,%")],
]


def context_of(headers: list[Header]) -> list[Header]:
    """The fields of the trace context, in the order in which they came."""
    fields = [(name.lower(), value) for name, value in headers]
    return [field for field in fields if field[0] in (b"traceparent", b"tracestate", b"baggage")]


@pytest.fixture(name="both", scope="module")
def fixture_both(farm: RelayFarm, upstream: UpstreamInThread) -> Iterator[Relay]:
    """A relay that takes HTTP/1.1 and HTTP/2 on one port in clear text."""
    with farm.running({"server": {"http": "both"}, "routes": {"/up": upstream.url}}) as relay:
        yield relay


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_trace_context_crosses_byte_for_byte(relay: Relay, seen: Seen, context: list[Header]) -> None:
    assert relay.request("POST", "/up/echo", context, b"hello").status == 200
    assert context_of(seen.one().headers) == context


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_trace_context_crosses_from_http_2(both: Relay, seen: Seen, context: list[Header]) -> None:
    command: list[str | bytes] = [program("curl"), "-sS", "--fail", "--http2-prior-knowledge", f"{both.url}/up/echo"]
    for name, value in context:
        command += ["-H", b"%b: %b" % (name, value)]
    subprocess.run(command, capture_output=True, timeout=30, check=True)
    assert context_of(seen.one().headers) == context


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_trace_context_crosses_with_a_handshake(relay: Relay, context: list[Header]) -> None:
    with relay.client() as wire:
        client = WebSocketClient(wire)
        assert client.handshake("/ws/headers", context).status == 101
        received: list[list[str]] = json.loads(client.receive_message().payload)
    assert context_of([(name.encode("latin-1"), value.encode("latin-1")) for name, value in received]) == context


# ---- spans ----------------------------------------------------------------------------------------------------------


@pytest.fixture(name="collector", scope="module")
def fixture_collector() -> Iterator[Collector]:
    with otlp_collector.running() as collector:
        yield collector


@pytest.fixture(name="traced", scope="module")
def fixture_traced(
    farm: RelayFarm, upstream: UpstreamInThread, websockets: WebSocketUpstream, places: Places, collector: Collector
) -> Iterator[Relay]:
    """A relay that exports spans every 50 ms."""
    routes = {"/up": upstream.url, "/ws": websockets.url, "/refused": f"http://{places.refused}"}
    configuration = {"server": {"tracing": collector.url}, "routes": routes}
    with farm.running(configuration, environment={"OTEL_BSP_SCHEDULE_DELAY": "50"}) as relay:
        yield relay


def named(request_id: str) -> list[Header]:
    return [(b"X-Request-Id", request_id.encode()), (b"Authorization", f"Bearer {CANARY}".encode())]


def test_a_request_is_one_span_below_the_clients(
    traced: Relay, collector: Collector, seen: Seen, upstream: UpstreamInThread
) -> None:
    fields = [*named("span-1"), *CONTEXTS[0]]
    assert traced.request("POST", f"/up/echo/of-a-path?key={CANARY}", fields, b"hello").status == 200
    span = collector.wait_for("span-1")
    assert context_of(seen.one().headers) == CONTEXTS[0]
    assert span.name == "POST /up"
    assert span.trace_id.hex() == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert span.parent_span_id.hex() == "00f067aa0ba902b7"
    attributes = attributes_of(span.attributes)
    assert attributes["http.response.status_code"] == 200
    assert attributes["http.request.body.size"] == 5
    assert attributes["relaygate.upstream"] == upstream.authority
    assert CANARY not in str(span)
    assert "of-a-path" not in str(span)


def test_an_error_and_a_truncation_are_told(traced: Relay, collector: Collector) -> None:
    for request_id, target, word in (
        ("span-none", "/nowhere", "no_route"),
        ("span-refused", "/refused/x", "connect_refused"),
        ("span-cut", "/up" + answer(body_bytes=100_000, cut_after_bytes=70_000, end="fin"), "truncated"),
    ):
        traced.request("GET", target, named(request_id))
        span = collector.wait_for(request_id)
        assert attributes_of(span.attributes)["error.type"] == word
        failed = Status.STATUS_CODE_UNSET if word == "no_route" else Status.STATUS_CODE_ERROR
        assert span.status.code == failed


def test_a_span_ends_with_its_request(traced: Relay, collector: Collector) -> None:
    with traced.client() as client:
        client.send(request_bytes("GET", "/up" + sse(events=1000, interval_ms=20), named("span-left")))
        client.read_head()
    span = collector.wait_for("span-left")
    assert attributes_of(span.attributes)["error.type"] == "client_left"
    with traced.client() as wire:
        socket = WebSocketClient(wire)
        assert socket.handshake("/ws/echo", named("span-tunnel")).status == 101
        assert traced.request("GET", "/up/echo", named("span-beside")).status == 200
        collector.wait_for("span-beside")
        socket.send(CLOSE, close_payload(1000))
        socket.receive_close()
    span = collector.wait_for("span-tunnel")
    assert span.name == "GET /ws"
    assert attributes_of(span.attributes)["http.response.status_code"] == 101


def test_health_and_what_the_client_did_not_sample_are_no_spans(traced: Relay, collector: Collector) -> None:
    traced.request("GET", "/healthz", named("span-health"))
    traced.request(
        "GET", "/up/echo", [*named("span-unsampled"), (b"traceparent", b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-00")]
    )
    traced.request("GET", "/up/echo", named("span-after"))
    collector.wait_for("span-after")
    ids = {attributes_of(span.attributes)["relaygate.request_id"] for span in collector.spans()}
    assert not ids & {"span-health", "span-unsampled"}


def test_a_drain_delivers_the_last_spans(farm: RelayFarm, upstream: UpstreamInThread) -> None:
    with otlp_collector.running() as collector:
        configuration = {"server": {"tracing": collector.url}, "routes": {"/up": upstream.url}}
        with farm.running(configuration, environment={"OTEL_BSP_SCHEDULE_DELAY": "600000"}) as relay:
            for number in range(20):
                relay.request("GET", "/up/echo", named(f"last-{number}"))
        assert len(collector.spans()) == 20


@pytest.mark.parametrize("away", [True, False])
def test_a_collector_that_is_away_or_holds_costs_no_request(
    farm: RelayFarm,
    upstream: UpstreamInThread,
    places: Places,
    away: bool,  # noqa: FBT001
) -> None:
    with otlp_collector.running() as collector:
        collector.open_for_answers.clear()
        url = f"http://{places.refused}" if away else collector.url
        configuration = {"server": {"tracing": url, "access_log": False}, "routes": {"/up": upstream.url}}
        with farm.running(configuration, environment={"OTEL_BSP_SCHEDULE_DELAY": "10"}) as relay:
            with relay.client() as client:
                assert all(client.request("GET", "/up/echo").status == 200 for _ in range(3000))
            assert away or eventually(lambda: collector.requests, what="an export that is held")
        # Each worker says so at its end, and whatever was lost before is one line a minute.
        assert 1 <= relay.output().count("spans were lost so far") <= 2
        assert "opentelemetry" not in relay.output()


def test_without_the_setting_a_worker_knows_nothing_of_it(relay: Relay) -> None:
    mapped = [Path(f"/proc/{pid}/maps").read_text() for pid in relay.pids()]
    assert not [one for one in mapped if "google/_upb" in one]


def test_with_it_the_extra_is_in_use(traced: Relay) -> None:
    mapped = [Path(f"/proc/{pid}/maps").read_text() for pid in traced.pids()]
    assert [one for one in mapped if "google/_upb" in one]
