"""An upstream that says what it was asked, at little cost: `python -m loadtests.echo_upstream PORT NAME`.

It answers each request with 200 and, as text, `NAME METHOD TARGET`, a newline, and the request's body. It understands
requests without a body or with a `Content-Length`, from a proxy that behaves. From SIGUSR1 on the status is 503,
whatever it is asked, and from SIGUSR2 on 200 again.
"""

import asyncio
import signal
import sys
from typing import cast

import uvloop

WELL, UNWELL = b"200 OK", b"503 Service Unavailable"
HEAD = b"HTTP/1.1 %b\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n"


def echo(name: bytes, method: bytes, target: bytes, body: bytes = b"") -> bytes:
    """The body of the answer."""
    return b"%b %b %b\n%b" % (name, method, target, body)


class Health:
    """Whether the program is well, as all its connections see it."""

    def __init__(self) -> None:
        self.status = WELL

    def fail(self) -> None:
        self.status = UNWELL

    def recover(self) -> None:
        self.status = WELL


class Connection(asyncio.Protocol):
    """One connection from a proxy, one request after the other."""

    def __init__(self, name: bytes, health: Health) -> None:
        self._name = name
        self._health = health
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        length_bytes = 0
        for line in head.split(b"\r\n")[1:]:
            field, _, value = line.partition(b":")
            if field.lower() == b"content-length":
                length_bytes = int(value)
        if len(rest) < length_bytes:
            return
        self._received = rest[length_bytes:]
        method, target, _ = head.split(b" ", 2)
        body = echo(self._name, method, target, rest[:length_bytes])
        self._transport.write(HEAD % (self._health.status, len(body)) + body)


async def serve(port: int, name: bytes) -> None:
    loop = asyncio.get_running_loop()
    health = Health()
    loop.add_signal_handler(signal.SIGUSR1, health.fail)
    loop.add_signal_handler(signal.SIGUSR2, health.recover)
    server = await loop.create_server(lambda: Connection(name, health), "127.0.0.1", port, backlog=4096)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2].encode()))
