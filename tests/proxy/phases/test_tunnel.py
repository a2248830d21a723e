"""Tunnels through the real relay: what handshakes become, what each side is told of the other's end, what is counted.

How messages cross, and what becomes of those that break the protocol, stands in tests/end_to_end/test_websocket.py.
"""

import json
import signal
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from proxy.rules.websocket import accept_value, masked
from tests.end_to_end.certificates import Certificates
from tests.end_to_end.process_tree import descendants
from tests.end_to_end.raw_client import ClosedEarlyError, Header, Response
from tests.end_to_end.relay_process import JsonObject, Relay
from tests.end_to_end.waiting import eventually
from tests.end_to_end.websocket_frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    WebSocketClient,
    close_payload,
    encode_frame,
)

DEADLINE_S = 10.0
SHORT_S = 0.3
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a RST


class Wire:
    """An upstream's end of one connection, in bytes."""

    def __init__(self, accepted: socket.socket) -> None:
        accepted.settimeout(DEADLINE_S)
        self.socket = accepted
        self.head: list[tuple[str, str]] = []
        self.line = ""

    def read_head(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self.socket.recv(1)
            assert byte, f"no head, but {head!r}"
            head += byte
        self.line, *lines = head.decode("latin-1")[:-4].split("\r\n")
        self.head = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]

    def values(self, name: str) -> list[str]:
        return [value for field, value in self.head if field == name]

    def switch(self, *fields: bytes, more: bytes = b"") -> None:
        """Accepts the handshake that has been read; `more` goes out in the same segment."""
        (key,) = self.values("sec-websocket-key")
        lines = [
            b"HTTP/1.1 101 Switching Protocols",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + accept_value(key.encode()),
            *fields,
        ]
        self.socket.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + more)

    def send(self, opcode: int, payload: bytes) -> None:
        self.socket.sendall(encode_frame(opcode, payload, mask=None))

    def receive(self) -> tuple[int, bytes] | None:
        """The next frame's opcode and payload; None where the connection ends without one."""
        try:
            first, second = self._take(2)
            size = second & 0x7F
            if size > 125:
                size = int.from_bytes(self._take(2 if size == 126 else 8), "big")
            mask = self._take(4)
            return first & 0x0F, masked(self._take(size), mask)
        except (EOFError, ConnectionResetError):
            return None

    def is_left(self) -> bool:
        """Whether the relay has closed the connection; whatever else comes is passed over."""
        self.socket.settimeout(SHORT_S)
        try:
            while self.socket.recv(65_536):
                pass
        except TimeoutError:
            return False
        except ConnectionResetError:
            pass
        return True

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.socket.close()

    def _take(self, size: int) -> bytes:
        taken = b""
        while len(taken) < size:
            data = self.socket.recv(size - len(taken))
            if not data:
                raise EOFError
            taken += data
        return taken


class Upstream:
    """A listener whose connections the test plays itself, and clients that come to it through the relay."""

    def __init__(self, stack: ExitStack, tls: ssl.SSLContext | None = None) -> None:
        self.opened = ExitStack()
        """What a test has opened, closed when it ends."""
        self._tls = tls
        self._listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._listener.settimeout(DEADLINE_S)
        self._threads = stack.enter_context(ThreadPoolExecutor(4))
        self.authority = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def accept(self) -> Wire:
        accepted = self.opened.enter_context(self._listener.accept()[0])
        accepted.settimeout(DEADLINE_S)
        if self._tls is not None:
            accepted = self.opened.enter_context(self._tls.wrap_socket(accepted, server_side=True))
        return Wire(accepted)

    def knock(
        self, relay: Relay, target: str, headers: list[Header] | None = None
    ) -> tuple[WebSocketClient, Future[Response]]:
        """A client that shakes hands in a thread of its own."""
        client = WebSocketClient(self.opened.enter_context(relay.client()))
        return client, self._threads.submit(client.handshake, target, headers or [])

    def tunnel(self, relay: Relay, target: str = "/up") -> tuple[WebSocketClient, Wire]:
        """Both ends of an open tunnel."""
        client, shaking = self.knock(relay, target)
        wire = self.accept()
        wire.read_head()
        wire.switch()
        assert shaking.result(DEADLINE_S).status == 101
        return client, wire


