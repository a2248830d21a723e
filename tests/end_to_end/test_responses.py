"""Responses: kept as they are, ended as they ended, and refused where nobody could say what they mean (C40-C58)."""

import base64
import gzip
import json
import os
import re
import statistics
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import brotli
import pytest

from loadtests.fake_behaviours import pattern_slice
from loadtests.fake_upstream import UpstreamInThread
from tests.end_to_end.asking import answer, raw, response_bytes, sse
from tests.end_to_end.harness import SHORT_TIMEOUT_S, SMALL_HEAD_BYTES_MAX, RelayFarm, Seen
from tests.end_to_end.raw_client import BodyEnd, Header, Response, request_bytes
from tests.end_to_end.relay_process import Relay
from tests.end_to_end.waiting import eventually

OK = b"HTTP/1.1 200 OK"

# What the relay or Granian may add to an upstream's response.
ADDED = {b"date", b"server", b"x-request-id", b"connection", b"transfer-encoding", b"keep-alive"}


def get(relay: Relay, path: str, method: str = "GET") -> Response:
    return relay.request(method, f"/up{path}")


def own(response: Response, *, less: set[bytes] = ADDED) -> list[Header]:
    return [(name.lower(), value) for name, value in response.headers if name.lower() not in less]


def assert_bad_gateway(response: Response) -> None:
    """502 with a word for the cause, and nothing about where or how."""
    assert response.status == 502
    assert response.end is BodyEnd.COMPLETE
    error = response.json()["error"]
    assert re.fullmatch(r"[a-z_]+", error["type"])
    assert not re.search(r"127\.0\.0\.1|:\d{4,5}|\.py|line \d|Error\(", response.body.decode())


def assert_connection_not_reused(relay: Relay, seen: Seen) -> None:
    """The connection of the test's first request carries no other."""
    first = seen.all()[0].connection
    for _ in range(3):
        assert get(relay, "/echo").status == 200
        assert seen.last().connection != first
    eventually(lambda: seen.all()[0].peer_closed_s, what="the close of a connection in an unknown state")


def assert_connection_reused(relay: Relay, seen: Seen) -> None:
    first = seen.all()[0].connection
    assert get(relay, "/echo").status == 200
    assert seen.last().connection == first


def test_c40_fields_are_kept_with_their_order_and_bytes(relay: Relay) -> None:
    fields = [
        b"Set-Cookie: a=1; Path=/",
        b"X-Zulu: 1",
        b"set-cookie: b=2, c",
        b"X-Empty:",
        b"X-Bytes: " + bytes(range(0x80, 0x100)),
        b"X-Zulu: 1",
        b"Set-Cookie: a=1; Path=/",
        b"Content-Length: 2",
        b"ETag: W/\"x\"",
        b"WWW-Authenticate: Basic realm=\"a\", Bearer",
    ]  # fmt: skip
    response = get(relay, raw(response_bytes(OK, *fields, body=b"hi")))
    expected = [(line.partition(b":")[0].lower(), line.partition(b":")[2].strip()) for line in fields]
    received = own(response)
    assert list(dict.fromkeys(name for name, _ in received)) == list(dict.fromkeys(name for name, _ in expected))
    for name in {name for name, _ in expected}:
        assert response.values(name.decode()) == [value for key, value in expected if key == name]
    assert response.body == b"hi"


def test_c40_the_upstreams_server_and_date_are_not_doubled(relay: Relay) -> None:
    fields = (b"Server: theirs/1", b"Date: Sun, 06 Nov 1994 08:49:37 GMT", b"Content-Length: 0")
    response = get(relay, raw(response_bytes(OK, *fields)))
    assert response.values("server") == [b"theirs/1"]
    assert response.values("date") == [b"Sun, 06 Nov 1994 08:49:37 GMT"]


def test_c40_nothing_but_the_known_is_added(relay: Relay) -> None:
    response = get(relay, raw(response_bytes(OK, b"Content-Length: 2", body=b"hi")))
    assert {name for name, _ in own(response)} == {b"content-length"}
    assert b"granian" not in b"".join(response.values("server"))


