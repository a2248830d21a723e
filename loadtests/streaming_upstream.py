"""The upstream of streams and uploads: as many events a second as one CPU allows, and a sink that counts bytes.

`python -m loadtests.streaming_upstream PORT`. It is made to cost little beside the proxy it serves: an event is put
together once per millisecond and written as it is to every stream that is due, and a body is read into one buffer and
dropped. It understands just the requests below, from a proxy that behaves.

    GET /events            an endless event stream, 50 events a second
    GET /events?count=N    N events at once, then the end: always the same bytes
    POST /events/chat/completions   as /events; its body comes with the head, and is not looked at
    POST /upload           {"bytes": N} when the body (with a Content-Length) has arrived
    POST /checksum         the same with the body's SHA-256
"""

import asyncio
import hashlib
import json
import sys
import time
from collections.abc import Callable
from itertools import cycle
from typing import cast

import uvloop

EVENTS_PER_S = 50
# A stream belongs to one slot, a slot is due once every EVENTS_PER_S-th of a second: streams do not all fire at once.
SLOTS = 20
SLOT_NS = 1_000_000_000 // (EVENTS_PER_S * SLOTS)
READ_BUFFER_BYTES = 256 * 1024
HEAD_BYTES_MAX = 64 * 1024

STAMP_PREFIX = b'data: {"t":'
STAMP_DIGITS = 20
EVENT = STAMP_PREFIX + (
    b'%020d,"id":"chatcmpl-BenchmarkBenchmark0000","object":"chat.completion.chunk","model":"gpt-4o-mini",'
    b'"choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}]}\n\n'
)
STREAM_HEAD = b"".join(
    (
        b"HTTP/1.1 200 OK\r\n",
        b"content-type: text/event-stream\r\n",
        b"cache-control: no-cache\r\n",
        b"transfer-encoding: chunked\r\n\r\n",
    )
)
LAST_CHUNK = b"0\r\n\r\n"
STREAMED = ((b"GET", b"/events"), (b"POST", b"/events/chat/completions"))


def event(stamp_ns: int) -> bytes:
    return EVENT % stamp_ns


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Metronome:
    """Writes events to the streams that have joined, slot after slot."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.slots: list[set[asyncio.Transport]] = [set() for _ in range(SLOTS)]
        self.next_slot = cycle(self.slots)
        self.slot_of: dict[asyncio.Transport, set[asyncio.Transport]] = {}
        self.due_ns = time.monotonic_ns()
        self.position = 0

    def join(self, stream: asyncio.Transport) -> None:
        slot = self.slot_of[stream] = next(self.next_slot)
        slot.add(stream)

    def leave(self, stream: asyncio.Transport) -> None:
        slot = self.slot_of.pop(stream, None)
        if slot is not None:
            slot.discard(stream)

    def tick(self) -> None:
        """Serve every slot that is due. One that is late by a whole round is given up: the machine cannot do more."""
        now_ns = time.monotonic_ns()
        self.due_ns = max(self.due_ns, now_ns - SLOTS * SLOT_NS)
        while self.due_ns <= now_ns:
            self.serve(self.slots[self.position])
            self.position = (self.position + 1) % SLOTS
            self.due_ns += SLOT_NS
        self.loop.call_later((self.due_ns - now_ns) / 1e9, self.tick)

    def serve(self, streams: set[asyncio.Transport]) -> None:
        data = chunk(event(time.monotonic_ns()))
        for stream in streams:
            # A stream that has not taken its last event yet misses this one, instead of growing a queue here.
            if not stream.get_write_buffer_size():
                stream.write(data)


class Connection(asyncio.BufferedProtocol):
    """One connection from a proxy, one request after the other."""

    buffer = memoryview(bytearray(READ_BUFFER_BYTES))

    def __init__(self, metronome: Metronome) -> None:
        self.metronome = metronome
        self.head = b""
        self.remaining_bytes = 0
        self.length_bytes = 0
        self.consume: Callable[[memoryview], object] = len
        self.finish: Callable[[], bytes] = bytes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.metronome.leave(self.transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        # One buffer serves all connections: what is read is used up before the loop reads again.
        del sizehint
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.remaining_bytes:
            self.take_body(self.buffer[:nbytes])
            return
        self.head += bytes(self.buffer[:nbytes])
        head, end, rest = self.head.partition(b"\r\n\r\n")
        if end:
            self.head = b""
            self.begin(head, rest)
        elif len(self.head) > HEAD_BYTES_MAX:
            self.transport.abort()

    def begin(self, head: bytes, rest: bytes) -> None:
        line, *fields = head.split(b"\r\n")
        method, target, _ = line.split(b" ", 2)
        headers = {name.strip().lower(): value.strip() for name, _, value in (f.partition(b":") for f in fields)}
        path, _, query = target.partition(b"?")
        if (method, path) in STREAMED:
            self.stream(query)
        elif method == b"POST" and path in (b"/upload", b"/checksum") and b"content-length" in headers:
            self.expect_body(path, int(headers[b"content-length"]))
            self.take_body(memoryview(rest))
        else:
            self.answer(b"400 Bad Request", b'{"error":"unknown request"}')

    def stream(self, query: bytes) -> None:
        self.transport.write(STREAM_HEAD)
        if query:
            count = int(query.removeprefix(b"count="))
            self.transport.write(b"".join(chunk(event(number)) for number in range(count)) + LAST_CHUNK)
        else:
            self.metronome.join(self.transport)

    def expect_body(self, path: bytes, length_bytes: int) -> None:
        self.length_bytes = self.remaining_bytes = length_bytes
        result: dict[str, object] = {"bytes": length_bytes}
        if path == b"/checksum":
            digest = hashlib.sha256()
            self.consume = digest.update
            self.finish = lambda: json.dumps(result | {"sha256": digest.hexdigest()}).encode()
        else:
            self.consume = len
            self.finish = lambda: json.dumps(result).encode()

    def take_body(self, data: memoryview) -> None:
        self.consume(data)
        self.remaining_bytes -= len(data)
        if not self.remaining_bytes:
            self.answer(b"200 OK", self.finish())

    def answer(self, status: bytes, body: bytes) -> None:
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
        self.transport.write(head + body)


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    metronome = Metronome(loop)
    server = await loop.create_server(lambda: Connection(metronome), "127.0.0.1", port, backlog=4096)
    metronome.tick()
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