@pytest.fixture(name="stack", scope="module")
def fixture_stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(name="certificates", scope="module")
def fixture_certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(name="upstream", scope="module")
def fixture_upstream(stack: ExitStack) -> Upstream:
    return Upstream(stack)


@pytest.fixture(name="tls_upstream", scope="module")
def fixture_tls_upstream(stack: ExitStack, certificates: Certificates) -> Upstream:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.good.certificate, certificates.good.key)
    return Upstream(stack, context)


@contextmanager
def running(directory: Path, configuration: JsonObject, client_tls: ssl.SSLContext | None = None) -> Iterator[Relay]:
    relay = Relay(directory, configuration, client_tls)
    relay.start()
    try:
        yield relay
    finally:
        relay.stop()


@pytest.fixture(name="relay", scope="module")
def fixture_relay(
    upstream: Upstream,
    tls_upstream: Upstream,
    certificates: Certificates,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Relay]:
    plain = f"http://{upstream.authority}/base"
    routes: dict[str, Any] = {
        "/up": plain,
        "/preserve": {"target": plain, "preserve_host": True},
        "/append": {"target": plain, "forwarded": "append", "via": "relaygate"},
        "/timeout": {"target": plain, "head_timeout_s": SHORT_S},
        "/silent": {"target": plain, "idle_timeout_s": SHORT_S},
        "/one": {"target": plain, "max_connections": 1, "pool_wait_s": SHORT_S, "connect_timeout_s": 9},
        "/tls": {"target": f"https://{tls_upstream.authority}/base", "tls": {"ca": str(certificates.ca)}},
        "/tls-stranger": {"target": f"https://{tls_upstream.authority}", "tls": {"ca": str(certificates.stranger_ca)}},
    }
    with running(tmp_path_factory.mktemp("relay"), {"routes": routes}) as relay:
        yield relay


@pytest.fixture(autouse=True)
def _leaves_nothing_open_or_unsaid(relay: Relay, upstream: Upstream, tls_upstream: Upstream) -> Iterator[None]:
    with upstream.opened, tls_upstream.opened:
        yield
    relay.check_output()


def log_lines(relay: Relay, target: str) -> list[JsonObject]:
    """The access log's lines for a target."""
    lines = [json.loads(line) for line in relay.output().splitlines() if line.startswith("{")]
    return [line for line in lines if line["target"] == target]


# ---- handshakes -----------------------------------------------------------------------------------------------------


def test_the_handshake_is_the_clients_but_for_what_belongs_to_one_hop(relay: Relay, upstream: Upstream) -> None:
    fields = [
        (b"X-Bytes", b"caf\xe9"),
        (b"Sec-WebSocket-Extensions", b"permessage-deflate"),
        (b"X-Twice", b"1"),
        (b"X-Twice", b"2"),
        (b"Sec-WebSocket-Protocol", b"a"),
        (b"Sec-WebSocket-Protocol", b"b, c"),
        (b"TE", b"trailers"),
        (b"X-Empty", b""),
    ]
    client, shaking = upstream.knock(relay, "/up//a%2Fb?q=%20&r", fields)
    wire = upstream.accept()
    wire.read_head()
    assert wire.line == "GET /base//a%2Fb?q=%20&r HTTP/1.1"
    key = wire.values("sec-websocket-key")[0]
    assert wire.head == [
        ("host", upstream.authority),
        ("x-bytes", "caf\xe9"),
        ("x-twice", "1"),
        ("x-twice", "2"),
        ("x-empty", ""),
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-key", key),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "a, b, c"),
    ]
    wire.switch(b"Sec-WebSocket-Protocol: b", b"Set-Cookie: a", b"Set-Cookie: b")
    response = shaking.result(DEADLINE_S)
    assert response.status == 101
    assert response.values("sec-websocket-protocol") == [b"b"]
    assert response.values("sec-websocket-extensions") == []
    client.wire.close()