def test_c41_hop_by_hop_fields_stay_there(relay: Relay) -> None:
    fields = [
        b"Connection: keep-alive, X-Drop",
        b"connection:x-drop-too",
        b"Keep-Alive: timeout=77",
        b"Proxy-Authenticate: Basic",
        b"Proxy-Connection: keep-alive",
        b"Trailer: X-Later",
        b"Upgrade: h2c",
        b"TE: trailers",
        b"X-Drop: 1",
        b"X-Drop-Too: 2",
        b"X-Stays: 3",
        b"Content-Length: 2",
    ]
    response = get(relay, raw(response_bytes(OK, *fields, body=b"hi")))
    assert own(response) == [(b"x-stays", b"3"), (b"content-length", b"2")]
    assert b"x-drop" not in b"".join(response.values("connection")).lower()


def test_c41_connection_close_of_the_upstream_is_its_own_affair(relay: Relay, seen: Seen) -> None:
    with relay.client() as client:
        target = "/up" + raw(response_bytes(OK, b"Connection: close", b"Content-Length: 2", body=b"hi"), end="fin")
        assert client.request("GET", target).body == b"hi"
        assert client.request("GET", "/up/echo").status == 200
    assert_connection_not_reused(relay, seen)


def test_c42_head_keeps_the_length_and_has_no_body(relay: Relay, seen: Seen) -> None:
    with relay.client() as client:
        response = client.request("HEAD", "/up" + answer(body_bytes=1234))
        assert (response.status, response.values("content-length"), response.body) == (200, [b"1234"], b"")
        assert client.request("GET", "/up/echo").status == 200, "the client's connection is out of step"
    assert_connection_reused(relay, seen)


@pytest.mark.parametrize("field", [b"Transfer-Encoding: chunked", b"X-A: b", b"Content-Length: 0"])
def test_c42_head_of_any_framing_invents_no_length(relay: Relay, seen: Seen, field: bytes) -> None:
    with relay.client() as client:
        response = client.request("HEAD", "/up" + raw(response_bytes(OK, field)))
        assert response.status == 200
        assert response.values("content-length") == ([b"0"] if field.startswith(b"C") else [])
        assert client.request("GET", "/up/echo").status == 200
    assert_connection_reused(relay, seen)


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("field", [b"X-A: b", b"Content-Length: 0", b"Content-Length: 1234"])
def test_c42_204_and_304_have_no_body(relay: Relay, seen: Seen, status: int, field: bytes) -> None:
    """A 304 may keep the length that a 200 would have; a 204 must not carry one (RFC 9110 §8.6)."""
    with relay.client() as client:
        response = client.request("GET", "/up" + raw(response_bytes(b"HTTP/1.1 %d X" % status, field)))
        assert (response.status, response.values("transfer-encoding")) == (status, [])
        stated = [field.partition(b": ")[2]] if status == 304 and field.startswith(b"C") else []
        assert response.values("content-length") in ([], stated)
        assert client.request("GET", "/up/echo").status == 200, "the client's connection is out of step"
    assert_connection_reused(relay, seen)


def test_c42_205_with_an_empty_body(relay: Relay, seen: Seen) -> None:
    with relay.client() as client:
        response = client.request("GET", "/up" + raw(response_bytes(b"HTTP/1.1 205 X", b"Content-Length: 0")))
        assert (response.status, response.body, response.end) == (205, b"", BodyEnd.COMPLETE)
        assert client.request("GET", "/up/echo").status == 200
    assert_connection_reused(relay, seen)


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate", "x-unknown"])
def test_c43_coded_bodies_are_untouched(relay: Relay, coding: str, framing: str) -> None:
    text = b"the same words again and again " * 100
    body = {"gzip": gzip.compress(text), "br": brotli.compress(text), "deflate": zlib.compress(text)}.get(
        coding, bytes(range(256))
    )
    encoded = base64.urlsafe_b64encode(body).decode()
    response = get(relay, answer(body64=encoded, framing=framing, header=f"content-encoding:{coding}"))
    assert response.body == body
    assert response.values("content-encoding") == [coding.encode()]


CUTS = [0, 1, 1000, 100_000, 999_999]


@pytest.mark.parametrize("end", ["fin", "rst"])
@pytest.mark.parametrize("after", CUTS)
def test_c44_a_length_cut_short_is_an_error(relay: Relay, seen: Seen, after: int, end: str) -> None:
    response = get(relay, answer(body_bytes=1_000_000, cut_after_bytes=after, end=end))
    assert response.failed
    assert_is_beginning(response)
    assert_connection_not_reused(relay, seen)


