"""Request bodies and their framing: what is ambiguous is refused, what is broken off never looks whole (C20-C30).

"Refused" means a 4xx or 501, or a closed connection, and no complete request at the upstream. Where Granian has begun
to hand over a body before it finds the fault in it, the upstream has seen the beginning of a request and then a closed
connection; that is as good, because no server takes half a request for a whole one.
"""

import contextlib
import time

import pytest

from loadtests.fake_behaviours import pattern_slice
from loadtests.fake_upstream import UpstreamInThread
from tests.end_to_end.harness import BODY_BYTES_MAX, Seen
from tests.end_to_end.raw_client import (
    BodyEnd,
    ClosedEarlyError,
    Header,
    RawClient,
    Response,
    chunked,
    request_bytes,
)
from tests.end_to_end.relay_process import Relay
from tests.end_to_end.waiting import eventually, never

CHUNKED: Header = (b"Transfer-Encoding", b"chunked")
SMUGGLED = b"GET /up/echo/smuggled HTTP/1.1\r\nHost: relay.test\r\n\r\n"


def everything(relay: Relay, *pieces: bytes) -> bytes:
    """Send, and return all that comes before the relay closes, or before it has been silent for a while."""
    with relay.client() as client:
        try:
            for piece in pieces:
                client.send(piece)
            client.socket.settimeout(0.3)
            return client.read_until_closed()
        except TimeoutError:
            return client.buffered()
        except (ConnectionResetError, BrokenPipeError):
            return b""


