"""One upstream connection: every response comes whole, byte by byte, and with a tail.

The first part drives the protocol with a transport that only notes what it is told; the second one has real sockets.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from enum import Enum, auto
from typing import NamedTuple

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import BAD_RESPONSE, BODY_TIMEOUT, ClientGone, RelayError, UpstreamClosed
from proxy.rules.headers import Header, ResponseHead
from proxy.upstream.connection import FIELDS_MAX, WINDOW_BYTES, Connection, Push, head_bytes
from tests.proxy.upstream.wire import Wire

HEAD_BYTES_MAX = 4096
DEADLINE_S = 5.0
OK = b"HTTP/1.1 200 OK\r\n"


class End(Enum):
    """What the upstream does when it has sent all that it sends."""

    STAYS = auto()
    FIN = auto()
    RST = auto()


STAYS, FIN, RST = End


class Upstream:
    """The far side of a connection that a test plays."""

    def __init__(self, method: str = "GET", head_bytes_max: int = HEAD_BYTES_MAX) -> None:
        self.wire = Wire()
        self.connection = Connection(asyncio.get_running_loop(), head_bytes_max)
        self.connection.connection_made(self.wire)
        self.ask(method)

    def ask(self, method: str = "GET") -> None:
        self.connection.begin(method)
        self.connection.write(b"request")
        self.connection.finish_request()

    def send(self, pieces: Iterable[bytes]) -> None:
        """Delivers pieces as an event loop does, and the loss of the connection once it has been aborted."""
        for piece in pieces:
            for start in range(0, len(piece), WINDOW_BYTES):
                part = piece[start : start + WINDOW_BYTES]
                if self.wire.aborted:
                    return
                self.connection.get_buffer(-1)[: len(part)] = part
                self.connection.buffer_updated(len(part))

    def end(self, how: End) -> None:
        if how is FIN and not self.wire.aborted:
            self.connection.eof_received()
        if how is not STAYS or self.wire.aborted:
            self.connection.connection_lost(ConnectionResetError() if how is RST else None)


class Outcome(NamedTuple):
    """What a response has come to: its head, its body, how it ended, and whether another may follow."""

    status: int
    headers: list[Header]
    body: bytes
    ending: str
    reusable: bool


class Taking:
    """A task that takes a response as it comes."""

    def __init__(self, connection: Connection, body: Callable[[Connection, Push], Awaitable[None]]) -> None:
        self._connection = connection
        self._body = body
        self._status = 0
        self._headers: list[Header] = []
        self._taken = b""
        self._task = asyncio.create_task(self._take())

    async def _take(self) -> None:
        head = await self._connection.head(None)
        self._status = head.status
        self._headers = [field for field in head.headers if field != (b"server", b"relaygate")]
        await self._body(self._connection, self._push)

    def _push(self, piece: bytes) -> None:
        self._taken += piece

    async def outcome(self) -> Outcome:
        """What there is by now. The ending is `complete`, `open` where more is to come, or the word of an error."""
        await asyncio.wait([self._task], timeout=0)
        if not self._task.done():
            self._task.cancel()
            ending = "open"
        elif (error := self._task.exception()) is None:
            ending = "complete"
        else:
            assert isinstance(error, RelayError)
            ending = error.cause.word
        return Outcome(self._status, self._headers, self._taken, ending, self._connection.reusable)


async def by_reading(connection: Connection, push: Push) -> None:
    while piece := await connection.read(None):
        push(piece)


async def by_flow(connection: Connection, push: Push) -> None:
    push(await connection.flow(push, None))


async def outcome_of(connection: Connection) -> Outcome:
    """What all that is there comes to."""
    return await Taking(connection, by_reading).outcome()


def played(pieces: Iterable[bytes], end: End = STAYS, method: str = "GET") -> Outcome:
    """What a response comes to, both where it is taken when it is there and where it flows on as it comes."""
    pieces = list(pieces)

    async def play() -> Outcome:
        upstream = Upstream(method)
        upstream.send(pieces)
        upstream.end(end)
        at_once = await outcome_of(upstream.connection)

        upstream = Upstream(method)
        taking = Taking(upstream.connection, by_flow)
        for piece in pieces:
            await asyncio.sleep(0)
            upstream.send([piece])
        await asyncio.sleep(0)
        upstream.end(end)
        assert await taking.outcome() == at_once
        return at_once

    with asyncio.Runner() as runner:
        return runner.run(play())


def byte_by_byte(data: bytes) -> Iterator[bytes]:
    return (data[index : index + 1] for index in range(len(data)))


class Case(NamedTuple):
    """A response, who asked, and what it must come to."""

    data: bytes
    outcome: Outcome
    end: End = STAYS
    method: str = "GET"


def complete(status: int, headers: list[Header], body: bytes = b"", *, reusable: bool = True) -> Outcome:
    return Outcome(status, headers, body, "complete", reusable)


LENGTH_5 = (b"content-length", b"5")

WHOLE = {
    "length": Case(OK + b"Content-Length: 5\r\n\r\nhello", complete(200, [LENGTH_5], b"hello")),
    "length zero": Case(OK + b"Content-Length: 0\r\n\r\n", complete(200, [(b"content-length", b"0")])),
    "order and bytes": Case(
        OK + b"Set-Cookie: a\r\nX:\r\nSET-cookie: \xff\x80\r\nContent-Length: 5\r\nSet-Cookie: a\r\n\r\nhello",
        complete(
            200,
            [(b"set-cookie", b"a"), (b"x", b""), (b"set-cookie", b"\xff\x80"), LENGTH_5, (b"set-cookie", b"a")],
            b"hello",
        ),
    ),
    "chunked": Case(
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
        complete(200, [], b"hello world"),
    ),
    "chunked with extensions": Case(
        OK + b'transfer-encoding: Chunked\r\n\r\n5;a=b;c="d"\r\nhello\r\n0;last\r\n\r\n', complete(200, [], b"hello")
    ),
    "chunked with trailers": Case(
        OK + b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\nServer: evil\r\n\r\n",
        complete(200, [], b"hello"),
    ),
    "chunked and empty": Case(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", complete(200, [])),
    "close announced": Case(
        OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello", complete(200, [LENGTH_5], b"hello", reusable=False)
    ),
    "1.0 with a length": Case(
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", complete(200, [LENGTH_5], b"hello", reusable=False)
    ),
    "1.0 that keeps alive": Case(
        b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 5\r\n\r\nhello",
        complete(200, [LENGTH_5], b"hello"),
    ),
    "HEAD with a length": Case(OK + b"Content-Length: 5\r\n\r\n", complete(200, [LENGTH_5]), method="HEAD"),
    "HEAD without framing": Case(OK + b"X: y\r\n\r\n", complete(200, [(b"x", b"y")]), method="HEAD"),
    "HEAD with chunked": Case(OK + b"Transfer-Encoding: chunked\r\n\r\n", complete(200, []), method="HEAD"),
    "HEAD with close": Case(OK + b"Connection: x, Close\r\n\r\n", complete(200, [], reusable=False), method="HEAD"),
    "HEAD of 1.0": Case(
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", complete(200, [LENGTH_5], reusable=False), method="HEAD"
    ),
    "204": Case(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nX: y\r\n\r\n", complete(204, [(b"x", b"y")])),
    "204 without framing": Case(b"HTTP/1.1 204 No Content\r\n\r\n", complete(204, [])),
    "205": Case(b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", complete(205, [(b"content-length", b"0")])),
    "304 with a length": Case(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", complete(304, [LENGTH_5])),
    "304 with chunked": Case(b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", complete(304, [])),
    "interim answers": Case(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nX: 1\r\n\r\n"
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        b"HTTP/1.1 103 Early Hints\r\nServer: early\r\nContent-Length: 3\r\n\r\n"
        + OK
        + b"Content-Length: 5\r\n\r\nhello",
        complete(200, [LENGTH_5], b"hello"),
    ),
    "an offer to upgrade": Case(
        OK + b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 5\r\n\r\nhello",
        complete(200, [LENGTH_5], b"hello"),
    ),
    "426": Case(
        b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 5\r\n\r\nhello",
        complete(426, [LENGTH_5], b"hello"),
    ),
    "no reason": Case(b"HTTP/1.1 299\r\nContent-Length: 5\r\n\r\nhello", complete(299, [LENGTH_5], b"hello")),
    "empty reason": Case(b"HTTP/1.1 599 \r\nContent-Length: 5\r\n\r\nhello", complete(599, [LENGTH_5], b"hello")),
    "999": Case(b"HTTP/1.1 999 \xff\r\nContent-Length: 5\r\n\r\nhello", complete(999, [LENGTH_5], b"hello")),
    "a coding that stays": Case(
        OK + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\n\x1f\x8b\x00\xff\n",
        complete(200, [(b"content-encoding", b"gzip"), LENGTH_5], b"\x1f\x8b\x00\xff\n"),
    ),
}

UNTIL_CLOSE = {
    "1.0": Case(b"HTTP/1.0 200 OK\r\n\r\nhello", complete(200, [], b"hello", reusable=False), FIN),
    "1.1": Case(OK + b"X: y\r\n\r\nhello", complete(200, [(b"x", b"y")], b"hello", reusable=False), FIN),
    "empty": Case(b"HTTP/1.0 200 OK\r\n\r\n", complete(200, [], reusable=False), FIN),
    "that keeps alive": Case(
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nhello", complete(200, [], b"hello", reusable=False), FIN
    ),
}


@pytest.mark.parametrize("case", [*WHOLE.values(), *UNTIL_CLOSE.values()], ids=[*WHOLE, *UNTIL_CLOSE])
def test_a_response_is_what_its_framing_says_however_it_is_cut(case: Case) -> None:
    """C40, C42, C43, C46, C49, C51, C53."""
    assert played([case.data], case.end, case.method) == case.outcome
    assert played(byte_by_byte(case.data), case.end, case.method) == case.outcome
    for cut in range(1, len(case.data)):
        assert played([case.data[:cut], case.data[cut:]], case.end, case.method) == case.outcome


@pytest.mark.parametrize("case", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize(
    "tail", [b"x", b"stray", OK, OK + b"X: y\r\n", OK + b"Content-Length: 0\r\n\r\n", b"HTTP/1.1 4", b"H"]
)
def test_what_comes_behind_a_response_changes_nothing_of_it_but_nothing_may_follow(case: Case, tail: bytes) -> None:
    """C56."""
    unusable = case.outcome._replace(reusable=False)
    assert played([case.data, tail], case.end, case.method) == unusable
    assert played(byte_by_byte(case.data + tail), case.end, case.method) == unusable
    assert played([case.data + tail], case.end, case.method) == unusable


@pytest.mark.parametrize("end", [FIN, RST])
@pytest.mark.parametrize("case", WHOLE.values(), ids=WHOLE)
def test_an_end_behind_a_whole_response_leaves_it_whole(case: Case, end: End) -> None:
    assert played([case.data], end, case.method) == case.outcome._replace(reusable=False)


@pytest.mark.parametrize("end", [FIN, RST])
@pytest.mark.parametrize("case", WHOLE.values(), ids=WHOLE)
def test_an_end_anywhere_within_a_response_is_an_error(case: Case, end: End) -> None:
    """C44, C45."""
    for cut in range(len(case.data)):
        outcome = played([case.data[:cut]], end, case.method)
        assert outcome.ending == ("truncated" if cut else "closed")
        assert case.outcome.body.startswith(outcome.body)
        assert not outcome.reusable


@pytest.mark.parametrize("case", UNTIL_CLOSE.values(), ids=UNTIL_CLOSE)
def test_a_body_that_only_the_close_ends_is_cut_short_by_a_reset(case: Case) -> None:
    """C46."""
    assert played([case.data], RST) == case.outcome._replace(ending="truncated")
    assert played([case.data]) == case.outcome._replace(ending="open")


BAD = {
    "garbage": b"\x00\x01\x02garbage\r\n\r\n",
    "HTTP/0.9": b"<html>hello</html>",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.2 of two digits": b"HTTP/1.11 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/0.9 in words": b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
    "RTSP": b"RTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "ICE": b"ICE/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "lower case": b"http/1.1 200 OK\r\n\r\n",
    "status 99": b"HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n",
    "status 000": b"HTTP/1.1 000 None\r\nContent-Length: 0\r\n\r\n",
    "status 1000": b"HTTP/1.1 1000 High\r\nContent-Length: 0\r\n\r\n",
    "status with a sign": b"HTTP/1.1 +20 OK\r\nContent-Length: 0\r\n\r\n",
    "no status": b"HTTP/1.1 \r\nContent-Length: 0\r\n\r\n",
    "101 unasked": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "101 without upgrade": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "equal lengths": OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": OK + b"Content-Length: 5, 5\r\n\r\nhello",
    "a length with a sign": OK + b"Content-Length: +5\r\n\r\nhello",
    "a negative length": OK + b"Content-Length: -5\r\n\r\nhello",
    "a length over 2^64": OK + b"Content-Length: 18446744073709551616\r\n\r\nhello",
    "an empty length": OK + b"Content-Length:\r\n\r\nhello",
    "length and chunked": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "gzip, chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked, identity": OK + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "identity": OK + b"Transfer-Encoding: identity\r\n\r\nhello",
    "gzip": OK + b"Transfer-Encoding: gzip\r\n\r\nhello",
    "space before the colon": OK + b"X : y\r\n\r\n",
    "folded": OK + b"X: y\r\n z\r\nContent-Length: 0\r\n\r\n",
    "NUL in a value": OK + b"X: a\0b\r\n\r\n",
    "NUL in a name": OK + b"X\0: b\r\n\r\n",
    "no colon": OK + b"XY\r\n\r\n",
    "bare CR": OK + b"X: a\rb\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nX: y\nContent-Length: 0\n\n",
}  # fmt: skip


@pytest.mark.parametrize("end", [STAYS, FIN])
@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_a_head_that_nobody_could_be_sure_of_is_refused(data: bytes, end: End) -> None:
    """C47, C48, C50."""
    refused = Outcome(0, [], b"", "bad_response", reusable=False)
    assert played([data], end) == refused
    assert played(byte_by_byte(data), end) == refused
    assert played([data + b"tail\r\n\r\n"], end) == refused


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
BAD_BODIES = {
    "no size": b"\r\n",
    "hexadecimal mark": b"0x5\r\nhello\r\n",
    "a sign": b"+5\r\nhello\r\n",
    "negative": b"-5\r\nhello\r\n",
    "17 digits": b"10000000000000005\r\nhello\r\n",
    "a space before": b" 5\r\nhello\r\n",
    "more than its size": b"5\r\nhello!\r\n",
    "no end of line": b"5\r\nhello0\r\n\r\n",
    "bare LF": b"5\nhello\r\n",
    "a bad trailer": b"0\r\nX Y: z\r\n\r\n",
}


@pytest.mark.parametrize("bad", BAD_BODIES.values(), ids=BAD_BODIES)
def test_a_body_with_bad_chunks_ends_as_an_error_behind_what_was_good(bad: bytes) -> None:
    """C47."""
    for pieces in ([CHUNKED + bad], byte_by_byte(CHUNKED + bad), [CHUNKED + bad + b"0\r\n\r\n"]):
        outcome = played(pieces)
        assert (outcome.status, outcome.ending, outcome.reusable) == (200, "bad_response", False)
        assert outcome.body.startswith(b"hello")


def test_a_length_longer_than_the_body_is_waited_for_and_a_shorter_one_cuts_it() -> None:
    assert played([OK + b"Content-Length: 6\r\n\r\nhello"]).ending == "open"
    outcome = played([OK + b"Content-Length: 4\r\n\r\nhello"])
    assert outcome == complete(200, [(b"content-length", b"4")], b"hell", reusable=False)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_a_body_where_none_may_be_is_not_relayed(status: bytes, method: str) -> None:
    data = b"HTTP/1.1 " + status + b"\r\nContent-Length: 5\r\n\r\nhello"
    for pieces in ([data], byte_by_byte(data)):
        outcome = played(pieces, method=method)
        assert (outcome.body, outcome.ending, outcome.reusable) == (b"", "complete", False)


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), st.data())
def test_a_chunked_body_survives_any_cut(pieces: list[bytes], data: st.DataObject) -> None:
    body = b"".join(b"%x;ext\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    sent = OK + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\nX: y\r\n\r\n"
    cuts = sorted(data.draw(st.sets(st.integers(1, len(sent) - 1), max_size=10)))
    parts = [sent[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    assert played(parts) == complete(200, [], b"".join(pieces))


# ---- bounds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "endless",
    [
        b"X: " + b"a" * HEAD_BYTES_MAX,
        b"X: y\r\n" * (HEAD_BYTES_MAX // 5),
        b"x" * HEAD_BYTES_MAX,
    ],
    ids=["one field", "many fields", "a name"],
)
def test_a_head_over_the_limit_is_refused_even_if_it_never_ends(endless: bytes) -> None:
    """C52."""
    for data in (OK + endless, OK + endless + b"\r\n\r\n"):
        assert played([data]).ending == "bad_response"
        assert played(byte_by_byte(data)).ending == "bad_response"


def test_a_head_within_the_limit_is_relayed_whatever_comes_with_it() -> None:
    field = b"X: " + b"a" * (HEAD_BYTES_MAX - 200) + b"\r\n"
    data = OK + field + b"Content-Length: 30000\r\n\r\n" + b"b" * 30_000
    assert played([data]).ending == "complete"
    assert played(byte_by_byte(data)).ending == "complete"


@pytest.mark.parametrize(("fields", "ending"), [(FIELDS_MAX - 1, "complete"), (FIELDS_MAX + 1, "bad_response")])
def test_a_head_has_no_more_fields_than_a_client_can_be_given(fields: int, ending: str) -> None:
    """C52."""

    async def play() -> None:
        upstream = Upstream(head_bytes_max=1 << 20)
        upstream.send([OK + b"X:\r\n" * fields + b"Content-Length: 0\r\n\r\n"])
        assert (await outcome_of(upstream.connection)).ending == ending

    asyncio.run(play())


def test_endless_interim_answers_are_refused() -> None:
    assert played([b"HTTP/1.1 103 Early Hints\r\n\r\n"] * (HEAD_BYTES_MAX // 20)).ending == "bad_response"


@pytest.mark.parametrize(
    "endless",
    [
        b"0\r\n" + b"X: y\r\n" * HEAD_BYTES_MAX,
        b"0\r\nX: " + b"y" * HEAD_BYTES_MAX * 6,
        b"5;" + b"a" * HEAD_BYTES_MAX * 6,
    ],
)
def test_trailers_and_extensions_without_end_are_cut(endless: bytes) -> None:
    """C23 and C53, on the upstream's side."""
    step = 1000
    outcome = played([CHUNKED, *(endless[start : start + step] for start in range(0, len(endless), step))])
    assert (outcome.ending, outcome.body, outcome.reusable) == ("bad_response", b"hello", False)