@pytest.mark.parametrize("end", ["fin", "rst"])
@pytest.mark.parametrize("after", CUTS)
def test_c45_chunks_cut_short_are_an_error(relay: Relay, seen: Seen, after: int, end: str) -> None:
    response = get(relay, answer(framing="chunked", body_bytes=1_000_000, cut_after_bytes=after, end=end))
    assert response.failed
    assert_is_beginning(response)
    assert_connection_not_reused(relay, seen)


@pytest.mark.parametrize(
    "tail", [b"", b"5", b"5\r\n", b"5\r\nhel", b"5\r\nhello", b"5\r\nhello\r", b"0\r\n", b"0\r\n\r"]
)
def test_c45_chunks_cut_anywhere_are_an_error(relay: Relay, tail: bytes) -> None:
    head = response_bytes(OK, b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n")
    response = get(relay, raw(head, tail, end="fin", pause_ms=5))
    assert response.failed


def test_c44_an_answer_that_is_cut_at_once_has_a_beginning(farm: RelayFarm, upstream: UpstreamInThread) -> None:
    """A client whose connection closes without an answer asks again, though the upstream has done what it was asked.

    Granian's thread is often late here, so it learns of an answer and of its break at once.
    """
    head = response_bytes(OK, b"Content-Type: application/json", b"Content-Length: 400", body=b"x" * 200)
    path = raw(head, end="fin")
    with farm.running({"routes": {"/up": upstream.url}}) as relay, ThreadPoolExecutor(8) as clients:
        make_granian_late(relay)
        for response in clients.map(lambda _: get(relay, path), range(2000)):
            assert (response.status, response.body, response.end) == (200, b"x" * 200, BodyEnd.CUT)


def make_granian_late(relay: Relay) -> None:
    """Has the relay run on one processor, and on that Granian's thread only when nothing else does."""
    processor = min(os.sched_getaffinity(0))
    for pid in relay.pids():
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {processor})
            if (thread / "comm").read_text().startswith("tokio"):
                os.sched_setscheduler(int(thread.name), os.SCHED_IDLE, os.sched_param(0))


def assert_is_beginning(response: Response) -> None:
    """What came of a cut 200 is the beginning of the answer, not something else."""
    if response.status == 200:
        assert response.body == pattern_slice(0, len(response.body))


@pytest.mark.parametrize("end", ["fin", "rst"])
def test_c44_c45_a_cut_event_stream_is_an_error(relay: Relay, end: str) -> None:
    response = get(relay, sse(events=10, cut_after_events=3, end=end))
    assert response.status == 200
    assert response.end is not BodyEnd.COMPLETE
    assert end == "rst" or response.body.count(b"\n\n") == 3


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("size", [0, 5, 300_000])
def test_c46_a_close_delimited_body_is_complete_on_fin(relay: Relay, seen: Seen, version: str, size: int) -> None:
    response = get(relay, answer(version=version, framing="close", body_bytes=size))
    assert (response.status, response.end) == (200, BodyEnd.COMPLETE)
    assert response.body == pattern_slice(0, size)
    assert_connection_not_reused(relay, seen)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("after", [0, 5, 200_000])
def test_c46_a_close_delimited_body_is_an_error_on_reset(relay: Relay, version: str, after: int) -> None:
    path = answer(version=version, framing="close", body_bytes=300_000, cut_after_bytes=after, end="rst")
    response = get(relay, path)
    assert response.failed


def test_c46_an_http_1_0_answer_with_a_length(relay: Relay, seen: Seen) -> None:
    response = get(relay, raw(response_bytes(b"HTTP/1.0 200 OK", b"Content-Length: 2", body=b"hi"), end="fin"))
    assert (response.body, response.end) == (b"hi", BodyEnd.COMPLETE)
    assert_connection_not_reused(relay, seen)


SECRET_TAIL = response_bytes(b"HTTP/1.1 200 OK", b"Content-Length: 6", b"X-Smuggled: yes", body=b"secret")


