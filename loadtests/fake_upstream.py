"""A real upstream that misbehaves on command, with every byte on the wire under control.

The law of this file: what a request asks for in its path and query is sent exactly so, however wrong it is, and what
arrives is recorded exactly as it came. Therefore no HTTP server library: they repair, complete and hide.

    python -m loadtests.fake_upstream --port 0          prints "listening on 127.0.0.1:PORT"
    with running_in_thread() as upstream: …             inside a test, with the records at hand

Paths (`fake_behaviours.BEHAVIOURS` is the table; of a path with `/-/` in it only what follows counts):

    /echo    the request as received, as JSON: target, head (latin-1), body (base64), framing, connection number
    /answer  one answer by query: status, reason, version, header (repeated name:value), headers_count, header_bytes,
             body | body64 | body_bytes (patterned), framing=length|chunked|close|none, declared_bytes,
             piece_bytes, interval_ms, head_delay_ms, interim (100,103), trailer (name:value),
             cut_after_bytes, end=keep|fin|bare_fin|rst|hold, idle_ms (closes a connection left idle for so long),
             read=all|none|slow with read_bytes_per_s, expect=100|none
    /raw     `piece` (several, base64) sent as they are, that of number `again` (0) `repeat` times, pause_ms between;
             end, read as above
    /sse     events, interval_ms, event_bytes, segments (pieces an event is written in), cut_after_events, end
    /hold    never answers
    /die     closes without a byte: on=reused|any|fresh, how=fin|rst, read=all|none; answers otherwise
    /v1/chat/completions, /v1/responses, /v1/models, /v1/messages,
    /v1beta/models/X:generateContent, /v1beta/models/X:streamGenerateContent
             as the providers do; words, interval_ms, cut_after_events, end; `error=429` or a model `error-429`
    /_control/state, /_control/requests?since=N, /_control/reset, /_control/close_idle
             are not recorded themselves
"""

import argparse
import asyncio
import contextlib
import ssl
import threading
from collections.abc import Awaitable, Iterator
from typing import TypeVar

import uvloop

from loadtests.fake_behaviours import behaviour_of
from loadtests.fake_requests import Recorded
from loadtests.fake_wire import Connection, Exchange

CONTROL = "/_control/"


class FakeUpstream:
    """The listener, its open connections and everything it has received."""

    def __init__(self) -> None:
        self.requests: list[Recorded] = []
        self.connections_total = 0
        self.port = 0
        self._open: set[Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), host, port, ssl=tls, backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]

    async def serve_forever(self) -> None:
        if self._server is None:
            raise RuntimeError("start() comes first")
        await self._server.serve_forever()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = [connection.task for connection in self._open if connection.task is not None]
        for connection in self._open:
            connection.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    def received(self, recorded: Recorded) -> None:
        """Record a request; those about the server itself leave no trace."""
        if f" {CONTROL}".encode() not in recorded.head.partition(b"\r\n")[0]:
            self.requests.append(recorded)

    def play(self, exchange: Exchange) -> Awaitable[None]:
        """Answer a request: as its path says, or about the server itself."""
        path = exchange.path()
        return self.control(exchange, path) if path.startswith(CONTROL) else behaviour_of(path)(exchange)

    async def control(self, exchange: Exchange, path: str) -> None:
        action = path.removeprefix(CONTROL)
        if action == "state":
            await exchange.send_document(self.state())
        elif action == "requests":
            since = exchange.query.integer("since", 0)
            await exchange.send_document([recorded.document() for recorded in self.requests[since:]])
        elif action == "reset":
            self.requests.clear()
            await exchange.send_document({})
        elif action == "close_idle":
            await exchange.send_document({"closed": self.close_idle()})
        else:
            await exchange.send_document({"error": "no such control"}, 404)

    def connection_opened(self, connection: Connection) -> int:
        self._open.add(connection)
        self.connections_total += 1
        return self.connections_total

    def connection_closed(self, connection: Connection) -> None:
        self._open.discard(connection)

    @property
    def open_connections(self) -> int:
        """Sockets whose peer has not closed. A peer's close counts when it is seen, which is at once."""
        return sum(not connection.gone for connection in list(self._open))

    def idle_connections(self) -> int:
        """Connections that wait for their next request."""
        return sum(connection.idle and not connection.gone for connection in list(self._open))

    def close_idle(self) -> int:
        """Close, without a word, every connection that waits for its next request."""
        idle = [connection for connection in self._open if connection.idle]
        for connection in idle:
            connection.transport.close()
        return len(idle)

    def state(self) -> dict[str, int]:
        return {
            "open_connections": self.open_connections,
            "connections_total": self.connections_total,
            "requests": len(self.requests),
        }


class UpstreamInThread(FakeUpstream):
    """A FakeUpstream that runs in a thread of its own; its records may be read from the test's thread at any time."""

    def __init__(self, scheme: str) -> None:
        super().__init__()
        self.scheme = scheme
        self.loop = asyncio.new_event_loop()

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}"

    def close_idle_from_outside(self) -> int:
        """`close_idle()` for callers in another thread; returns when the closes have been made."""

        async def close() -> int:
            return self.close_idle()

        return asyncio.run_coroutine_threadsafe(close(), self.loop).result(timeout=5)


U = TypeVar("U", bound=UpstreamInThread)


def running_in_thread(
    tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> contextlib.AbstractContextManager[UpstreamInThread]:
    """Run a fake upstream beside the caller, on a port of its own, until the block is left."""
    return in_thread(UpstreamInThread("https" if tls else "http"), tls, host)


@contextlib.contextmanager
def in_thread(upstream: U, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0) -> Iterator[U]:
    """Run this upstream in its thread until the block is left."""
    loop = upstream.loop
    thread = threading.Thread(target=loop.run_forever, name="fake-upstream", daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(upstream.start(host, port, tls), loop).result(timeout=10)
    try:
        yield upstream
    finally:
        asyncio.run_coroutine_threadsafe(upstream.stop(), loop).result(timeout=10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=10)
        loop.close()


def listener_tls(certificate: str, key: str, client_ca: str | None) -> ssl.SSLContext:
    """A listener's TLS; with `client_ca`, a client without a certificate of that CA is refused."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    if client_ca:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


async def _main(arguments: argparse.Namespace) -> None:
    tls = None
    if arguments.tls_cert:
        tls = listener_tls(arguments.tls_cert, arguments.tls_key, arguments.client_ca)
    upstream = FakeUpstream()
    await upstream.start(arguments.host, arguments.port, tls)
    print(f"listening on {arguments.host}:{upstream.port}", flush=True)
    await upstream.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description="An upstream that misbehaves on command; see the module's docstring.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tls-cert")
    parser.add_argument("--tls-key")
    parser.add_argument("--client-ca")
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