def test_host_and_forwarding_fields_are_as_for_any_request(relay: Relay, upstream: Upstream) -> None:
    """The scheme is the request's, not `ws`."""
    for target in ("/preserve", "/append"):
        client, shaking = upstream.knock(relay, target)
        wire = upstream.accept()
        wire.read_head()
        if target == "/preserve":
            assert wire.values("host") == ["relay.test"]
            assert wire.values("forwarded") == []
        else:
            assert wire.values("host") == [upstream.authority]
            assert wire.values("forwarded") == ["for=127.0.0.1;proto=http;host=relay.test"]
            assert wire.values("x-forwarded-proto") == ["http"]
            assert wire.values("via") == ["1.1 relaygate"]
        wire.switch()
        assert shaking.result(DEADLINE_S).status == 101
        client.wire.close()
        assert wire.is_left()


def test_a_secure_upstream_is_spoken_to_over_tls(relay: Relay, tls_upstream: Upstream) -> None:
    client, wire = tls_upstream.tunnel(relay, "/tls/echo")
    assert wire.line == "GET /base/echo HTTP/1.1"
    payload = bytes(range(256)) * 1024
    client.send(BINARY, payload)
    assert wire.receive() == (BINARY, payload)
    wire.send(BINARY, payload)
    assert client.receive_message().payload == payload
    client.send(CLOSE, close_payload(3000))
    assert wire.receive() == (CLOSE, close_payload(3000))


def test_an_upstream_whose_certificate_is_a_strangers_is_a_bad_gateway(relay: Relay, tls_upstream: Upstream) -> None:
    _, shaking = tls_upstream.knock(relay, "/tls-stranger")
    with pytest.raises(ssl.SSLError):
        tls_upstream.accept()
    response = shaking.result(DEADLINE_S)
    assert (response.status, response.error_type()) == (502, "certificate_invalid")


def test_a_secure_listener_tunnels_too(tmp_path: Path, upstream: Upstream, certificates: Certificates) -> None:
    good = certificates.good
    configuration = {
        "tls": {"certificate": str(good.certificate), "key": str(good.key)},
        "routes": {"/up": {"target": f"http://{upstream.authority}", "forwarded": "replace"}},
    }
    with running(tmp_path, configuration, certificates.client_tls()) as relay:
        client, wire = upstream.tunnel(relay)
        assert wire.values("x-forwarded-proto") == ["https"]
        client.send(TEXT, b"hello")
        assert wire.receive() == (TEXT, b"hello")
        wire.socket.close()
        assert client.receive_close() == (None, "")