def statuses(received: bytes) -> list[int]:
    return [int(line[9:12]) for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


def assert_refused(relay: Relay, seen: Seen, request: bytes) -> None:
    """No success, and nothing whole at the upstream, neither the request nor what hides in it."""
    answered = [status for status in statuses(everything(relay, request)) if status >= 200]
    assert all(400 <= status < 500 or status == 501 for status in answered), answered
    assert [recorded.head for recorded in seen.all() if recorded.complete] == []
    assert relay.get("/healthz").status == 200


def post(fields: list[Header], body: bytes, target: str = "/up/echo/visible") -> bytes:
    return request_bytes("POST", target, fields) + body


@pytest.mark.parametrize("first", ["length", "chunked"])
def test_c20_length_and_chunked_together_smuggle_nothing(relay: Relay, seen: Seen, first: str) -> None:
    """Granian takes Transfer-Encoding, drops Content-Length and closes; what follows must not become a request."""
    fields = [(b"Content-Length", b"6"), CHUNKED]
    request = post(fields if first == "length" else fields[::-1], b"0\r\n\r\n" + SMUGGLED)
    everything(relay, request)
    seen.assert_nothing_smuggled(b"/echo/visible")
    for recorded in seen.all():
        assert not (recorded.values("content-length") and recorded.values("transfer-encoding"))
        assert recorded.body_bytes == 0


def test_c20_length_and_chunked_the_other_way_round(relay: Relay, seen: Seen) -> None:
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
    everything(relay, post([(b"Content-Length", b"4"), CHUNKED], body))
    seen.assert_nothing_smuggled(b"/echo/visible")
    for recorded in seen.all():
        assert bytes(recorded.body) in {SMUGGLED, b""}


@pytest.mark.parametrize("values", [[b"5", b"5"], [b"5, 5"], [b"5,5"]])
def test_c21_equal_lengths_are_one_or_refused(relay: Relay, seen: Seen, values: list[bytes]) -> None:
    received = everything(relay, post([(b"Content-Length", value) for value in values], b"hello"))
    seen.assert_nothing_smuggled(b"/echo/visible")
    if 200 in statuses(received):
        assert seen.one().values("content-length") == [b"5"]
        assert bytes(seen.one().body) == b"hello"


@pytest.mark.parametrize(
    "values",
    [
        [b"5", b"6"],
        [b"6", b"5"],
        [b"5, 6"],
        [b"5", b"5x"],
        [b"+5"],
        [b"-5"],
        [b"5 x"],
        [b" 5 x"],
        [b"0x5"],
        [b"5.0"],
        [b"5 5"],
        [b""],
        [b"5;"],
        [b"\xb2"],
        [b"18446744073709551616"],
        [b"18446744073709551621"],
        [b"99999999999999999999999"],
    ],
)
def test_c21_wrong_lengths_are_refused(relay: Relay, seen: Seen, values: list[bytes]) -> None:
    assert_refused(relay, seen, post([(b"Content-Length", value) for value in values], b"hello" + SMUGGLED))


@pytest.mark.parametrize(
    "values",
    [
        [b"xchunked"],
        [b"chunked, identity"],
        [b"gzip, chunked"],
        [b"identity"],
        [b"gzip"],
        [b"chunked", b"chunked"],
        [b"chunked, chunked"],
        [b"chunked", b"identity"],
        [b"gzip", b"chunked"],
        [b"\x0bchunked"],
        [b"chunked\x0b"],
        [b"chun ked"],
        [b"chunked;q=1"],
        [b'"chunked"'],
        [b"chunked\x00"],
        [b"\xa0chunked"],
    ],
)
def test_c22_transfer_codings_other_than_one_chunked_are_refused(relay: Relay, seen: Seen, values: list[bytes]) -> None:
    assert_refused(relay, seen, post([(b"Transfer-Encoding", value) for value in values], b"0\r\n\r\n" + SMUGGLED))


@pytest.mark.parametrize("value", [b"\tchunked", b"chunked\t", b" chunked ", b"Chunked", b",chunked", b"chunked,"])
def test_c22_chunked_in_other_clothes_is_chunked_or_refused(relay: Relay, seen: Seen, value: bytes) -> None:
    """Blanks round a value and empty list members are grammar (RFC 9110 §5.6.1); the meaning must be one."""
    everything(relay, post([(b"Transfer-Encoding", value)], chunked(b"hello")))
    seen.assert_nothing_smuggled(b"/echo/visible")
    for recorded in seen.all():
        assert not recorded.complete or bytes(recorded.body) == b"hello"


def test_c22_transfer_encoding_with_http_1_0_smuggles_nothing(relay: Relay, seen: Seen) -> None:
    request = b"POST /up/echo/visible HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED
    everything(relay, request)
    seen.assert_nothing_smuggled(b"/echo/visible")


@pytest.mark.parametrize(
    "body",
    [
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b"5 5\r\nhello\r\n0\r\n\r\n",
        b"g\r\nhello\r\n0\r\n\r\n",
        b"5\x00\r\nhello\r\n0\r\n\r\n",
        b"10000000000000005\r\nhello\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloX0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"5\rhello\r\n0\r\n\r\n",
        b"6\r\nhello\r\n0\r\n\r\n",
    ],
)
def test_c23_malformed_chunks_are_refused(relay: Relay, seen: Seen, body: bytes) -> None:
    assert_refused(relay, seen, post([CHUNKED], body + SMUGGLED))


@pytest.mark.parametrize(
    "body",
    [
        b"0000000000000005\r\nhello\r\n0\r\n\r\n",
        b"00000000000000005\r\nhello\r\n0\r\n\r\n",
        b"5;name=value\r\nhello\r\n0\r\n\r\n",
        b'5;name="a;b"\r\nhello\r\n0\r\n\r\n',
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"5;\nhello\r\n0\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"5\r\nhello\r\n0\r\nX-Trailer: a\r\n\r\n",
        b"5\r\nhello\r\n0;last\r\n\r\n",
    ],
)
def test_c23_unusual_chunks_mean_one_thing_or_are_refused(relay: Relay, seen: Seen, body: bytes) -> None:
    everything(relay, post([CHUNKED, (b"Connection", b"close")], body))
    seen.assert_nothing_smuggled(b"/echo/visible")
    for recorded in seen.all():
        assert not recorded.complete or bytes(recorded.body) == b"hello"
        assert recorded.trailers == b""


@pytest.mark.parametrize("extension", [b"5;" + b"x" * (1 << 20) + b"\r\nhello\r\n", b"1;x=y\r\na\r\n" * 50_000])
def test_c23_extensions_of_a_megabyte_cost_nothing(relay: Relay, seen: Seen, extension: bytes) -> None:
    before = relay.memory_bytes()
    everything(relay, post([CHUNKED, (b"Connection", b"close")], extension + b"0\r\n\r\n"))
    seen.assert_nothing_smuggled(b"/echo/visible")
    assert relay.memory_bytes() - before < 8 << 20
    assert relay.get("/healthz").status == 200


@pytest.mark.parametrize(
    "line",
    [
        b"Content-Length : 5\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Content-Length\t: 5\r\n",
        b" Content-Length: 5\r\n",
        b"X-A: b\r\n folded: c\r\n",
        b"X-A: b\r\n\tTransfer-Encoding: chunked\r\n",
        b"X-A\r\n",
        b": value\r\n",
        b"X A: b\r\n",
        b"X-A: b\rX-B: c\r\n",
        b"X-A: b\0c\r\n",
        b"X\0A: b\r\n",
        b"X-(A): b\r\n",
        b"X-\xe9: b\r\n",
        b"X-A: b\x01c\r\n",
        b"X-A: b\x7fc\r\n",
    ],
)
def test_c24_malformed_fields_are_refused(relay: Relay, seen: Seen, line: bytes) -> None:
    request = b"POST /up/echo/visible HTTP/1.1\r\nHost: relay.test\r\n" + line + b"\r\nhello" + SMUGGLED
    assert_refused(relay, seen, request)


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET /up/echo/visible HTTP/1.1\nHost: relay.test\nConnection: close\n\n",
        b"GET /up/echo/visible HTTP/1.1\r\nHost: relay.test\nConnection: close\r\n\r\n",
        b"GET /up/echo/visible HTTP/1.1\r\nHost: relay.test\r\nConnection: close\r\n\n",
        b"GET /up/echo/visible HTTP/1.1\r\nHost: relay.test\r\nX-A: b\nX-B: c\r\nConnection: close\r\n\r\n",
    ],
)
def test_c24_bare_line_feeds_smuggle_nothing(relay: Relay, seen: Seen, request_head: bytes) -> None:
    """Granian takes a bare LF for a line's end (RFC 9112 §2.2 lets it). The upstream gets clean lines, or nothing."""
    everything(relay, request_head)
    seen.assert_nothing_smuggled(b"/echo/visible")
    for recorded in seen.all():
        assert b"\n" not in recorded.head.replace(b"\r\n", b"")
        assert set(recorded.names()) <= {b"host", b"x-a", b"x-b", b"x-request-id"}


