"""The client of event streams: many connections on one epoll, every event counted, some of them timed.

It never parses: an event ends with a blank line of bare newlines, which no chunk header holds (those end in CRLF), so
counting `\\n\\n` is exact however a proxy cuts and frames the stream. Events carry the time at which they were written.
"""

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from loadtests.streaming_upstream import STAMP_DIGITS, STAMP_PREFIX

EVENT_END = b"\n\n"
NEWLINE = EVENT_END[0]
READ_BYTES = 256 * 1024
CONNECT_TIMEOUT_S = 10.0
# One read in so many is timed: enough for a p99, little enough not to cost.
READS_PER_TIMING = 16
POLL_S = 0.1
REQUEST = (
    b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\nUser-Agent: relaygate-compare/1\r\n\r\n"
)


class StreamError(Exception):
    """A stream did not begin as it should."""


def events_ended(last_byte: int, read: bytes | bytearray, size: int) -> int:
    """How many events end within the first `size` bytes read, when the byte before them was `last_byte`."""
    return read.count(EVENT_END, 0, size) + (last_byte == NEWLINE == read[0])


@dataclass
class Tally:
    """What arrived. `reads` tells how far events came singly; `ended` counts streams that stopped by themselves."""

    events: int = 0
    reads: int = 0
    ended: int = 0
    seconds: float = 0.0
    delays_us: list[float] = field(default_factory=list)


class Streams:
    """Open event streams, each with the last byte that came, since a read may stop in the middle of an event's end."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.epoll = select.epoll()
        self.sockets: dict[int, socket.socket] = {}
        self.readers: dict[int, Callable[[bytearray], int]] = {}
        self.last_byte: dict[int, int] = {}
        self.buffer = bytearray(READ_BYTES)

    def open(self, port: int) -> None:
        """Connect and ask for one stream. Raises `StreamError`."""
        try:
            stream = socket.create_connection(("127.0.0.1", port), timeout=CONNECT_TIMEOUT_S)
            self.sockets[stream.fileno()] = stream
            stream.sendall(self.request)
        except OSError as error:
            raise StreamError(f"stream {len(self.sockets)} was not accepted: {error}") from error

    def read_heads(self) -> None:
        """Wait for the head of every stream's answer. Raises `StreamError`."""
        for number, stream in self.sockets.items():
            try:
                start = stream.recv(READ_BYTES)
            except OSError as error:
                raise StreamError(f"no answer on a stream: {error}") from error
            if b" 200 " not in start[:16]:
                raise StreamError(f"a stream began with {start[:200]!r}")
            stream.setblocking(False)
            self.last_byte[number] = start[-1]
            self.readers[number] = stream.recv_into
            self.epoll.register(number, select.EPOLLIN)

    def receive(self, seconds: float) -> Tally:
        """Read for so long, and count."""
        tally = Tally()
        begin = time.monotonic()
        while (now := time.monotonic()) < begin + seconds:
            for number, _ in self.epoll.poll(min(POLL_S, begin + seconds - now)):
                self.read(number, tally)
        tally.seconds = time.monotonic() - begin
        return tally

    def read(self, number: int, tally: Tally) -> None:
        try:
            count = self.readers[number](self.buffer)
        except ConnectionError:
            count = 0
        if not count:
            self.epoll.unregister(number)
            tally.ended += 1
            return
        buffer = self.buffer
        tally.reads += 1
        tally.events += events_ended(self.last_byte[number], buffer, count)
        self.last_byte[number] = buffer[count - 1]
        if tally.reads % READS_PER_TIMING == 0:
            stamp = buffer.find(STAMP_PREFIX, 0, count - STAMP_DIGITS)
            if stamp >= 0:
                begin = stamp + len(STAMP_PREFIX)
                written_ns = int(buffer[begin : begin + STAMP_DIGITS])
                tally.delays_us.append((time.monotonic_ns() - written_ns) / 1000)

    def close(self) -> None:
        for stream in self.sockets.values():
            stream.close()
        self.epoll.close()


@contextlib.contextmanager
def event_streams(port: int, count: int, request: bytes = REQUEST) -> Iterator[Streams]:
    """`count` streams through a proxy, each begun and answered with status 200. Raises `StreamError`."""
    streams = Streams(request)
    try:
        for _ in range(count):
            streams.open(port)
        streams.read_heads()
        yield streams
    finally:
        streams.close()
