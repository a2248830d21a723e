"""The fake upstream does what it is told, byte for byte: a test that trusts it must be able to."""

import base64
import hashlib
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from loadtests.fake_behaviours import pattern_slice
from loadtests.fake_upstream import UpstreamInThread, running_in_thread


@pytest.fixture(name="upstream", scope="module")
def fixture_upstream() -> Iterator[UpstreamInThread]:
    with running_in_thread() as upstream:
        yield upstream


def connected(upstream: UpstreamInThread) -> socket.socket:
    return socket.create_connection(("127.0.0.1", upstream.port), timeout=5)


def read_until_closed(wire: socket.socket) -> bytes:
    received = b""
    while piece := wire.recv(65536):
        received += piece
    return received


def received_with(wire: socket.socket, ending: bytes) -> bytes:
    """All that comes, up to and with `ending`."""
    received = b""
    while not received.endswith(ending):
        piece = wire.recv(65536)
        assert piece, "closed before the expected end"
        received += piece
    return received


def exchange(upstream: UpstreamInThread, request: bytes) -> bytes:
    """Send, and return all that comes until the upstream closes."""
    with connected(upstream) as wire:
        wire.sendall(request)
        return read_until_closed(wire)


def get(path: str, extra: str = "Connection: close\r\n") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{extra}\r\n".encode("latin-1")


def post(path: str, document: dict[str, Any]) -> bytes:
    body = json.dumps(document).encode()
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )


def body_of(response: bytes) -> bytes:
    return response.partition(b"\r\n\r\n")[2]


def dechunked(response: bytes) -> bytes:
    rest, body = body_of(response), b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if int(size, 16) == 0:
            return body
        body += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]


def eventually(condition: Callable[[], bool], deadline_s: float = 5) -> None:
    end_s = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end_s, "did not come true in time"
        time.sleep(0.005)


def test_a_request_is_recorded_as_it_came(upstream: UpstreamInThread) -> None:
    fields = b"Host: x\r\nX-A:  1 \r\nx-a: \xe9\r\nConnection: close\r\nContent-Length: 5\r\n"
    head = b"POST /echo?a=%20b HTTP/1.1\r\n" + fields + b"\r\n"
    since = len(upstream.requests)
    answered = json.loads(body_of(exchange(upstream, head + b"hello")))
    (recorded,) = upstream.requests[since:]
    assert recorded.head == head
    assert bytes(recorded.body) == b"hello"
    assert recorded.body_sha256 == hashlib.sha256(b"hello").hexdigest()
    assert recorded.values("x-a") == [b"1", b"\xe9"]
    assert recorded.complete
    assert answered["head"].encode("latin-1") == head
    assert base64.b64decode(answered["body_base64"]) == b"hello"


def test_chunked_requests_are_decoded_with_trailers(upstream: UpstreamInThread) -> None:
    request = b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    answered = json.loads(body_of(exchange(upstream, request + b"3\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: v\r\n\r\n")))
    assert base64.b64decode(answered["body_base64"]) == b"abc0123456789"
    assert (answered["framing"], answered["trailers"], answered["complete"]) == ("chunked", "T: v\r\n", True)


def test_an_incomplete_request_stays_incomplete(upstream: UpstreamInThread) -> None:
    since = len(upstream.requests)
    with connected(upstream) as wire:
        wire.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nonly this")
        eventually(lambda: len(upstream.requests) > since and upstream.requests[since].body_bytes == 9)
    eventually(lambda: upstream.requests[since].peer_closed_s is not None)
    assert not upstream.requests[since].complete
    eventually(lambda: upstream.open_connections == 0)


def test_answer_sends_what_is_asked(upstream: UpstreamInThread) -> None:
    path = "/answer?status=299&reason=&header=Set-Cookie:a&header=set-cookie:%E9&body=hi"
    assert exchange(upstream, get(path)) == (
        b"HTTP/1.1 299 \r\nSet-Cookie: a\r\nset-cookie: \xe9\r\ncontent-length: 2\r\n\r\nhi"
    )


def test_answer_can_be_chunked_with_interim_and_trailer(upstream: UpstreamInThread) -> None:
    answered = exchange(
        upstream, get("/answer?framing=chunked&body_bytes=10&piece_bytes=4&interim=100,103&trailer=X-T:v")
    )
    assert answered.startswith(b"HTTP/1.1 100 Interim\r\n")
    assert b"HTTP/1.1 103 Interim\r\n" in answered
    assert answered.endswith(b"\r\n\r\n4\r\n" + pattern_slice(0, 4) + b"\r\n4\r\n" + pattern_slice(4, 4) + b"\r\n2\r\n"
                             + pattern_slice(8, 2) + b"\r\n0\r\nX-T: v\r\n\r\n")  # fmt: skip


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_cuts_by_fin(upstream: UpstreamInThread, framing: str) -> None:
    answered = exchange(upstream, get(f"/answer?framing={framing}&body_bytes=1000&cut_after_bytes=100&end=fin", ""))
    assert pattern_slice(0, 100) in answered
    assert pattern_slice(0, 101) not in answered
    assert not answered.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_cuts_by_reset(upstream: UpstreamInThread, framing: str) -> None:
    with connected(upstream) as wire:
        wire.sendall(get(f"/answer?framing={framing}&body_bytes=1000&cut_after_bytes=100&end=rst", ""))
        with pytest.raises(ConnectionResetError):
            read_until_closed(wire)


def test_wrong_length_and_silent_close(upstream: UpstreamInThread) -> None:
    answered = exchange(upstream, get("/answer?body=abc&declared_bytes=99&end=fin", ""))
    assert b"content-length: 99\r\n" in answered
    assert body_of(answered) == b"abc"