def test_c24_a_length_behind_a_bare_line_feed_is_a_length(relay: Relay, seen: Seen) -> None:
    request = b"POST /up/echo/visible HTTP/1.1\r\nHost: a\r\nX-A: b\nContent-Length: %d\r\n\r\n" % len(SMUGGLED)
    everything(relay, request + SMUGGLED)
    seen.assert_nothing_smuggled(b"/echo/visible")


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_c25_an_upload_is_streamed(relay: Relay, seen: Seen, framing: str) -> None:
    """The upstream has the first bytes before the last are sent."""
    field = CHUNKED if framing == "chunked" else (b"Content-Length", b"10")
    first, last = (b"5\r\nhello\r\n", b"5\r\nworld\r\n0\r\n\r\n") if framing == "chunked" else (b"hello", b"world")
    with relay.client() as client:
        client.send(post([field], first))
        eventually(lambda: seen.all() and seen.one().body_bytes == 5, what="the first half at the upstream")
        sent_last_s = time.monotonic()
        client.send(last)
        assert client.read_response().status == 200
    recorded = seen.one()
    assert bytes(recorded.body) == b"helloworld"
    assert recorded.arrivals[0][0] < sent_last_s


def test_c25_every_piece_goes_on_at_once(relay: Relay, seen: Seen) -> None:
    with relay.client() as client:
        client.send(post([CHUNKED], b""))
        for count in range(1, 20):
            client.send(b"1\r\nx\r\n")
            eventually(lambda count=count: seen.all() and seen.one().body_bytes == count)  # type: ignore[misc]
        client.send(b"0\r\n\r\n")
        assert client.read_response().status == 200
    assert bytes(seen.one().body) == b"x" * 19


@pytest.mark.parametrize(
    ("method", "body"),
    [("POST", b""), ("PUT", b""), ("GET", b"hello"), ("DELETE", b"hello"), ("OPTIONS", b"hello"), ("HEAD", b"hello")],
)
def test_c26_framing_is_kept_whatever_the_method(relay: Relay, seen: Seen, method: str, body: bytes) -> None:
    assert relay.request(method, "/up/echo", [], body).status == 200
    assert seen.one().values("content-length") == [b"%d" % len(body)]
    assert seen.one().values("transfer-encoding") == []
    assert bytes(seen.one().body) == body


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
def test_c26_no_body_stays_no_body(relay: Relay, seen: Seen, method: str) -> None:
    assert relay.request(method, "/up/echo").status == 200
    assert seen.one().framing == "none"


