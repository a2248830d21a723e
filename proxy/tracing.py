"""Spans of requests, for an OpenTelemetry collector (OTLP over HTTP).

A span is made when its request has ended, and waits in a bounded queue for a thread of the SDK's; a collector that is
slow or away costs spans, never a request. Workers import this module only where `server.tracing` is set: it needs the
extra `relaygate[opentelemetry]`, and 18 MB a worker. What is not decided here, the SDK's variables decide:
OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS, OTEL_BSP_SCHEDULE_DELAY...
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from proxy.rules.trace_context import Parent
from proxy.version import VERSION

log = logging.getLogger("relaygate")

WAITING_MAX = 2048
"""Spans that may wait for the collector, at about 5 KB each; further ones are lost."""
LAST_SPANS_TIMEOUT_S = 1.0
"""How long the last spans of a worker may take, before they are lost."""
TELL_AGAIN_S = 60.0


class Delivery(SpanExporter):
    """Gives spans to the collector, and tells of lost ones in one line a minute at most.

    Each count is written by one thread alone: those that delivering changes by the SDK's, the others by the worker's.
    """

    def __init__(self, endpoint: str) -> None:
        self.given = 0
        self.refused = 0
        """Spans that were lost because too many waited."""
        self.taken = 0
        self.delivered = 0
        self._told = 0
        self._told_s = -TELL_AGAIN_S
        self._reason = ""
        self._exporter = OTLPSpanExporter(endpoint=endpoint)
        logging.getLogger(OTLPSpanExporter.__module__).addFilter(self._keep_reason)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.delivered += len(spans)
            self._reason = ""
        lost = self.taken - self.delivered + self.refused
        if lost > self._told and time.monotonic() - self._told_s >= TELL_AGAIN_S:
            self._tell(lost)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def give_up(self) -> None:
        """Tells of all that has not been delivered, unless it is told already, and tries no more."""
        lost = self.given - self.delivered + self.refused
        if lost > self._told:
            self._tell(lost)
        self.shutdown()

    def _keep_reason(self, record: logging.LogRecord) -> bool:
        """Takes each line of the exporter's (a filter of its log): it writes several for each batch that fails."""
        self._reason = record.getMessage()
        return False

    def _tell(self, lost: int) -> None:
        self._told, self._told_s = lost, time.monotonic()
        log.warning("tracing: %d spans were lost so far. %s", lost, self._reason)


class Queue(BatchSpanProcessor):
    """The SDK's queue and thread. Its own bound is never reached: beyond that it would log, for each request."""

    def __init__(self, delivery: Delivery) -> None:
        super().__init__(delivery, max_queue_size=WAITING_MAX)
        self._delivery = delivery

    def on_end(self, span: ReadableSpan) -> None:
        if self._delivery.given - self._delivery.taken >= WAITING_MAX:
            self._delivery.refused += 1
        else:
            self._delivery.given += 1
            super().on_end(span)


class Tracing:
    """A worker's spans."""

    def __init__(self, collector: str, worker: str) -> None:
        """`collector` is the URL to which `/v1/traces` is added, `worker` the name that tells this one from others."""
        own = {"service.name": "relaygate", "service.version": VERSION, "service.instance.id": worker}
        self._provider = TracerProvider(
            resource=Resource.create(own).merge(OTELResourceDetector().detect()), shutdown_on_exit=False
        )
        self._delivery = Delivery(f"{collector.rstrip('/')}/v1/traces")
        self._provider.add_span_processor(Queue(self._delivery))
        self._tracer = self._provider.get_tracer("relaygate", VERSION)

    def add(
        self, name: str, parent: Parent | None, duration_s: float, attributes: Mapping[str, str | int], *, failed: bool
    ) -> None:
        """Adds the span of a request that ends now. The SDK decides if it is sampled: by default, as its parent."""
        ended_ns = time.time_ns()
        context = Context()
        if parent is not None:
            flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
            remote = SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags)
            context = set_span_in_context(NonRecordingSpan(remote), context)
        span = self._tracer.start_span(
            name, context, SpanKind.SERVER, attributes, start_time=ended_ns - int(duration_s * 1e9)
        )
        if failed:
            span.set_status(StatusCode.ERROR)
        span.end(ended_ns)

    def close(self) -> None:
        """Delivers what waits, for a moment: the SDK itself would take up to 30 s where nobody answers."""
        last = threading.Thread(target=self._provider.shutdown, daemon=True)
        last.start()
        last.join(LAST_SPANS_TIMEOUT_S)
        if last.is_alive():
            self._delivery.give_up()