def test_a_refusal_is_relayed_and_its_connection_used_again(relay: Relay, upstream: Upstream) -> None:
    body = b"x" * 100_000
    _, shaking = upstream.knock(relay, "/up/first", [(b"X-Request-Id", b"mine")])
    wire = upstream.accept()
    wire.read_head()
    fields = b"WWW-Authenticate: Basic\r\nWWW-Authenticate: Bearer\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
    wire.socket.sendall(b"HTTP/1.1 401 No\r\n%bContent-Length: %d\r\n\r\n%b" % (fields, len(body), body))
    response = shaking.result(DEADLINE_S)
    assert (response.status, response.body) == (401, body)
    (line,) = eventually(lambda: log_lines(relay, "/up/first"))
    assert (line["status"], line["response_bytes"], line["truncated"]) == (401, len(body), False)
    assert response.values("www-authenticate") == [b"Basic, Bearer"]
    assert response.values("set-cookie") == [b"a=1"]
    assert response.values("x-request-id") == [b"mine"]
    _, shaking = upstream.knock(relay, "/up/second")
    wire.read_head()
    assert wire.line == "GET /base/second HTTP/1.1"
    wire.socket.sendall(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\nX-Request-Id: theirs\r\nConnection: close\r\n\r\n")
    response = shaking.result(DEADLINE_S)
    assert (response.status, response.body) == (404, b"")
    assert response.values("x-request-id") == [b"theirs"]
    assert response.values("x-relaygate-request-id")


@pytest.mark.parametrize(
    ("answer", "status", "word"),
    [
        (b"HTTP/1.1 401 No\r\nContent-Length: 100\r\n\r\nshort", 502, "truncated"),
        (b"HTTP/1.1 401 No\r\nContent-Length: 2000000\r\n\r\n" + bytes(2_000_000), 502, "bad_response"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 502, "bad_response"),
        (b"\x88\x00", 502, "bad_response"),
        (b"", 502, "closed"),
    ],
)
def test_an_answer_that_is_none_is_a_bad_gateway(
    relay: Relay, upstream: Upstream, answer: bytes, status: int, word: str
) -> None:
    _, shaking = upstream.knock(relay, "/up")
    wire = upstream.accept()
    wire.read_head()
    with suppress(OSError):  # the relay leaves in the middle of an answer that is too long
        wire.socket.sendall(answer)
        wire.socket.shutdown(socket.SHUT_WR)
    response = shaking.result(DEADLINE_S)
    assert (response.status, response.error_type()) == (status, word)
    assert response.values("x-request-id")
    wire.socket.close()


@pytest.mark.parametrize(
    ("target", "answer", "word"),
    [
        ("/timeout", b"", "head_timeout"),
        ("/silent", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", "idle_timeout"),
    ],
)
def test_an_upstream_that_falls_silent_is_a_gateway_timeout(
    relay: Relay, upstream: Upstream, target: str, answer: bytes, word: str
) -> None:
    _, shaking = upstream.knock(relay, target)
    wire = upstream.accept()
    wire.read_head()
    wire.socket.sendall(answer)
    response = shaking.result(DEADLINE_S)
    assert (response.status, response.error_type()) == (504, word)
    assert wire.is_left()


def test_tunnels_count_as_connections_of_their_origin(relay: Relay, upstream: Upstream) -> None:
    client, wire = upstream.tunnel(relay, "/one")
    _, shaking = upstream.knock(relay, "/one")
    response = shaking.result(DEADLINE_S)
    assert (response.status, response.error_type()) == (503, "pool_full")
    assert response.values("retry-after") == [b"1"]
    client.send(CLOSE, close_payload(1000))
    assert wire.receive() == (CLOSE, close_payload(1000))
    wire.send(CLOSE, close_payload(1000))
    wire.socket.close()
    client, wire = upstream.tunnel(relay, "/one")
    client.wire.reset()
    assert wire.is_left()


def test_a_pooled_connection_that_has_died_is_replaced(relay: Relay, upstream: Upstream) -> None:
    _, shaking = upstream.knock(relay, "/up")
    wire = upstream.accept()
    wire.read_head()
    wire.socket.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
    assert shaking.result(DEADLINE_S).status == 403
    client, shaking = upstream.knock(relay, "/up")
    wire.read_head()
    wire.reset()
    fresh = upstream.accept()
    fresh.read_head()
    fresh.switch()
    assert shaking.result(DEADLINE_S).status == 101
    client.wire.close()
    assert fresh.is_left()


# ---- what is said before and after ----------------------------------------------------------------------------------


def test_messages_in_the_segment_of_the_handshake_are_not_lost(relay: Relay, upstream: Upstream) -> None:
    """Nor is the end of an upstream that says all it has to say and closes at once."""
    client, shaking = upstream.knock(relay, "/up")
    wire = upstream.accept()
    wire.read_head()
    frames = [(TEXT, b"early"), (BINARY, bytes(100_000)), (CLOSE, close_payload(4001, "that was all"))]
    wire.switch(more=b"".join(encode_frame(opcode, payload, mask=None) for opcode, payload in frames))
    wire.socket.shutdown(socket.SHUT_WR)
    assert shaking.result(DEADLINE_S).status == 101
    assert client.receive_message().payload == b"early"
    assert client.receive_message().payload == bytes(100_000)
    assert client.receive_close() == (4001, "that was all")
    assert wire.is_left()


def test_pings_are_answered_by_the_hop_that_gets_them(relay: Relay, upstream: Upstream) -> None:
    client, wire = upstream.tunnel(relay)
    wire.send(PING, b"upstream's")
    assert wire.receive() == (PONG, b"upstream's")
    client.send(PING, b"client's")
    client.send(TEXT, b"message")
    assert client.receive()[1:] == (PONG, b"client's")
    assert wire.receive() == (TEXT, b"message")
    client.wire.close()
    assert wire.is_left()


# ---- endings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", close_payload(1000), close_payload(1012), close_payload(4000)])
def test_a_clients_close_frame_crosses_and_is_answered(relay: Relay, upstream: Upstream, payload: bytes) -> None:
    """One without a code stays one, though Granian tells it like a connection that broke off."""
    client, wire = upstream.tunnel(relay)
    client.send(TEXT, b"last")
    client.send(CLOSE, payload)
    assert wire.receive() == (TEXT, b"last")
    assert wire.receive() == (CLOSE, payload)
    assert client.receive()[1:] == (CLOSE, payload)
    wire.send(TEXT, b"too late")
    wire.send(CLOSE, payload)
    wire.socket.shutdown(socket.SHUT_WR)
    assert wire.receive() is None
    client.wire.close()


@pytest.mark.parametrize("payload", [b"", close_payload(1000), close_payload(1014), close_payload(4000, "ä" * 60)])
def test_an_upstreams_close_frame_crosses_and_is_answered(relay: Relay, upstream: Upstream, payload: bytes) -> None:
    client, wire = upstream.tunnel(relay)
    wire.send(TEXT, b"last")
    wire.send(CLOSE, payload)
    assert wire.receive() == (CLOSE, payload)
    wire.socket.close()
    assert client.receive_message().payload == b"last"
    assert client.receive()[1:] == (CLOSE, payload)
    client.wire.close()


@pytest.mark.parametrize("leave", ["close", "reset"])
def test_a_client_that_breaks_off_breaks_off_the_upstream(relay: Relay, upstream: Upstream, leave: str) -> None:
    client, wire = upstream.tunnel(relay, f"/up/{leave}")
    client.send(TEXT, b"last")
    assert wire.receive() == (TEXT, b"last")
    getattr(client.wire, leave)()
    assert wire.receive() is None
    (line,) = eventually(lambda: log_lines(relay, f"/up/{leave}"))
    assert line["truncated"]


@pytest.mark.parametrize("leave", ["close", "reset"])
def test_an_upstream_that_breaks_off_breaks_off_the_client(relay: Relay, upstream: Upstream, leave: str) -> None:
    client, wire = upstream.tunnel(relay, f"/up/upstream-{leave}")
    wire.send(TEXT, b"last")
    assert client.receive_message().payload == b"last"
    if leave == "close":
        wire.socket.close()
    else:
        wire.reset()
    assert client.receive_close() == (None, "")
    (line,) = eventually(lambda: log_lines(relay, f"/up/upstream-{leave}"))
    assert (line["truncated"], line["error"]) == (True, "truncated")


def test_a_client_that_leaves_during_the_handshake_leaves_no_tunnel(relay: Relay, upstream: Upstream) -> None:
    """Granian tells only with the upstream's answer that it has left."""
    client, shaking = upstream.knock(relay, "/up")
    wire = upstream.accept()
    wire.read_head()
    client.wire.socket.shutdown(socket.SHUT_RDWR)
    client.wire.close()
    assert isinstance(shaking.exception(DEADLINE_S), OSError | ClosedEarlyError)
    wire.switch()
    assert wire.receive() is None


def test_each_side_that_stalls_is_left_when_the_other_has_gone(relay: Relay, upstream: Upstream) -> None:
    client, wire = upstream.tunnel(relay)
    client.wire.socket.settimeout(0.5)
    with suppress(TimeoutError):
        while True:
            client.send(BINARY, bytes(65_536))
    client.wire.reset()
    # What was sent is still on its way; behind it comes the end.
    while (frame := wire.receive()) is not None:
        assert frame[0] == BINARY
    client, wire = upstream.tunnel(relay)
    wire.socket.settimeout(0.5)
    with suppress(TimeoutError):
        while True:
            wire.send(BINARY, bytes(65_536))
    started_s = time.monotonic()
    client.wire.reset()
    assert wire.is_left()
    assert time.monotonic() - started_s < 2


# ---- counting and stopping ------------------------------------------------------------------------------------------


def test_a_tunnel_is_one_line_of_the_access_log(relay: Relay, upstream: Upstream) -> None:
    client, wire = upstream.tunnel(relay, "/up/counted?key=canary-5ecret")
    client.send(TEXT, "ä".encode())
    client.send(BINARY, bytes(1000))
    assert wire.receive()
    assert wire.receive()
    wire.send(TEXT, "世".encode())
    wire.send(CLOSE, close_payload(1000))
    assert client.receive_close()[0] == 1000
    wire.socket.close()
    (line,) = eventually(lambda: [line for line in log_lines_of(relay) if "counted" in line["target"]])
    assert (line["status"], line["request_bytes"], line["response_bytes"]) == (101, 1002, 3)
    assert (line["method"], line["route"], line["truncated"], line["error"]) == ("GET", "/up", False, None)


def log_lines_of(relay: Relay) -> list[JsonObject]:
    return [json.loads(line) for line in relay.output().splitlines() if line.startswith("{")]


def test_tunnels_count_as_connections_of_the_relay(tmp_path: Path, upstream: Upstream) -> None:
    configuration = {"server": {"max_connections": 1}, "routes": {"/up": f"http://{upstream.authority}"}}
    with running(tmp_path, configuration) as relay:
        client, wire = upstream.tunnel(relay)
        response = relay.get("/up")
        assert (response.status, response.error_type()) == (503, "overloaded")
        _, shaking = upstream.knock(relay, "/up")
        response = shaking.result(DEADLINE_S)
        assert (response.status, response.error_type()) == (503, "overloaded")
        client.send(CLOSE, close_payload(1000))
        assert wire.receive() == (CLOSE, close_payload(1000))
        wire.socket.close()
        assert eventually(lambda: relay.get("/healthz").status == 200)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_relay_that_stops_tells_both_sides(tmp_path: Path, upstream: Upstream, number: signal.Signals) -> None:
    with running(tmp_path, {"routes": {"/up": f"http://{upstream.authority}"}}) as relay:
        tunnels = [upstream.tunnel(relay) for _ in range(5)]
        relay.signal(number)
        for client, wire in tunnels:
            assert client.receive_close()[0] == 1001
            received = wire.receive()
            assert received is not None
            assert (received[0], received[1][:2]) == (CLOSE, close_payload(1001))
            wire.socket.close()
        assert relay.wait() == 0


def test_peers_that_do_not_answer_hold_a_stop_up_for_a_second(tmp_path: Path, upstream: Upstream) -> None:
    with running(tmp_path, {"routes": {"/up": f"http://{upstream.authority}"}}) as relay:
        _, wire = upstream.tunnel(relay)
        started_s = time.monotonic()
        relay.signal(signal.SIGTERM)
        assert relay.wait() == 0
        assert time.monotonic() - started_s < 3
        assert wire.receive()


def test_no_descriptor_is_left_behind(relay: Relay, upstream: Upstream) -> None:
    assert relay.process is not None
    (worker,) = (pid for pid in descendants(relay.process.pid) if descriptors(pid)() > 10)
    count = descriptors(worker)

    def open_and_end(number: int) -> None:
        client, wire = upstream.tunnel(relay)
        if number % 2:
            wire.reset()
            assert client.receive_close() == (None, "")
            client.wire.close()
        else:
            client.wire.reset()
            assert wire.receive() is None
            wire.socket.close()

    open_and_end(0)
    before = count()
    for number in range(20):
        open_and_end(number)
    eventually(lambda: count() <= before, what="the closing of all descriptors")


def descriptors(pid: int) -> Callable[[], int]:
    """What counts the descriptors of a process."""
    return lambda: sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