@given(st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9)), max_size=5))
def test_the_bytes_of_fields_are_those_on_the_wire(fields: list[Header]) -> None:
    assert head_bytes(fields) == len(b"".join(b"%b: %b\r\n" % field for field in fields))


def test_reading_pauses_over_a_window_and_resumes_when_it_is_taken() -> None:
    """C57."""

    async def play() -> None:
        upstream = Upstream()
        upstream.send([OK + b"Content-Length: 99999\r\n\r\n"])
        upstream.send([b"a" * WINDOW_BYTES])
        assert upstream.wire.reads()
        upstream.send([b"b"])
        assert not upstream.wire.reads()
        assert upstream.connection.take() == b"a" * WINDOW_BYTES + b"b"
        assert upstream.wire.reads()
        assert upstream.connection.take() == b""
        upstream.send([b"c"])
        assert await upstream.connection.read(None) == b"c"

    asyncio.run(play())


def test_a_client_that_takes_no_more_is_waited_for_while_a_window_waits_here() -> None:
    """C57."""

    async def play() -> None:
        upstream = Upstream()
        upstream.send([OK + b"Content-Length: 99999\r\n\r\n"])
        loop = asyncio.get_running_loop()
        pushed: list[bytes] = []
        waits: list[asyncio.Future[None]] = []

        def push(piece: bytes) -> asyncio.Future[None] | None:
            pushed.append(piece)
            if piece.isupper():
                waits.append(loop.create_future())
                return waits[-1]
            return None

        flowing = asyncio.create_task(upstream.connection.flow(push, None))
        await asyncio.sleep(0)
        upstream.send([b"a", b"b", b"C", b"d", b"e"])
        assert pushed == [b"a", b"b", b"C"]
        upstream.send([b"f" * WINDOW_BYTES])
        assert not upstream.wire.reads()
        await asyncio.sleep(0)
        assert pushed[3:] == []
        waits[0].set_result(None)
        await asyncio.sleep(0.001)
        assert pushed[3:] == [b"de" + b"f" * WINDOW_BYTES]
        assert upstream.wire.reads()
        upstream.send([b"G", b"x" * (99_999 - 6 - WINDOW_BYTES)])
        await asyncio.sleep(0.001)
        assert not flowing.done(), "the last piece goes behind the one that is waited for"
        waits[1].set_result(None)
        assert await flowing == b"x" * (99_999 - 6 - WINDOW_BYTES)

    asyncio.run(play())