def test_an_idle_connection_is_closed_after_its_time(upstream: UpstreamInThread) -> None:
    started_s = time.monotonic()
    exchange(upstream, get("/answer?body=abc&idle_ms=200", ""))
    assert 0.2 <= time.monotonic() - started_s < 2


def test_idle_connections_can_be_closed_from_outside(upstream: UpstreamInThread) -> None:
    with connected(upstream) as wire:
        wire.sendall(get("/answer?body=abc", ""))
        eventually(lambda: upstream.open_connections == 1)
        assert received_with(wire, b"abc")
        eventually(lambda: upstream.close_idle_from_outside() == 1)
        assert wire.recv(1000) == b""


def test_raw_sends_any_bytes(upstream: UpstreamInThread) -> None:
    pieces = [base64.urlsafe_b64encode(piece).decode() for piece in (b"\x00\xff garbage", b"\n\n")]
    path = f"/raw?piece={quote(pieces[0])}&piece={quote(pieces[1])}&pause_ms=10&end=fin"
    assert exchange(upstream, get(path, "")) == b"\x00\xff garbage\n\n"


def test_die_answers_the_first_request_and_dies_on_the_second(upstream: UpstreamInThread) -> None:
    with connected(upstream) as wire:
        wire.sendall(get("/die?on=reused", ""))
        assert wire.recv(65536).startswith(b"HTTP/1.1 200 ")
        wire.sendall(get("/die?on=reused", ""))
        assert b"HTTP/1.1" not in read_until_closed(wire)


def test_early_answer_before_the_body(upstream: UpstreamInThread) -> None:
    with connected(upstream) as wire:
        wire.sendall(b"POST /answer?status=413&read=none&end=fin HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        assert wire.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_expect_100_continue_is_answered(upstream: UpstreamInThread) -> None:
    with connected(upstream) as wire:
        wire.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert wire.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.sendall(b"ab")
        assert wire.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_slow_reading_takes_its_time(upstream: UpstreamInThread) -> None:
    started_s = time.monotonic()
    request = b"POST /answer?read=slow&read_bytes_per_s=100000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    exchange(upstream, request + b"Content-Length: 30000\r\n\r\n" + bytes(30_000))
    assert time.monotonic() - started_s >= 0.3


def test_events_are_sent_one_by_one(upstream: UpstreamInThread) -> None:
    events = dechunked(exchange(upstream, get("/sse?events=3&interval_ms=30&segments=3")))
    sent_s = [json.loads(line)["sent_s"] for line in re.findall(rb"data: (.*)\n", events)]
    assert len(sent_s) == 3
    assert sent_s[1] - sent_s[0] >= 0.03


def test_openai_stream_ends_with_usage_and_done(upstream: UpstreamInThread) -> None:
    asked = {"model": "m", "stream": True, "stream_options": {"include_usage": True}}
    events = dechunked(exchange(upstream, post("/v1/chat/completions?words=3", asked))).split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    assert json.loads(events[-3].removeprefix(b"data: "))["usage"]["completion_tokens"] == 3


def test_anthropic_stream_names_its_events(upstream: UpstreamInThread) -> None:
    stream = dechunked(exchange(upstream, post("/v1/messages?words=2", {"model": "m", "stream": True})))
    assert re.findall(rb"event: (\S+)\n", stream) == [
        b"message_start",
        b"content_block_start",
        b"ping",
        b"content_block_delta",
        b"content_block_delta",
        b"content_block_stop",
        b"message_delta",
        b"message_stop",
    ]


def test_gemini_streams_and_answers(upstream: UpstreamInThread) -> None:
    stream = dechunked(exchange(upstream, post("/v1beta/models/g:streamGenerateContent?alt=sse&words=2", {})))
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in stream.split(b"\r\n\r\n") if event]
    assert [one["candidates"][0].get("finishReason") for one in chunks] == [None, "STOP"]
    whole = json.loads(body_of(exchange(upstream, post("/v1beta/models/g:generateContent?words=2", {}))))
    assert whole["usageMetadata"]["candidatesTokenCount"] == 2


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/v1/chat/completions", 429, b'"rate_limit_exceeded"'),
        ("/v1/messages", 529, b'"overloaded_error"'),
        ("/v1beta/models/g:generateContent", 429, b'"RESOURCE_EXHAUSTED"'),
    ],
)
def test_errors_by_query_and_by_model(upstream: UpstreamInThread, path: str, status: int, kind: bytes) -> None:
    for request in (post(f"{path}?error={status}", {}), post(path, {"model": f"error-{status}"})):
        answered = exchange(upstream, request)
        assert answered.startswith(b"HTTP/1.1 %d " % status)
        assert kind in answered


def test_control_shows_and_forgets(upstream: UpstreamInThread) -> None:
    exchange(upstream, get("/_control/reset"))
    exchange(upstream, get("/echo/x"))
    shown = json.loads(body_of(exchange(upstream, get("/_control/requests"))))
    assert [one["target"] for one in shown] == ["/echo/x"]
    assert json.loads(body_of(exchange(upstream, get("/_control/state"))))["requests"] == 1


def test_a_bad_parameter_is_told(upstream: UpstreamInThread) -> None:
    assert exchange(upstream, get("/answer?status=x", "")).startswith(b"HTTP/1.1 500 ")


def test_the_command_says_where_it_listens() -> None:
    command = [sys.executable, "-m", "loadtests.fake_upstream", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.fullmatch(r"listening on 127\.0\.0\.1:(\d+)\n", process.stdout.readline())
            assert found is not None
            with socket.create_connection(("127.0.0.1", int(found[1])), timeout=5) as wire:
                wire.sendall(get("/answer?body_bytes=10&cut_after_bytes=1&end=rst", ""))
                with pytest.raises(ConnectionResetError):
                    read_until_closed(wire)
        finally:
            process.terminate()
