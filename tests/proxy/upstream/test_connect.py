"""From a name to a connection: several addresses, and a word of its own for every failure (C64, C69)."""

import asyncio
import contextlib
import errno
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop

from loadtests.processes import free_port
from proxy.config import UpstreamTls
from proxy.errors import (
    CERTIFICATE_INVALID,
    CONNECT_FAILED,
    CONNECT_REFUSED,
    DNS_FAILED,
    TLS_FAILED,
    Cause,
    RelayError,
    TargetRefused,
)
from proxy.upstream.connect import ADDRESS_DELAY_S, Origin, cause_of, connect
from proxy.upstream.tls import client_context

DEADLINE_S = 5.0
NAME = "up.example"

Address = tuple[Any, ...]


class Loop(uvloop.Loop):
    """An event loop in which names lead where a test says."""

    def __init__(self, addresses: list[str] | OSError) -> None:
        super().__init__()
        self._addresses = addresses

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> list[Any]:
        if host != NAME:
            return await super().getaddrinfo(host, port, **options)
        if isinstance(self._addresses, OSError):
            raise self._addresses
        found: list[Any] = []
        for address in self._addresses:
            family, full = (
                (socket.AF_INET6, (address, port, 0, 0)) if ":" in address else (socket.AF_INET, (address, port))
            )
            found.append((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", full))
        return found


def play(dialogue: Callable[[], Awaitable[None]], addresses: list[str] | OSError) -> None:
    async def main() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await dialogue()
        await asyncio.sleep(0.02)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with asyncio.Runner(loop_factory=lambda: Loop(addresses)) as runner:
        runner.run(main())


def origin_at(
    port: int, timeout_s: float | None = 3.0, tls: UpstreamTls | None = None, *, private: bool = True
) -> Origin:
    return Origin(NAME, port, tls, timeout_s, 4096, 4, 5, 60, allow_private_targets=private)


@contextlib.asynccontextmanager
async def listening(address: str = "127.0.0.1") -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, address, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


@contextlib.contextmanager
def silent(address: str, port: int = 0) -> Iterator[int]:
    """An address at which nobody answers: its queue of connections is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(listener.getsockname())
        yield listener.getsockname()[1]


def failure(addresses: list[str] | OSError, port: int, timeout_s: float | None = 3.0) -> str:
    """The word of the cause, where private addresses are allowed."""
    words: list[str] = []

    async def dialogue() -> None:
        with pytest.raises(RelayError) as caught:
            await connect(origin_at(port, timeout_s), None)
        words.append(caught.value.cause.word)

    play(dialogue, addresses)
    return words[0]


def test_a_name_becomes_a_connection_that_sends_at_once() -> None:
    async def dialogue() -> None:
        async with listening() as port:
            connection = await connect(origin_at(port), None)
            assert not connection.closed
            assert connection._transport is not None
            sock = connection._transport.get_extra_info("socket")
            assert sock.getpeername() == ("127.0.0.1", port)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            connection.abort()

    play(dialogue, ["127.0.0.1"])


@pytest.mark.parametrize("addresses", [["127.0.0.2", "127.0.0.1"], ["::1", "127.0.0.1"], ["127.0.0.1", "127.0.0.2"]])
def test_a_dead_address_among_others_is_not_noticed(addresses: list[str]) -> None:
    """C69."""

    async def dialogue() -> None:
        async with listening() as port:
            (await connect(origin_at(port), None)).abort()

    play(dialogue, addresses)


def test_an_address_that_does_not_answer_costs_a_quarter_of_a_second() -> None:
    """C69: RFC 8305 does not wait for the first address to fail."""

    async def dialogue() -> None:
        async with listening() as port:
            with silent("127.0.0.2", port):
                started_s = time.monotonic()
                connection = await connect(origin_at(port), None)
                assert ADDRESS_DELAY_S <= time.monotonic() - started_s < 8 * ADDRESS_DELAY_S
                assert connection._transport is not None
                assert connection._transport.get_extra_info("peername")[0] == "127.0.0.1"
                connection.abort()

    play(dialogue, ["127.0.0.2", "127.0.0.1"])


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["127.0.0.1", "127.0.0.2"], ["::1", "127.0.0.1"]])
def test_a_refusal_by_all_is_a_refusal(addresses: list[str]) -> None:
    assert failure(addresses, free_port()) == "connect_refused"


def test_an_unknown_name_is_told() -> None:
    assert failure(socket.gaierror(socket.EAI_NONAME, "Name or service not known"), 80) == "dns_failed"


def test_an_address_without_a_way_to_it_is_told() -> None:
    assert failure(["255.255.255.255"], 80) == "connect_failed"


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["127.0.0.1", "127.0.0.1"]])
def test_silence_is_told_when_the_time_is_up(addresses: list[str]) -> None:
    with silent("127.0.0.1") as port:
        assert failure(addresses, port, timeout_s=0.1) == "connect_timeout"


def test_a_cancelled_attempt_leaves_nothing_behind() -> None:
    async def dialogue() -> None:
        with silent("127.0.0.1") as port:
            connecting = asyncio.create_task(connect(origin_at(port, None), None))
            await asyncio.sleep(0.02)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting

    play(dialogue, ["127.0.0.1", "127.0.0.1"])


# ---- which addresses a target may have -------------------------------------------------------------------------------


class Resolved(Loop):
    """An event loop that notes what it is asked to resolve and what it is asked to connect to."""

    def __init__(self, addresses: list[str] | OSError) -> None:
        super().__init__(addresses)
        self.asked: list[str] = []
        self.tried: list[str] = []

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> list[Any]:
        self.asked.append(host)
        return await super().getaddrinfo(host, port, **options)

    async def sock_connect(self, _sock: Any, address: Any) -> None:
        self.tried.append(address[0])
        raise ConnectionRefusedError


def attempt(host: str, addresses: list[str]) -> tuple[RelayError, Resolved]:
    """What comes of connecting to public addresses only, all of which refuse."""

    async def main() -> RelayError:
        with pytest.raises(RelayError) as caught:
            await connect(origin_at(80, private=False)._replace(host=host), None)
        return caught.value

    loop = Resolved(addresses)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main()), loop


@pytest.mark.parametrize(
    ("addresses", "why"),
    [
        (["127.0.0.1"], "127.0.0.1 is loopback"),
        (["169.254.169.254"], "169.254.169.254 is link-local"),
        (["::1", "127.0.0.1", "10.0.0.1"], "127.0.0.1 is loopback, 10.0.0.1 is private"),
        (["::ffff:127.0.0.1"], "::ffff:127.0.0.1 is loopback"),
        (["64:ff9b::a9fe:a9fe"], "64:ff9b::a9fe:a9fe is link-local"),
        (["fe80::1%lo"], "fe80::1%lo is link-local"),
        (["0.0.0.0", "::"], ":: is unspecified"),
        ([f"10.0.0.{last}" for last in range(1, 200)], "10.0.0.199 is private"),
    ],
)
def test_a_name_that_leads_to_private_addresses_only_is_refused_before_any_is_tried(
    addresses: list[str], why: str
) -> None:
    error, loop = attempt(NAME, addresses)
    assert isinstance(error, TargetRefused)
    assert (error.cause.word, error.why) == ("target_refused", why)
    assert loop.tried == []


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:7f00:1", "0.0.0.0", "127.1", "0x7f000001", "2130706433"])
def test_an_address_in_any_spelling_is_refused(host: str) -> None:
    """Some of them are no targets that the settings let pass; a resolver takes them all the same."""
    error, loop = attempt(host, [])
    assert error.cause.word == "target_refused"
    assert loop.tried == []


def test_of_several_addresses_the_public_ones_are_tried_and_no_others() -> None:
    error, loop = attempt(NAME, ["10.0.0.1", "192.0.2.1", "8.8.8.8", "fd00::1", "1.1.1.1", "127.0.0.1"])
    assert error.cause is CONNECT_REFUSED
    assert sorted(loop.tried) == ["1.1.1.1", "8.8.8.8"]


def test_what_was_judged_is_what_is_connected_to() -> None:
    """A second look-up could be answered otherwise (DNS rebinding), so there is none."""
    error, loop = attempt(NAME, ["8.8.8.8"])
    assert error.cause is CONNECT_REFUSED
    assert (loop.asked, loop.tried) == ([NAME], ["8.8.8.8"])


def test_an_unknown_name_is_unknown_and_not_refused() -> None:
    async def main() -> str:
        with pytest.raises(RelayError) as caught:
            await connect(origin_at(80, private=False), None)
        return caught.value.cause.word

    with asyncio.Runner(loop_factory=lambda: Loop(socket.gaierror(socket.EAI_NONAME, "x"))) as runner:
        assert runner.run(main()) == "dns_failed"


# ---- TLS ------------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def not_tls(answer: bytes | None) -> AsyncIterator[int]:
    """A server that answers a handshake with something else: bytes, the end (empty), or nothing at all (None)."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1024)
        if answer is None:
            await reader.read()
        elif answer:
            writer.write(answer)
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "tls_failed"),
        (b"\x15\x03\x03\x00\x02\x02\x28", "tls_failed"),
        (b"", "tls_failed"),
        (None, "connect_timeout"),
    ],
    ids=["http", "an alert", "the end", "silence"],
)
def test_a_handshake_that_comes_to_nothing_is_told(answer: bytes | None, word: str) -> None:
    tls = UpstreamTls()
    context = client_context(tls)

    async def dialogue() -> None:
        async with not_tls(answer) as port:
            with pytest.raises(RelayError) as caught:
                await connect(origin_at(port, 0.3, tls), context)
            assert caught.value.cause.word == word

    play(dialogue, ["127.0.0.1"])