def test_c26_a_post_without_any_framing_has_no_body(relay: Relay, seen: Seen) -> None:
    assert relay.request("POST", "/up/echo").status == 200
    assert seen.one().complete
    assert seen.one().body_bytes == 0
    assert seen.one().values("transfer-encoding") == []


@pytest.mark.parametrize("size", [1, 5, 16_384, 32_768, 100_000, 3_000_000])
def test_c27_a_known_length_stays_a_length(relay: Relay, seen: Seen, size: int) -> None:
    body = pattern_slice(0, size)
    response = relay.request("POST", "/up/echo", [], body)
    assert (response.status, response.json()["body_sha256"]) == (200, seen.one().body_sha256)
    assert seen.one().values("content-length") == [b"%d" % size]
    assert seen.one().body_bytes == size
    assert bytes(seen.one().body) == body[: 1 << 20]


@pytest.mark.parametrize("sizes", [[], [1], [5, 7], [1] * 500, [100_000, 1, 50_000]])
def test_c27_an_unknown_length_is_chunked(relay: Relay, seen: Seen, sizes: list[int]) -> None:
    """A chunked body whose end has come already may be given its length; both tell the same."""
    pieces = [pattern_slice(number * 1000, size) for number, size in enumerate(sizes)]
    assert relay.request("POST", "/up/echo", [CHUNKED], chunked(*pieces)).status == 200
    recorded = seen.one()
    assert recorded.framing in {"chunked", "length"}
    assert bytes(recorded.body) == b"".join(pieces)


def test_c27_an_unknown_length_that_is_still_coming_is_chunked(relay: Relay, seen: Seen) -> None:
    with relay.client() as client:
        client.send(post([CHUNKED], b"5\r\nhello\r\n"))
        eventually(lambda: seen.all() and seen.one().body_bytes == 5)
        client.send(b"0\r\n\r\n")
        client.read_response()
    assert seen.one().framing == "chunked"
    assert seen.one().values("transfer-encoding") == [b"chunked"]


