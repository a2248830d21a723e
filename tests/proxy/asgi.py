"""The client's side as Granian hands it over, and an upstream below real connections, both played by a test."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from proxy.config import Config, Route, Server
from proxy.config import Upstream as UpstreamSettings
from proxy.exchange import Exchange, Message, Scope
from proxy.journal import Journal
from proxy.key_pool.pool import KeyPool
from proxy.metering.gate import Gate
from proxy.rules.headers import Header
from proxy.snapshot import CompiledRoute, Shared, Snapshot, compile_snapshot
from proxy.tallies import Tallies
from proxy.upstream.connect import Origin
from proxy.upstream.connection import Connection
from proxy.upstream.groups import Groups
from proxy.upstream.pool import Pool, Pools
from proxy.upstream.tls import SessionContext
from tests.proxy.upstream.wire import Wire

DEADLINE_S = 5.0
TARGET = "http://up.example/base"


def play(dialogue: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await dialogue()
        await turns()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


async def turns(number: int = 10) -> None:
    """Lets everything run that can."""
    for _ in range(number):
        await asyncio.sleep(0)


def http_scope(
    path: bytes = b"/up", query: bytes = b"", method: str = "GET", version: str = "1.1", headers: Iterable[Header] = ()
) -> Scope:
    return {
        "type": "http",
        "method": method,
        "http_version": version,
        "scheme": "http",
        "raw_path": path,
        "query_string": query,
        "headers": [(b"host", b"relay.example"), *headers],
        "client": ("192.0.2.7", 50_000),
    }


class Client:
    """A client: what it sends is put, what it gets is collected."""

    def __init__(self) -> None:
        self._sent: asyncio.Queue[Message] = asyncio.Queue()
        self.got: list[Message] = []

    def put(self, body: bytes, *, more: bool) -> None:
        self._sent.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def leave(self) -> None:
        self._sent.put_nowait({"type": "http.disconnect"})

    async def receive(self) -> Message:
        return await self._sent.get()

    async def send(self, message: Message) -> None:
        self.got.append(message)

    @property
    def status(self) -> int:
        status: int = self.got[0]["status"]
        return status

    @property
    def headers(self) -> list[Header]:
        headers: list[Header] = self.got[0]["headers"]
        return headers

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.got[1:])

    def has_ended(self) -> bool:
        return len(self.got) > 1 and not self.got[-1]["more_body"]

    def exchange(self, **request: Any) -> Exchange:
        exchange = Exchange(http_scope(**request), self.receive, self.send, asyncio.get_running_loop())
        exchange.request_id = b"relay-id"
        return exchange


def no_secrets(secret: str, _purpose: str) -> str:
    """Stands in for decryption: the secrets of these tests are not encrypted."""
    return secret


def snapshot_of(
    server: Server | None = None, /, key_pool: KeyPool | None = None, gate: Gate | None = None, **route: Any
) -> Snapshot:
    """A snapshot with one route, `/up`."""
    routes = {"/up": Route(target=route.pop("target", TARGET), **route)}
    config = Config(server=server or Server(), routes=routes)
    tallies = Tallies(Journal.in_memory(), "worker", 0)
    loop = asyncio.get_running_loop()
    shared = Shared(Pools(loop), Groups(loop), tallies, key_pool or KeyPool(no_secrets), gate or Gate())
    return compile_snapshot(config, shared)


def balanced_snapshot(upstream: UpstreamSettings, server: Server | None = None, /, **route: Any) -> Snapshot:
    """A snapshot with one route, `/up`, to an upstream that is called `group`."""
    config = Config(
        server=server or Server(),
        upstreams={"group": upstream},
        routes={"/up": Route(upstream="group", **route)},
    )
    loop = asyncio.get_running_loop()
    return compile_snapshot(config, Shared(Pools(loop), Groups(loop), None, KeyPool(no_secrets), Gate()))


def pool_of(route: CompiledRoute) -> Pool:
    """The pool of a route with a target."""
    assert route.hop is not None
    return route.hop.pool


class Upstream:
    """Stands in for `connect`: every connection is a wire of its own, in `wires`."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.hosts: list[str] = []
        """To which host each of these leads."""
        self.error: Exception | None = None
        self.down: dict[str, Exception] = {}
        """What comes of connecting to a host."""

    async def connect(self, origin: Origin, _context: SessionContext | None = None) -> Connection:
        if error := self.error or self.down.get(origin.host):
            raise error
        self.hosts.append(origin.host)
        connection = Connection(asyncio.get_running_loop(), origin.response_head_bytes_max)
        connection.connection_made(Wire())
        self.connections.append(connection)
        return connection

    def wire(self, number: int = -1) -> Wire:
        wire = self.connections[number]._transport
        assert isinstance(wire, Wire)
        return wire

    def answer(self, data: bytes, number: int = -1) -> None:
        self.connections[number].receive(memoryview(data))

    def close(self, number: int = -1) -> None:
        self.connections[number].eof_received()
        self.connections[number].connection_lost(None)