@pytest.mark.parametrize(
    "response_head",
    [
        response_bytes(OK, b"Content-Length: 5", b"Content-Length: 6"),
        response_bytes(OK, b"Content-Length: 5, 6"),
        response_bytes(OK, b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        response_bytes(OK, b"Transfer-Encoding: chunked", b"Content-Length: 5"),
        response_bytes(OK, b"Content-Length: +5"),
        response_bytes(OK, b"Content-Length: -5"),
        response_bytes(OK, b"Content-Length: 5x"),
        response_bytes(OK, b"Content-Length: 0x5"),
        response_bytes(OK, b"Content-Length: 99999999999999999999999"),
        response_bytes(OK, b"Transfer-Encoding: gzip, chunked"),
        response_bytes(OK, b"Transfer-Encoding: chunked, chunked"),
        response_bytes(OK, b"Transfer-Encoding: xchunked"),
        response_bytes(OK, b"Transfer-Encoding: identity"),
        response_bytes(OK, b"Content-Length : 5"),
        response_bytes(OK, b"X-A: b", b" folded"),
        response_bytes(OK, b"X-A: b\0c", b"Content-Length: 5"),
        response_bytes(OK, b"X A: b", b"Content-Length: 5"),
        response_bytes(OK, b": b", b"Content-Length: 5"),
        response_bytes(OK, b"no colon", b"Content-Length: 5"),
    ],
)
def test_c47_ambiguous_framing_is_a_bad_gateway(relay: Relay, seen: Seen, response_head: bytes) -> None:
    """An error; and nothing of what follows is taken for the answer to the next request."""
    response = get(relay, raw(response_head + b"hello" + SECRET_TAIL))
    assert response.failed
    assert not response.values("x-smuggled")
    assert_connection_not_reused(relay, seen)


def test_c47_two_equal_lengths_are_one_or_refused(relay: Relay) -> None:
    response = get(relay, raw(response_bytes(OK, b"Content-Length: 5", b"Content-Length: 5", body=b"hello")))
    if response.status == 200:
        assert response.values("content-length") == [b"5"]
        assert response.body == b"hello"
    else:
        assert_bad_gateway(response)


@pytest.mark.parametrize(
    "body",
    [b"zz\r\nhello\r\n0\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"5\r\nhelloX0\r\n\r\n",
     b"\r\nhello\r\n0\r\n\r\n", b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n", b"3\r\nhello\r\n0\r\n\r\n"],
)  # fmt: skip
def test_c47_a_bad_chunk_is_an_error(relay: Relay, seen: Seen, body: bytes) -> None:
    response = get(relay, raw(response_bytes(OK, b"Transfer-Encoding: chunked", body=body)))
    assert response.failed
    assert_connection_not_reused(relay, seen)


NO_HTTP = [
    b"garbage\r\n\r\n",
    b"\0\xff\xfe binary \r\n\r\n",
    b"<html>HTTP/0.9 has no head</html>",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"HTTP/1.1200 OK\r\n\r\n",
    b"HTTP/1.1 2OO OK\r\n\r\n",
    b"HTTP/1.1 20\r\n\r\n",
    b"HTTP/1.1 99 X\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 000 X\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 1000 X\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 65736 X\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 -200 X\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/3 200\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\n\r\n\r\n\r\n",
    b"HTTP/1.1 200 OK",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5",
    b"",
]


@pytest.mark.parametrize("garbage", NO_HTTP)
def test_c48_what_is_no_response_is_a_bad_gateway(relay: Relay, seen: Seen, garbage: bytes) -> None:
    workers = relay.pids()
    assert_bad_gateway(get(relay, raw(garbage, end="fin")))
    assert relay.pids() == workers, "a worker died of it"
    assert_connection_not_reused(relay, seen)


@pytest.mark.parametrize("garbage", [piece for piece in NO_HTTP if piece.startswith((b"garb", b"HTTP/1.1 9", b"\0"))])
def test_c48_garbage_is_told_before_the_upstream_closes(relay: Relay, garbage: bytes) -> None:
    assert_bad_gateway(get(relay, raw(garbage, end="hold")))


@pytest.mark.parametrize("status", [b"600", b"700", b"999"])
def test_c48_statuses_that_http_can_carry_do_no_harm(relay: Relay, status: bytes) -> None:
    workers = relay.pids()
    response = get(relay, raw(response_bytes(b"HTTP/1.1 " + status + b" X", b"Content-Length: 0")))
    assert response.status in {int(status), 502}
    assert relay.pids() == workers


def test_c48_a_response_to_nothing_reaches_nobody(relay: Relay, upstream: UpstreamInThread, seen: Seen) -> None:
    """An upstream that answers twice, or before it is asked, poisons no other client's answer."""
    unasked = response_bytes(OK, b"Content-Length: 6", b"X-Smuggled: yes", body=b"secret")
    for pause_ms in (0, 100):
        path = raw(response_bytes(OK, b"Content-Length: 2", body=b"hi"), unasked, pause_ms=pause_ms)
        assert get(relay, path).body == b"hi"
        eventually(lambda: seen.last().peer_closed_s, what="the close of a connection with unasked bytes")
        assert get(relay, "/echo").json()["target"] == "/echo"
    assert upstream.open_connections >= 0


@pytest.mark.parametrize("interim", ["100", "102", "103", "100,102,103,103", "199"])
def test_c49_interim_responses_are_passed_over(relay: Relay, seen: Seen, interim: str) -> None:
    """Granian cannot send one for an application; the final answer is what counts."""
    response = get(relay, answer(interim=interim, body="final", header="x-final:yes"))
    assert (response.status, response.body, response.values("x-final")) == (200, b"final", [b"yes"])
    assert response.values("link") == [], "a field of an interim response leaked into the final one"
    assert_connection_reused(relay, seen)


def test_c49_interim_responses_may_come_long_before_the_answer(relay: Relay) -> None:
    early = response_bytes(b"HTTP/1.1 103 Early Hints", b"Link: </a>; rel=preload")
    final = response_bytes(OK, b"Content-Length: 5", body=b"final")
    assert get(relay, raw(early, early, final, pause_ms=60)).body == b"final"
    assert get(relay, raw(early + final[:9], final[9:], pause_ms=20)).body == b"final"


def test_c49_interim_responses_without_end_are_ended(relay: Relay) -> None:
    """A thousand of them are relayed past or refused; both are ends."""
    interim, final = response_bytes(b"HTTP/1.1 102 Processing"), response_bytes(OK, b"Content-Length: 5", body=b"final")
    response = get(relay, raw(interim, final, repeat=1000))
    assert response.body == b"final" or response.status == 502


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c", b"foo"])
def test_c50_101_to_a_request_that_did_not_ask(relay: Relay, seen: Seen, upgrade: bytes) -> None:
    head = response_bytes(b"HTTP/1.1 101 Switching Protocols", b"Connection: Upgrade", b"Upgrade: " + upgrade)
    assert_bad_gateway(get(relay, raw(head + b"anything")))
    assert_connection_not_reused(relay, seen)


@pytest.mark.parametrize(
    "status", [200, 201, 203, 206, 226, 299, 300, 301, 307, 400, 407, 418, 421, 451, 499, 511, 599]
)
def test_c51_any_status_is_relayed(relay: Relay, status: int) -> None:
    response = get(relay, answer(status=status, body="text", reason=""))
    assert (response.status, response.body) == (status, b"text")


def test_c51_a_status_line_without_reason(relay: Relay) -> None:
    assert get(relay, raw(response_bytes(b"HTTP/1.1 200", b"Content-Length: 2", body=b"hi"))).body == b"hi"
    assert get(relay, raw(response_bytes(b"HTTP/1.1 200 ", b"Content-Length: 2", body=b"hi"))).body == b"hi"


def test_c51_redirects_are_relayed_not_followed(relay: Relay, seen: Seen) -> None:
    response = get(relay, answer(status=302, header="location:/echo/elsewhere"))
    assert (response.status, response.values("location")) == (302, [b"/echo/elsewhere"])
    assert len(seen.all()) == 1


def test_c52_a_head_of_256_kb_is_a_bad_gateway(relay: Relay, seen: Seen) -> None:
    assert_bad_gateway(get(relay, answer(header_bytes=262_144)))
    assert_connection_not_reused(relay, seen)


def test_c52_ten_thousand_headers_are_a_bad_gateway(relay: Relay) -> None:
    assert_bad_gateway(get(relay, answer(headers_count=10_000)))


def test_c52_an_endless_head_is_ended_at_the_limit(relay: Relay, seen: Seen) -> None:
    """The upstream goes on and on; the relay does not wait for it to stop."""
    for piece in (b"HTTP/1.1 200 X\r\nX-Again: ", b"HTTP/1.1 102 X\r\n\r\n"):
        path = raw(piece, repeat=1_000_000, pause_ms=0, end="hold")
        assert_bad_gateway(relay.get("/small-head" + path))
        eventually(lambda: seen.last().peer_closed_s)


def test_c52_an_endless_status_line_or_value_is_ended_at_the_limit(relay: Relay) -> None:
    for piece in (b"HTTP/1.1 200 " + b"O" * 20_000, b"HTTP/1.1 200 OK\r\nX-A: " + b"v" * 20_000, b"H" * 20_000):
        assert_bad_gateway(relay.get("/small-head" + raw(piece, end="hold")))


def test_c52_endless_trailers_and_chunk_extensions_are_ended(relay: Relay, seen: Seen) -> None:
    """The same flood behind the body: cut off, and an error for the client."""
    head = response_bytes(OK, b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n")
    for begin, again in ((b"0\r\n", b"X-Again: and again\r\n"), (b"5;", b"x" * 4000)):
        path = raw(head + begin, again, again=1, repeat=1_000_000, end="hold")
        response = get(relay, path)
        assert response.failed
        eventually(lambda: seen.last().peer_closed_s)


def test_c52_a_head_of_the_size_allowed_is_relayed(relay: Relay) -> None:
    assert len(get(relay, answer(header_bytes=60_000)).value("x-filler")) == 60_000
    assert relay.get("/small-head" + answer(header_bytes=SMALL_HEAD_BYTES_MAX - 500)).status == 200
    assert relay.get("/small-head" + answer(header_bytes=SMALL_HEAD_BYTES_MAX + 500)).status == 502


def test_c52_more_headers_than_granian_can_hold_kill_no_worker(farm: RelayFarm, upstream: UpstreamInThread) -> None:
    """Where the limit of bytes is raised, the number is left: Granian's map panics beyond 24,576 names."""
    routes = {"/up": {"target": upstream.url, "response_head_bytes_max": 2_000_000}}
    with farm.running({"routes": routes}) as relay:
        workers = relay.pids()
        for count in (20_000, 30_000, 60_000):
            response = get(relay, answer(headers_count=count))
            assert response.status in {200, 502}
            assert relay.pids() == workers, f"a worker died of {count} headers"


@pytest.mark.parametrize("byte", [*range(1, 9), 11, 12, *range(14, 32), 127])
def test_c47_a_control_byte_in_a_field_is_a_bad_gateway(relay: Relay, byte: int) -> None:
    workers = relay.pids()
    field = b"X-A: b" + bytes([byte]) + b"c"
    assert_bad_gateway(get(relay, raw(response_bytes(OK, field, b"Content-Length: 2", body=b"hi"))))
    assert relay.pids() == workers


def test_c52_five_hundred_headers_within_the_limit_are_relayed(relay: Relay) -> None:
    assert len([name for name, _ in own(get(relay, answer(headers_count=500))) if name.startswith(b"x-many")]) == 500


def test_c53_trailers_are_dropped_and_the_body_is_whole(relay: Relay, seen: Seen) -> None:
    """Granian has no way to send them. They must not turn into header fields, nor confuse what follows."""
    path = answer(framing="chunked", body="whole", trailer=["x-checksum:1", "x-more:2"], header="trailer:x-checksum")
    response = get(relay, path)
    assert (response.body, response.end) == (b"whole", BodyEnd.COMPLETE)
    assert not response.values("x-checksum")
    assert_connection_reused(relay, seen)


def event_delays_s(response: Response) -> list[float]:
    """How long after its sending each event was whole at the client."""
    delays, end = [], 0
    for event in re.findall(rb"(?:[^\n]+\n)+\n", response.body):
        end += len(event)
        arrived_s = next(at for at, size in response.arrivals if size >= end)
        delays.append(arrived_s - json.loads(re.search(rb"data: (.*)", event)[1])["sent_s"])  # type: ignore[index]
    return delays


def test_c54_each_event_comes_when_it_is_sent(relay: Relay) -> None:
    """400 ms apart: none waits for the next one, and as a rule each is there within 50 ms."""
    response = get(relay, sse(events=6, interval_ms=400))
    delays = event_delays_s(response)
    assert len(delays) == 6
    assert statistics.median(delays) < 0.05
    assert max(delays) < 0.3
    assert response.values("x-accel-buffering") == [b"no"]
    assert response.value("content-type") == b"text/event-stream; charset=utf-8"


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_c54_every_piece_of_any_answer_comes_when_it_is_sent(relay: Relay, framing: str) -> None:
    """Not only event streams: JSON lines and plain text are streamed as well."""
    with relay.client() as client:
        path = answer(framing=framing, body="ab", piece_bytes=1, interval_ms=500, header="content-type:text/plain")
        client.send(request_bytes("GET", f"/up{path}"))
        response = client.read_head()
        client.read_body(response)
    assert response.body == b"ab"
    assert response.arrivals[0][1] == 1, "the first piece waited for the second"
    assert response.arrivals[-1][0] - response.arrivals[0][0] > 0.3


@pytest.mark.parametrize("content_type", ["text/event-stream", "application/json"])
def test_c54_the_head_comes_before_the_first_byte_of_the_body(relay: Relay, content_type: str) -> None:
    head = response_bytes(OK, f"Content-Type: {content_type}".encode(), b"Transfer-Encoding: chunked")
    with relay.client() as client:
        client.send(request_bytes("GET", "/up" + raw(head, end="hold")))
        assert client.read_head().status == 200


def test_c54_accel_buffering_is_said_once_and_only_of_event_streams(relay: Relay) -> None:
    for more in ((b"X-Accel-Buffering: no",), ()):
        fields = (b"Content-Type: Text/Event-Stream;charset=utf-8", *more, b"Content-Length: 0")
        assert get(relay, raw(response_bytes(OK, *fields))).values("x-accel-buffering") == [b"no"]
    assert get(relay, "/echo").values("x-accel-buffering") == []


@pytest.mark.parametrize("end", ["keep", "hold"])
@pytest.mark.parametrize("segments", [1, 3])
def test_c55_a_burst_comes_in_order_and_nothing_is_held_back(relay: Relay, segments: int, end: str) -> None:
    """With `hold`, the upstream says nothing after the last event: it must be there all the same."""
    count = 1000 if segments == 1 else 100
    cut = {"cut_after_events": count, "events": count + 1} if end == "hold" else {"events": count}
    with relay.client() as client:
        client.send(request_bytes("GET", "/up" + sse(segments=segments, end=end, **cut)))
        assert client.read_head().status == 200
        received = b""
        while received.count(b"id: ") < count or not re.search(rb'"filler": ""}\s*\Z', stripped(received)):
            received += client.read_some()
    numbers = [int(number) for number in re.findall(rb"id: (\d+)\n", dechunked(received))]
    assert numbers == list(range(count))


def stripped(received: bytes) -> bytes:
    return received.removesuffix(b"0\r\n\r\n").rstrip(b"\r\n")


def dechunked(received: bytes) -> bytes:
    body, rest = b"", received
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
    return body


@pytest.mark.parametrize(
    ("method", "status_line", "fields"),
    [
        ("GET", b"HTTP/1.1 204 X", ()),
        ("GET", b"HTTP/1.1 304 X", (b"Content-Length: 5",)),
        ("HEAD", b"HTTP/1.1 200 X", (b"Content-Length: 5",)),
        ("GET", b"HTTP/1.1 200 X", (b"Content-Length: 0",)),
    ],
)
@pytest.mark.parametrize("stray", [b"hello", SECRET_TAIL])
@pytest.mark.parametrize("pause_ms", [0, 50])
def test_c56_stray_bytes_end_the_connection(
    relay: Relay,
    seen: Seen,
    method: str,
    status_line: bytes,
    fields: tuple[bytes, ...],
    stray: bytes,
    pause_ms: int,
) -> None:
    path = raw(response_bytes(status_line, *fields), stray, pause_ms=pause_ms)
    response = get(relay, path, method)
    assert response.body == b"" or response.failed
    eventually(lambda: seen.all()[0].peer_closed_s, what="the close of the connection with stray bytes")
    assert_connection_not_reused(relay, seen)


def test_c56_bytes_beyond_the_length_end_the_connection(relay: Relay, seen: Seen) -> None:
    response = get(relay, raw(response_bytes(OK, b"Content-Length: 5", body=b"hello") + SECRET_TAIL))
    assert response.body == b"hello" or response.failed
    assert_connection_not_reused(relay, seen)


def http_1_0(relay: Relay, path: str, *fields: bytes) -> Response:
    with relay.client() as client:
        client.send(f"GET /up{path} HTTP/1.0\r\n".encode() + b"".join(line + b"\r\n" for line in fields) + b"\r\n")
        response = client.read_response()
        assert response.framing == "close" or not response.values("transfer-encoding")
        if response.framing == "close" or not fields:
            assert client.is_closed_by_peer()
        return response


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_c58_an_http_1_0_client_sees_no_chunks(relay: Relay, framing: str) -> None:
    response = http_1_0(relay, answer(framing=framing, body_bytes=100_000))
    assert response.values("transfer-encoding") == []
    assert response.body == pattern_slice(0, 100_000)


def test_c58_an_http_1_0_client_may_keep_its_connection(relay: Relay) -> None:
    response = http_1_0(relay, answer(body="hi"), b"Connection: keep-alive")
    assert response.body == b"hi"


def test_c58_an_http_1_0_client_sees_a_cut_length(relay: Relay) -> None:
    with relay.client() as client:
        path = answer(body_bytes=1_000_000, cut_after_bytes=100_000, end="fin")
        client.send(f"GET /up{path} HTTP/1.0\r\n\r\n".encode())
        assert client.read_response().failed


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", [1, 32_767, 32_768, 32_769, 65_536, 5_000_000])
def test_bodies_of_all_sizes_come_whole(relay: Relay, framing: str, size: int) -> None:
    response = get(relay, answer(framing=framing, body_bytes=size, piece_bytes=50_000))
    assert response.end is BodyEnd.COMPLETE
    assert response.body == pattern_slice(0, size)
    assert framing == "chunked" or response.framing == "length"


@pytest.mark.parametrize("split", range(1, 60, 3))
def test_a_response_split_anywhere_is_the_same(relay: Relay, split: int) -> None:
    whole = response_bytes(OK, b"Transfer-Encoding: chunked", b"X-A: b", body=b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    response = get(relay, raw(whole[:split], whole[split:], pause_ms=3))
    assert (response.status, response.body, response.values("x-a")) == (200, b"abcde", [b"b"])


def test_head_timeout_is_504(relay: Relay, seen: Seen) -> None:
    response = relay.get("/head-timeout/hold")
    assert (response.status, response.error_type()) == (504, "head_timeout")
    eventually(lambda: seen.one().peer_closed_s)


def test_head_timeout_does_not_count_a_slow_upload(relay: Relay) -> None:
    """It runs from the sent request on, however long the sending took."""
    with relay.client() as client:
        client.send(request_bytes("POST", "/head-timeout/echo", [(b"Content-Length", b"10")]) + b"hello")
        time.sleep(2 * SHORT_TIMEOUT_S)
        client.send(b"world")
        assert client.read_response().status == 200


def test_head_timeout_does_not_count_the_body(relay: Relay) -> None:
    slow = answer(body="abc", piece_bytes=1, interval_ms=int(SHORT_TIMEOUT_S * 1000))
    assert relay.get("/head-timeout" + slow).body == b"abc"


def test_idle_timeout_breaks_a_silent_body_off(relay: Relay, seen: Seen) -> None:
    response = relay.get("/idle-timeout" + answer(framing="chunked", body="abc", cut_after_bytes=1, end="hold"))
    assert response.body == b"a"
    assert response.end is not BodyEnd.COMPLETE
    eventually(lambda: seen.one().peer_closed_s)


def test_idle_timeout_is_not_for_slow_clients(relay: Relay) -> None:
    """A client that does not read makes the relay pause the upstream; that silence is not the upstream's."""
    size = 20_000_000
    with relay.client(receive_buffer_bytes=32_768) as client:
        client.send(request_bytes("GET", "/idle-timeout" + answer(body_bytes=size)))
        response = client.read_head()
        time.sleep(4 * SHORT_TIMEOUT_S)
        client.read_body(response)
    assert (response.end, len(response.body)) == (BodyEnd.COMPLETE, size)


def test_idle_timeout_lets_a_slow_body_live(relay: Relay) -> None:
    slow = answer(body="abcdef", piece_bytes=1, interval_ms=int(SHORT_TIMEOUT_S * 500))
    assert relay.get("/idle-timeout" + slow).body == b"abcdef"
