"""Connections found by their peers' addresses, asked and cut, beside a crowd of others."""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from proxy.client_sockets import ClientSockets

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a RST


class Pair:
    """A client and the server's end of its connection."""

    def __init__(self, listener: socket.socket) -> None:
        self.client = socket.create_connection(listener.getsockname()[:2], timeout=5)
        self.server, address = listener.accept()
        self.address = (address[0], str(address[1]))

    def close(self) -> None:
        self.client.close()
        self.server.close()


@pytest.fixture(name="connect", params=["127.0.0.1", "::1"])
def fixture_connect(request: pytest.FixtureRequest) -> Iterator[Callable[[], Pair]]:
    with ExitStack() as stack:
        try:
            listener = stack.enter_context(socket.create_server((request.param, 0), family=family_of(request.param)))
        except OSError:
            pytest.skip("no IPv6 here")

        def connect() -> Pair:
            return stack.enter_context(contextlib.closing(Pair(listener)))

        yield connect


def family_of(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def test_a_connection_stands_until_its_client_leaves(connect: Callable[[], Pair]) -> None:
    async def main() -> None:
        sockets = ClientSockets(time.monotonic)
        pairs = [connect() for _ in range(4)]
        assert [await sockets.stands(pair.address) for pair in pairs] == [True] * 4
        pairs[1].client.shutdown(socket.SHUT_WR)
        pairs[2].client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        pairs[2].client.close()
        await asyncio.sleep(0.01)
        assert [await sockets.stands(pair.address) for pair in pairs] == [True, False, False, True]

    asyncio.run(main())


def test_one_that_nobody_has_does_not_stand() -> None:
    async def main() -> None:
        sockets = ClientSockets(time.monotonic)
        assert not await sockets.stands(("192.0.2.1", "1"))
        assert not await sockets.cut(("192.0.2.1", "1"))

    asyncio.run(main())


def test_a_cut_connection_ends_behind_what_was_sent(connect: Callable[[], Pair]) -> None:
    async def main() -> None:
        sockets = ClientSockets(time.monotonic)
        pair, other = connect(), connect()
        pair.server.sendall(b"before")
        assert await sockets.cut(pair.address)
        assert pair.client.recv(100) == b"before"
        assert pair.client.recv(100) == b""
        other.server.sendall(b"alive")
        assert other.client.recv(100) == b"alive"

    asyncio.run(main())


def test_a_descriptor_that_means_another_connection_now_is_not_touched(connect: Callable[[], Pair]) -> None:
    async def main() -> None:
        sockets = ClientSockets(time.monotonic)
        gone = connect()
        assert await sockets.stands(gone.address)
        descriptor = gone.server.fileno()
        gone.close()
        other = connect()
        assert descriptor in (other.server.fileno(), other.client.fileno())
        assert not await sockets.cut(gone.address)
        other.server.sendall(b"alive")
        assert other.client.recv(100) == b"alive"

    asyncio.run(main())


def test_no_descriptor_is_left_open(connect: Callable[[], Pair]) -> None:
    async def main() -> None:
        sockets = ClientSockets(time.monotonic)
        pair = connect()
        await sockets.stands(pair.address)
        before = socket.socket()
        number = before.fileno()
        before.close()
        for _ in range(10):
            await sockets.stands(pair.address)
            await sockets.stands(("192.0.2.1", "1"))
        await sockets.cut(pair.address)
        with socket.socket() as after:
            assert after.fileno() == number

    asyncio.run(main())


def test_those_who_ask_at_once_share_a_scan(connect: Callable[[], Pair], monkeypatch: pytest.MonkeyPatch) -> None:
    scans = 0

    async def main() -> None:
        nonlocal scans
        sockets = ClientSockets(time.monotonic)
        scan = sockets._scan

        async def counted() -> None:
            nonlocal scans
            scans += 1
            await scan()

        monkeypatch.setattr(sockets, "_scan", counted)
        pairs = [connect() for _ in range(20)]
        strangers = [("192.0.2.1", str(port)) for port in range(1, 21)]
        asked = [pair.address for pair in pairs] + strangers
        answers = await asyncio.gather(*(sockets.stands(address) for address in asked))
        assert answers == [True] * 20 + [False] * 20

    asyncio.run(main())
    assert scans == 1