@pytest.mark.parametrize("server_name", [None, "other.example"])
def test_the_name_of_the_origin_is_proved_unless_the_route_has_another(tmp_path: Path, server_name: str | None) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = UpstreamTls(ca=str(tmp_path / "ca.pem"), server_name=server_name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(server_name or NAME).configure_cert(context)
    asked: list[str | None] = []
    context.sni_callback = lambda _object, name, _context: asked.append(name)

    async def dialogue() -> None:
        arrived = asyncio.Event()

        async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            arrived.set()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        async with server:
            port = server.sockets[0].getsockname()[1]
            connection = await connect(origin_at(port, tls=tls), client_context(tls))
            assert connection.tls_session() is not None
            await arrived.wait()
            connection.abort()
        assert asked == [server_name or NAME]

    play(dialogue, ["127.0.0.1"])


# ---- causes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (socket.gaierror(socket.EAI_NONAME, "x"), DNS_FAILED),
        (ConnectionRefusedError(), CONNECT_REFUSED),
        (OSError(errno.ECONNREFUSED, "Multiple exceptions: ..."), CONNECT_REFUSED),
        (OSError("Multiple exceptions: ..."), CONNECT_FAILED),
        (OSError(errno.ENETUNREACH, "x"), CONNECT_FAILED),
        (OSError(errno.EMFILE, "x"), CONNECT_FAILED),
        (ConnectionResetError(), CONNECT_FAILED),
        (ssl.SSLCertVerificationError("x"), CERTIFICATE_INVALID),
        (ssl.SSLError("x"), TLS_FAILED),
        (ssl.SSLEOFError("x"), TLS_FAILED),
    ],
    ids=repr,
)
def test_every_error_of_the_system_has_its_cause(error: OSError, cause: Cause) -> None:
    assert cause_of(error) is cause
