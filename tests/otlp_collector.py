"""An OpenTelemetry collector on a real socket: takes spans by OTLP over HTTP and keeps them, or misbehaves."""

import contextlib
import threading
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

from tests.end_to_end.waiting import eventually

Attributes = dict[str, str | int]


class Collector:
    """What has arrived. `status` is what it answers; it answers nothing while `open_for_answers` is not set."""

    def __init__(self) -> None:
        self.status = 200
        self.open_for_answers = threading.Event()
        self.open_for_answers.set()
        self.requests: list[tuple[str, dict[str, str]]] = []
        """Path and fields (names in lower case) of each export."""
        self.received: list[ResourceSpans] = []
        self.url = ""

    def spans(self) -> list[Span]:
        return [span for one in list(self.received) for scope in one.scope_spans for span in scope.spans]

    def wait_for(self, request_id: str) -> Span:
        """The only span of a request."""
        found = eventually(lambda: self._of(request_id), 20, what=f"a span of {request_id}")
        assert len(found) == 1
        return found[0]

    def _of(self, request_id: str) -> list[Span]:
        return [span for span in self.spans() if attributes_of(span.attributes)["relaygate.request_id"] == request_id]


def attributes_of(pairs: Iterable[KeyValue]) -> Attributes:
    """The attributes of a span or a resource; all of ours are text or integers."""
    return {pair.key: pair.value.string_value or pair.value.int_value for pair in pairs}


@contextlib.contextmanager
def running() -> Iterator[Collector]:
    """A collector for the time of the block."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            collector.open_for_answers.wait()
            if collector.status == 200:
                collector.received.extend(ExportTraceServiceRequest.FromString(body).resource_spans)
            self.send_response(collector.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, name="otlp-collector")
    thread.start()
    try:
        yield collector
    finally:
        collector.open_for_answers.set()
        server.shutdown()
        thread.join()
        server.server_close()
