"""Tracing: spans as a collector receives them, and what becomes of them where it is slow or away."""

import logging
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from proxy.rules.trace_context import Parent
from proxy.tracing import WAITING_MAX, Delivery, Tracing
from proxy.version import VERSION
from tests import otlp_collector
from tests.end_to_end.waiting import eventually
from tests.otlp_collector import Collector, attributes_of

PARENT = Parent(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7, sampled=True)


@pytest.fixture(name="collector")
def fixture_collector() -> Iterator[Collector]:
    with otlp_collector.running() as collector:
        yield collector


@pytest.fixture(autouse=True)
def _only_the_tests_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_TRACES_SAMPLER", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _the_exporters_log_is_itself_again() -> Iterator[None]:
    log = logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    filters = log.filters.copy()
    yield
    log.filters[:] = filters


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The relay's own lines: threads of an earlier test's exporter may still say what nobody filters any more."""
    return [record.getMessage() for record in caplog.records if record.name == "relaygate"]


def add(tracing: Tracing, *parents: Parent | None, failed: bool = False) -> None:
    for parent in parents:
        tracing.add("GET /up", parent, 0.25, {"text": "x", "number": 3}, failed=failed)


def test_a_span_is_what_was_said_of_its_request(collector: Collector) -> None:
    tracing = Tracing(f"{collector.url}/", "worker-1")
    before_ns = time.time_ns()
    add(tracing, PARENT)
    after_ns = time.time_ns()
    tracing.close()
    assert [path for path, _ in collector.requests] == ["/v1/traces"]
    (span,) = collector.spans()
    assert (span.name, span.kind) == ("GET /up", Span.SPAN_KIND_SERVER)
    assert int.from_bytes(span.trace_id, "big") == PARENT.trace_id
    assert int.from_bytes(span.parent_span_id, "big") == PARENT.span_id
    assert before_ns <= span.end_time_unix_nano <= after_ns
    assert span.end_time_unix_nano - span.start_time_unix_nano == 250_000_000
    assert attributes_of(span.attributes) == {"text": "x", "number": 3}
    assert span.status.code == Status.STATUS_CODE_UNSET


def test_a_request_that_failed_is_an_error(collector: Collector) -> None:
    tracing = Tracing(collector.url, "w")
    add(tracing, None, failed=True)
    tracing.close()
    assert collector.spans()[0].status.code == Status.STATUS_CODE_ERROR


def test_the_clients_decision_holds_and_without_one_each_request_is_a_trace(collector: Collector) -> None:
    tracing = Tracing(collector.url, "w")
    add(tracing, PARENT._replace(sampled=False), None, None)
    tracing.close()
    first, second = collector.spans()
    assert first.parent_span_id == second.parent_span_id == b""
    assert first.trace_id != second.trace_id


def test_the_standard_variables_choose_what_is_sampled(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    tracing = Tracing(collector.url, "w")
    add(tracing, None, None, PARENT)
    tracing.close()
    assert [int.from_bytes(span.trace_id, "big") for span in collector.spans()] == [PARENT.trace_id]


def test_the_standard_variables_name_the_service(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    for variables, service in (({}, "relaygate"), ({"OTEL_SERVICE_NAME": "edge"}, "edge")):
        with monkeypatch.context() as patch:
            patch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
            patch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=k")
            for name, value in variables.items():
                patch.setenv(name, value)
            tracing = Tracing(collector.url, "worker-1")
            add(tracing, None)
            tracing.close()
        resource = attributes_of(collector.received.pop().resource.attributes)
        assert resource.items() >= {
            ("service.name", service),
            ("service.version", VERSION),
            ("service.instance.id", "worker-1"),
            ("deployment.environment.name", "test"),
            ("telemetry.sdk.language", "python"),
        }
        assert collector.requests.pop()[1]["x-api-key"] == "k"


def test_a_collector_that_is_away_loses_spans_and_one_line_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port
        tracing = Tracing(f"http://127.0.0.1:{nobody.getsockname()[1]}", "w")
        add(tracing, *[None] * 5)
        tracing.close()
    (line,) = told(caplog)
    assert line.startswith("tracing: 5 spans were lost so far. ")
    assert "refused" in line


def test_a_collector_that_refuses_is_told_of_with_its_reason(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 401
    tracing = Tracing(collector.url, "w")
    add(tracing, None)
    tracing.close()
    (line,) = told(caplog)
    assert line.startswith("tracing: 1 spans were lost so far. ")
    assert "401" in line


def test_what_waits_is_bounded_and_what_is_lost_is_counted(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.open_for_answers.clear()
    tracing = Tracing(collector.url, "w")
    add(tracing, *[None] * 512)
    eventually(lambda: collector.requests, what="the first batch, which is held")
    add(tracing, *[None] * (WAITING_MAX + 7))
    collector.open_for_answers.set()
    eventually(lambda: len(collector.spans()) == 512 + WAITING_MAX, 20, what="all that waited")
    tracing.close()
    assert len(collector.spans()) == 512 + WAITING_MAX
    assert told(caplog) == ["tracing: 7 spans were lost so far. "]


def test_losses_are_told_once_a_minute(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [1000.0]
    monkeypatch.setattr("proxy.tracing.time.monotonic", lambda: now_s[0])
    with otlp_collector.running() as collector:
        delivery = Delivery(collector.url)
        delivery.export([])
        for after_s, lost in ((0.0, 1), (30.0, 2), (60.0, 3), (90.0, 3), (200.0, 3)):
            now_s[0] = 1000.0 + after_s
            delivery.refused = lost
            delivery.export([])
        delivery.shutdown()
    assert told(caplog) == ["tracing: 1 spans were lost so far. ", "tracing: 3 spans were lost so far. "]


def test_a_collector_that_does_not_answer_holds_no_worker_up(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.open_for_answers.clear()
    tracing = Tracing(collector.url, "w")
    add(tracing, None)
    closing = threading.Thread(target=tracing.close)
    closing.start()
    closing.join(10)  # the SDK alone would wait for 30 s
    assert not closing.is_alive()
    assert told(caplog) == ["tracing: 1 spans were lost so far. "]
