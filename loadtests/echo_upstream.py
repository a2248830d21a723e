"""An upstream that says what it was asked, at little cost: `python -m loadtests.echo_upstream PORT NAME`.

It answers each request with 200 and, as text, `NAME METHOD TARGET`, a newline, and the request's body. It understands
requests without a body or with a `Content-Length`, from a proxy that behaves.
"""

import asyncio
import sys
from typing import cast

import uvloop


def echo(name: bytes, method: bytes, target: bytes, body: bytes = b"") -> bytes:
    """The body of the answer."""
    return b"%b %b %b\n%b" % (name, method, target, body)


class Connection(asyncio.Protocol):
    """One connection from a proxy, one request after the other."""

    def __init__(self, name: bytes) -> None:
        self._name = name
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
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n" % len(body))
        self._transport.write(body)


async def serve(port: int, name: bytes) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(name), "127.0.0.1", port, backlog=4096)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2].encode()))