@pytest.mark.parametrize("leave", ["fin", "rst", "half"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_c28_a_body_broken_off_never_looks_whole(relay: Relay, seen: Seen, framing: str, leave: str) -> None:
    field, sent = ((b"Content-Length", b"100"), b"hello") if framing == "length" else (CHUNKED, b"5\r\nhello\r\n")
    with relay.client() as client:
        client.send(post([field], sent))
        eventually(lambda: seen.all() and seen.one().body_bytes == 5)
        leave_as(client, leave)
        eventually(lambda: seen.one().peer_closed_s, 1.0, what="the close of the upstream's connection")
    assert not seen.one().complete


def leave_as(client: RawClient, manner: str) -> None:
    if manner == "rst":
        client.reset()
    elif manner == "half":
        client.socket.shutdown(1)
    else:
        client.close()


@pytest.mark.parametrize("sent", [b"", b"5\r\nhello\r\n", b"5\r\nhel", b"5\r\nhello\r\n0\r\n"])
def test_c28_a_chunked_body_that_ends_anywhere_early_never_looks_whole(relay: Relay, seen: Seen, sent: bytes) -> None:
    with relay.client() as client:
        client.send(post([CHUNKED], sent))
        client.close()
    never(lambda: any(recorded.complete for recorded in seen.all()), 0.3, what="a complete request")
    assert all(recorded.peer_closed_s for recorded in seen.all())


@pytest.mark.parametrize("end", ["fin", "hold", "keep"])
@pytest.mark.parametrize("status", [401, 413, 200])
def test_c29_an_early_answer_reaches_the_client(relay: Relay, seen: Seen, status: int, end: str) -> None:
    """The upstream answers with most of the body unsent: the client has it at once, and it is whole."""
    with relay.client() as client:
        target = f"/up/answer?status={status}&body=early&read=none&end={end}"
        client.send(post([(b"Content-Length", b"10000000")], bytes(10_000), target))
        response = client.read_response()
        assert (response.status, response.body, response.end) == (status, b"early", BodyEnd.COMPLETE)
    eventually(lambda: seen.all()[0].peer_closed_s, what="the close of a connection that cannot be reused")
    assert relay.request("POST", "/up/echo", [], b"x").status == 200
    assert seen.last().number_on_connection == 1 or seen.last().connection != seen.all()[0].connection


def test_c29_an_upstream_that_resets_in_the_upload_is_an_answer_or_a_bad_gateway(relay: Relay) -> None:
    """The reset may overtake the answer on its way; then it is 502, and never a hang."""
    for _ in range(5):
        with relay.client() as client:
            target = "/up/answer?status=413&body=early&read=none&end=rst"
            client.send(post([(b"Content-Length", b"20000000")], b"", target))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.send(bytes(2_000_000))
            assert client.read_response().status in {413, 502}


@pytest.mark.parametrize("end", ["fin", "rst"])
def test_c29_an_upstream_that_dies_in_the_upload_is_a_bad_gateway(relay: Relay, end: str) -> None:
    with relay.client() as client:
        client.send(post([(b"Content-Length", b"20000000")], bytes(100_000), f"/up/die?how={end}&read=none"))
        response = client.read_response()
    assert (response.status, response.error_type()) == (502, "closed")


def test_c29_an_early_answer_reaches_a_client_that_sends_on(relay: Relay) -> None:
    """A client that writes its whole body before it reads gets the answer, if the relay goes on reading."""
    size = 2_000_000
    with relay.client() as client:
        target = "/up/answer?status=413&body=early&read=none&end=fin"
        client.send(post([(b"Content-Length", b"%d" % size)], b"", target))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # if the answer has come first
            client.send(bytes(size))
        response = client.read_response()
    assert (response.status, response.body) == (413, b"early")


def limited(relay: Relay, *pieces: bytes) -> Response:
    with relay.client() as client:
        for piece in pieces:
            client.send(piece)
        return client.read_response()


def test_c30_a_length_over_the_limit_is_refused_before_the_body(relay: Relay, seen: Seen) -> None:
    response = limited(relay, post([(b"Content-Length", b"%d" % (BODY_BYTES_MAX + 1))], b"", "/limited/echo"))
    assert (response.status, response.error_type()) == (413, "body_too_large")
    assert not seen.all()


def test_c30_a_chunked_body_over_the_limit_is_refused_when_it_is_known(relay: Relay, seen: Seen) -> None:
    piece = b"%x\r\n%b\r\n" % (BODY_BYTES_MAX, bytes(BODY_BYTES_MAX))
    response = limited(relay, post([CHUNKED], piece + b"1\r\nx\r\n", "/limited/echo"))
    assert (response.status, response.error_type()) == (413, "body_too_large")
    # By its answer to this the upstream has read what came before, so nothing is left to the next test.
    relay.get("/limited/echo")
    assert not any(recorded.complete for recorded in seen.all() if recorded.head.startswith(b"POST"))


def test_c30_a_chunked_body_that_grows_over_the_limit_is_refused(relay: Relay, seen: Seen) -> None:
    with relay.client() as client:
        client.send(post([CHUNKED], b"5\r\nhello\r\n", "/limited/echo"))
        eventually(seen.all)
        client.send(b"%x\r\n%b\r\n" % (BODY_BYTES_MAX, bytes(BODY_BYTES_MAX)))
        assert client.read_response().status == 413
    eventually(lambda: seen.one().peer_closed_s)
    assert not seen.one().complete


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_c30_a_body_at_the_limit_passes(relay: Relay, seen: Seen, framing: str) -> None:
    body = bytes(BODY_BYTES_MAX)
    if framing == "chunked":
        response = relay.request("POST", "/limited/echo", [CHUNKED], chunked(body[:500], body[500:]))
    else:
        response = relay.request("POST", "/limited/echo", [], body)
    assert response.status == 200
    assert seen.one().body_bytes == BODY_BYTES_MAX


def test_bodies_do_not_leak_from_one_request_to_the_next(relay: Relay, upstream: UpstreamInThread) -> None:
    with relay.client() as client:
        for number in range(30):
            seen = Seen(upstream)
            body = pattern_slice(number, number * 1000)
            assert client.request("POST", "/up/echo", [], body).status == 200
            assert bytes(seen.one().body) == body


def test_a_refused_body_closes_or_is_read_before_the_next_request(relay: Relay) -> None:
    """After an error that left body bytes unread, those bytes must not become the next request."""
    with relay.client() as client:
        client.send(post([(b"Content-Length", b"%d" % len(SMUGGLED))], SMUGGLED, "/nowhere"))
        assert client.read_response().status == 404
        try:
            client.send(request_bytes("GET", "/healthz"))
            assert client.read_response().status == 200
        except (ClosedEarlyError, BrokenPipeError, ConnectionResetError):
            pass