def test_what_waits_already_is_pushed_first_and_waited_for_too() -> None:
    async def play() -> None:
        upstream = Upstream()
        upstream.send([OK + b"Content-Length: 3\r\n\r\n", b"a"])
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        pushed: list[bytes] = []

        def push(piece: bytes) -> asyncio.Future[None]:
            pushed.append(piece)
            return taken

        flowing = asyncio.create_task(upstream.connection.flow(push, None))
        await asyncio.sleep(0)
        upstream.send([b"b", b"c"])
        await asyncio.sleep(0)
        assert pushed == [b"a"]
        taken.set_result(None)
        assert await flowing == b"bc"

    asyncio.run(play())


def test_a_flow_that_is_broken_off_pushes_no_more() -> None:
    async def play() -> None:
        upstream = Upstream()
        upstream.send([OK + b"Content-Length: 9\r\n\r\n"])
        pushed: list[bytes] = []
        flowing = asyncio.create_task(upstream.connection.flow(pushed.append, None))
        await asyncio.sleep(0)
        upstream.send([b"a"])
        flowing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await flowing
        upstream.send([b"b"])
        assert pushed == [b"a"]

    asyncio.run(play())


# ---- exchanges ------------------------------------------------------------------------------------------------------


def test_an_exchange_follows_another_and_knows_nothing_of_it() -> None:
    async def play() -> None:
        upstream = Upstream("HEAD")
        upstream.send([OK + b"X: first\r\nContent-Length: 9\r\n\r\n"])
        assert (await outcome_of(upstream.connection)).reusable
        upstream.ask()
        assert (upstream.connection.answered, upstream.connection.reusable) == (False, False)
        upstream.send([b"HTTP/1.1 100 Continue\r\n\r\n"])
        assert (upstream.connection.answered, upstream.connection.continued) == (True, True)
        upstream.send([b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: trailer\r\n\r\n"])
        assert await outcome_of(upstream.connection) == complete(404, [])
        upstream.ask()
        assert (upstream.connection.answered, upstream.connection.continued) == (False, False)
        upstream.send([OK + b"Content-Length: 5\r\n\r\nhello"])
        assert await outcome_of(upstream.connection) == complete(200, [LENGTH_5], b"hello")
        assert upstream.connection.exchanges == 3
        assert upstream.wire.sent == b"request" * 3

    asyncio.run(play())


@given(st.lists(st.sampled_from(sorted(WHOLE)), min_size=2, max_size=5), st.booleans())
def test_responses_on_one_connection_come_to_what_each_does_alone(names: list[str], cut: bool) -> None:  # noqa: FBT001
    async def play() -> None:
        upstream: Upstream | None = None
        for name in names:
            case = WHOLE[name]
            if upstream is None:
                upstream = Upstream(case.method)
            else:
                upstream.ask(case.method)
            upstream.send(byte_by_byte(case.data) if cut else [case.data])
            assert await outcome_of(upstream.connection) == case.outcome
            if not case.outcome.reusable:
                return

    asyncio.run(play())


def test_a_response_before_the_whole_request_leaves_nothing_to_reuse() -> None:
    """C29."""

    async def play() -> None:
        upstream = Upstream()
        upstream.connection.begin("POST")
        upstream.connection.write(b"a part")
        upstream.send([b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"])
        assert await outcome_of(upstream.connection) == complete(413, [(b"content-length", b"0")], reusable=False)
        upstream.connection.finish_request()
        assert upstream.connection.reusable

    asyncio.run(play())


def test_an_answer_to_nothing_closes_an_idle_connection() -> None:
    """C48."""

    async def play() -> None:
        wire = Wire()
        connection = Connection(asyncio.get_running_loop(), HEAD_BYTES_MAX)
        connection.connection_made(wire)
        connection.get_buffer(-1)[:1] = b"H"
        connection.buffer_updated(1)
        assert wire.aborted
        assert connection.closed

    asyncio.run(play())


@pytest.mark.parametrize(
    ("announced", "idle_s"),
    [
        (b"", 60),
        (b"Keep-Alive: timeout=5\r\n", 4),
        (b"Keep-Alive: timeout=0\r\n", 0),
        (b"Keep-Alive: timeout=500\r\n", 60),
    ],
)
def test_a_connection_idles_a_second_less_than_the_upstream_announced(announced: bytes, idle_s: float) -> None:
    async def play() -> None:
        upstream = Upstream()
        assert upstream.connection.idle_max_s(60) == 60
        upstream.send([OK + announced + b"Content-Length: 0\r\n\r\n"])
        assert upstream.connection.idle_max_s(60) == idle_s

    asyncio.run(play())


def test_a_failure_reaches_the_exchange_and_closes_the_connection() -> None:
    """C28."""

    async def play() -> None:
        upstream = Upstream()
        head = asyncio.create_task(upstream.connection.head(None))
        await asyncio.sleep(0)
        upstream.connection.fail(ClientGone())
        upstream.connection.fail(RelayError(BODY_TIMEOUT))
        assert upstream.wire.aborted
        with pytest.raises(ClientGone):
            await head
        with pytest.raises(ClientGone):
            await upstream.connection.drained()
        assert upstream.connection.closed
        assert not upstream.connection.reusable

    asyncio.run(play())


def test_a_failure_behind_a_whole_response_is_none_of_its_own() -> None:
    async def play() -> None:
        upstream = Upstream()
        upstream.send([OK + b"Content-Length: 5\r\n\r\nhello"])
        upstream.connection.fail(ClientGone())
        assert await outcome_of(upstream.connection) == complete(200, [LENGTH_5], b"hello", reusable=False)

    asyncio.run(play())


def test_bytes_that_came_before_a_failure_are_not_lost() -> None:
    async def play() -> None:
        upstream = Upstream()
        upstream.send([OK + b"Content-Length: 9\r\n\r\nhello"])
        upstream.connection.fail(RelayError(BAD_RESPONSE))
        outcome = await outcome_of(upstream.connection)
        assert (outcome.body, outcome.ending) == (b"hello", "bad_response")

    asyncio.run(play())


# ---- another protocol -----------------------------------------------------------------------------------------------

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nServer: y\r\nConnection: upgrade\r\nX: 1\r\n\r\n"


class Successor(asyncio.Protocol):
    """The protocol that a connection is handed to."""

    def __init__(self) -> None:
        self.received = b""
        self.transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data


@pytest.mark.parametrize("tail", [b"", b"\x81\x02hi", b"HTTP/1.1 200 OK\r\n\r\n"])
@pytest.mark.parametrize("cut", ["whole", "byte by byte"])
def test_a_switch_that_was_asked_for_hands_over_all_that_comes_behind_it(tail: bytes, cut: str) -> None:
    async def play() -> None:
        upstream = Upstream()
        upstream.connection.may_switch = True
        upstream.send(byte_by_byte(SWITCH[:-1]) if cut == "byte by byte" else [])
        upstream.send([SWITCH[-1:] + tail if cut == "byte by byte" else SWITCH + tail])
        head = await upstream.connection.head(None)
        assert head.status == 101
        assert sorted(head.headers) == [
            (b"connection", b"upgrade"),
            (b"server", b"y"),
            (b"upgrade", b"x"),
            (b"x", b"1"),
        ]
        assert not upstream.wire.reads()
        successor = Successor()
        upstream.connection.hand_over(successor)
        assert (successor.transport, successor.received) == (upstream.wire, tail)
        assert upstream.wire.get_protocol() is successor
        assert upstream.wire.reads()
        assert (upstream.connection.closed, upstream.connection.reusable) == (True, False)
        upstream.connection.abort()
        assert not upstream.wire.aborted, "the connection is another's now"

    asyncio.run(play())


def test_an_interim_answer_goes_before_a_switch_and_any_other_answer_in_its_place() -> None:
    async def play() -> None:
        upstream = Upstream()
        upstream.connection.may_switch = True
        upstream.send([b"HTTP/1.1 103 Early Hints\r\n\r\n" + SWITCH])
        assert (await upstream.connection.head(None)).status == 101
        upstream = Upstream()
        upstream.connection.may_switch = True
        upstream.send([OK + b"Content-Length: 5\r\n\r\nhello"])
        assert await outcome_of(upstream.connection) == complete(200, [LENGTH_5], b"hello")

    asyncio.run(play())


def test_a_connection_that_is_gone_cannot_be_handed_over() -> None:
    async def play() -> None:
        upstream = Upstream()
        upstream.connection.may_switch = True
        upstream.send([SWITCH])
        upstream.end(RST)
        with pytest.raises(RelayError):
            upstream.connection.hand_over(Successor())

    asyncio.run(play())


# ---- waiting --------------------------------------------------------------------------------------------------------


def test_silence_is_an_error_after_its_time() -> None:
    async def play() -> None:
        upstream = Upstream()
        with pytest.raises(RelayError, match="head_timeout"):
            await upstream.connection.head(0.01)
        assert upstream.wire.aborted
        upstream = Upstream()
        upstream.send([OK + b"Content-Length: 9\r\n\r\n"])
        assert await upstream.connection.head(0.01)
        with pytest.raises(RelayError, match="idle_timeout"):
            await upstream.connection.read(0.01)
        upstream = Upstream()
        upstream.send([OK + b"Content-Length: 9\r\n\r\nhello"])
        pushed: list[bytes] = []
        with pytest.raises(RelayError, match="idle_timeout"):
            await upstream.connection.flow(pushed.append, 0.01)
        assert pushed == [b"hello"]

    asyncio.run(play())


def test_the_wait_for_a_head_begins_when_the_request_has_been_sent() -> None:
    async def play() -> None:
        upstream = Upstream()
        upstream.connection.begin("POST")
        head = asyncio.create_task(upstream.connection.head(0.02))
        await asyncio.sleep(0.05)
        assert not head.done()
        upstream.connection.finish_request()
        await asyncio.sleep(0)
        assert not head.done()
        with pytest.raises(RelayError, match="head_timeout"):
            await head

    asyncio.run(play())


def test_a_wait_that_is_cancelled_leaves_the_connection_as_it_was() -> None:
    async def play() -> None:
        upstream = Upstream()
        for timeout_s in (None, 9.0):
            head = asyncio.create_task(upstream.connection.head(timeout_s))
            await asyncio.sleep(0)
            head.cancel()
            with pytest.raises(asyncio.CancelledError):
                await head
        upstream.send([OK + b"Content-Length: 5\r\n\r\nhello"])
        assert await outcome_of(upstream.connection) == complete(200, [LENGTH_5], b"hello")

    asyncio.run(play())


def test_leave_to_send_a_body_is_waited_for_but_not_for_ever() -> None:
    """C17."""

    async def play() -> None:
        upstream = Upstream("POST")
        assert await upstream.connection.continue_or_head(0.01) is None
        waiting = asyncio.create_task(upstream.connection.continue_or_head(DEADLINE_S))
        await asyncio.sleep(0)
        upstream.send([b"HTTP/1.1 102 Processing\r\n\r\n"])
        await asyncio.sleep(0)
        assert not waiting.done()
        upstream.send([b"HTTP/1.1 100 Continue\r\n\r\n"])
        assert await waiting is None
        assert not upstream.wire.aborted

        upstream = Upstream("POST")
        upstream.send([b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n"])
        head = await upstream.connection.continue_or_head(DEADLINE_S)
        assert isinstance(head, ResponseHead)
        assert head.status == 417

        upstream = Upstream("POST")
        upstream.end(FIN)
        with pytest.raises(UpstreamClosed):
            await upstream.connection.continue_or_head(DEADLINE_S)

    asyncio.run(play())


def test_a_writer_waits_while_a_window_waits_to_be_sent() -> None:
    """C31."""

    async def play() -> None:
        connection = Upstream("POST").connection
        await connection.drained()
        connection.pause_writing()
        writer = asyncio.create_task(connection.drained())
        await asyncio.sleep(0)
        assert (connection.congested, writer.done()) == (True, False)
        connection.resume_writing()
        await writer
        assert not connection.congested
        connection.pause_writing()
        writer = asyncio.create_task(connection.drained())
        await asyncio.sleep(0)
        connection.connection_lost(None)
        with pytest.raises(UpstreamClosed):
            await writer
        connection.write(b"to nobody")

    asyncio.run(play())


# ---- real sockets ---------------------------------------------------------------------------------------------------


class Peer(NamedTuple):
    """The upstream's end of a real connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def reset(self) -> None:
        """Ends the connection with RST."""
        peer: socket.socket = self.writer.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[tuple[Connection, Peer]]:
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[Peer] = loop.create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set_result(Peer(reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    _, connection = await loop.create_connection(lambda: Connection(loop, HEAD_BYTES_MAX), "127.0.0.1", port)
    peer = await arrived
    try:
        yield connection, peer
    finally:
        connection.abort()
        peer.writer.close()
        server.close()
        await server.wait_closed()


def dialogue(play: Callable[[Connection, Peer], Awaitable[None]]) -> None:
    """Plays it out on the relay's own event loop; an exception that the loop swallows fails it."""
    swallowed: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: swallowed.append(context))
        async with asyncio.timeout(DEADLINE_S), connected() as (connection, peer):
            await play(connection, peer)
        await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    assert swallowed == []


async def body_of(connection: Connection) -> bytes:
    body = b""
    while piece := await connection.read(None):
        body += piece
    return body


def test_a_request_and_its_response_cross_a_real_socket() -> None:
    async def play(connection: Connection, peer: Peer) -> None:
        for _ in range(2):
            connection.begin("GET")
            connection.write(b"GET / HTTP/1.1\r\n\r\n")
            connection.finish_request()
            assert await peer.reader.readuntil(b"\r\n\r\n") == b"GET / HTTP/1.1\r\n\r\n"
            peer.writer.write(OK + b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000)
            assert (await connection.head(None)).status == 200
            assert await body_of(connection) == b"x" * 100_000
            assert connection.reusable
        assert connection.tls_session() is None

    dialogue(play)


@pytest.mark.parametrize("size", [b"", b"Content-Length: 9\r\n"])
@pytest.mark.parametrize("end", [FIN, RST])
def test_the_end_of_a_real_socket_is_what_it_was(end: End, size: bytes) -> None:
    """C44, C46."""

    async def play(connection: Connection, peer: Peer) -> None:
        connection.begin("GET")
        peer.writer.write(OK + size + b"\r\nhello")
        await connection.head(None)
        assert await connection.read(None) == b"hello"
        if end is FIN:
            peer.writer.close()
        else:
            peer.reset()
        if end is FIN and not size:
            assert await connection.read(None) == b""
        else:
            with pytest.raises(RelayError, match="truncated"):
                await connection.read(None)

    dialogue(play)


@pytest.mark.parametrize("size", [5, 60_000])
def test_an_answer_that_came_before_the_reset_is_read_though_a_write_fails_first(size: int) -> None:
    """C29: an upstream that refuses a body answers and closes, and what we send meanwhile is answered with a reset."""
    answer = OK + b"Content-Length: %d\r\n\r\n" % size + b"x" * size

    async def play() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as server:
            _, connection = await loop.create_connection(
                lambda: Connection(loop, HEAD_BYTES_MAX), *server.getsockname()
            )
            peer, _ = server.accept()
        connection.begin("POST")
        connection.write(b"the first piece")
        with peer:  # and all of this before the loop reads, as it goes on a busy machine
            peer.sendall(answer)
        connection.write(b"what nobody takes")
        assert (await connection.head(None)).status == 200
        assert await body_of(connection) == b"x" * size
        assert not connection.reusable

    uvloop.run(play())


def test_an_upstream_that_is_not_read_is_not_read_further_than_a_window() -> None:
    """C57."""

    async def play(connection: Connection, peer: Peer) -> None:
        connection.begin("GET")
        size = 32 << 20
        peer.writer.write(OK + b"Content-Length: %d\r\n\r\n" % size + bytes(size))
        await connection.head(None)
        await asyncio.sleep(0.1)
        assert WINDOW_BYTES <= connection._buffered <= 2 * WINDOW_BYTES
        assert peer.writer.transport.get_write_buffer_size() > size / 2
        received = 0
        while piece := await connection.read(None):
            received += len(piece)
        assert received == size

    dialogue(play)


@pytest.mark.parametrize("end", [FIN, RST])
def test_a_failure_while_reading_is_paused_is_told_behind_what_was_read(end: End) -> None:
    async def play(connection: Connection, peer: Peer) -> None:
        connection.begin("POST")
        peer.writer.write(OK + b"Content-Length: 9999999\r\n\r\n" + bytes(500_000))
        await connection.head(None)
        await asyncio.sleep(0.05)
        assert connection._buffered > WINDOW_BYTES
        if end is FIN:
            connection.fail(ClientGone())
        else:
            peer.reset()
            await asyncio.sleep(0.05)
        with pytest.raises(ClientGone if end is FIN else RelayError):
            await body_of(connection)

    dialogue(play)


def test_a_connection_that_the_upstream_closed_while_it_idled_says_so() -> None:
    """C60."""

    async def play(connection: Connection, peer: Peer) -> None:
        connection.begin("GET")
        connection.finish_request()
        peer.writer.write(OK + b"Content-Length: 0\r\n\r\n")
        await connection.head(None)
        assert connection.reusable
        peer.writer.close()
        await asyncio.sleep(0.05)
        assert connection.closed
        assert not connection.reusable

    dialogue(play)


def test_an_aborted_request_never_looks_whole_to_the_upstream() -> None:
    """C28."""

    async def play(connection: Connection, peer: Peer) -> None:
        connection.begin("POST")
        connection.write(b"x" * (8 << 20))
        assert connection.congested
        await asyncio.sleep(0.02)
        connection.fail(ClientGone())
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while piece := await peer.reader.read(1 << 16):
                received += len(piece)
        assert received < 8 << 20
        with pytest.raises(ClientGone):
            await connection.drained()

    dialogue(play)
