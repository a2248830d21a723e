"""What an https upstream must prove, against real handshakes; and that its sessions are used again."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trustme
import uvloop

from proxy.config import UpstreamTls
from proxy.errors import RelayError
from proxy.upstream.connect import Origin
from proxy.upstream.connection import Connection
from proxy.upstream.pool import Pool, Pools
from proxy.upstream.tls import client_context

DEADLINE_S = 5.0
NAME = "up.example"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Authority:
    """A CA with the files that it makes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca = trustme.CA()
        self.file = str(folder / "ca.pem")
        self._ca.cert_pem.write_to_path(self.file)

    def server(self, name: str, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = version
        self._ca.issue_cert(name).configure_cert(context)
        return context

    def client_files(self) -> tuple[str, str]:
        issued = self._ca.issue_cert("client.example")
        certificate, key = self._folder / "client.crt", self._folder / "client.key"
        issued.cert_chain_pems[0].write_to_path(certificate)
        issued.private_key_pem.write_to_path(key)
        return str(certificate), str(key)

    def trust(self, context: ssl.SSLContext) -> None:
        self._ca.configure_trust(context)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


class Server:
    """An https upstream that answers every request, and notes what its handshakes were."""

    def __init__(self) -> None:
        self.resumed: list[bool | None] = []
        self.protocols: list[str | None] = []
        self.transports: list[asyncio.WriteTransport] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        self.transports.append(writer.transport)
        self.resumed.append(tls.session_reused)
        self.protocols.append(tls.selected_alpn_protocol())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(ANSWER)
        writer.close()


@contextlib.asynccontextmanager
async def listening(context: ssl.SSLContext) -> AsyncIterator[tuple[Server, int]]:
    upstream = Server()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, ssl=context)
    try:
        yield upstream, server.sockets[0].getsockname()[1]
    finally:
        for transport in upstream.transports:
            transport.abort()
        server.close()
        await server.wait_closed()


def pool_to(port: int, tls: UpstreamTls) -> Pool:
    return Pool(
        Origin("127.0.0.1", port, tls, 3, 4096, 4, 5, 60, allow_private_targets=True), asyncio.get_running_loop()
    )


async def ask(connection: Connection) -> None:
    connection.begin("GET")
    connection.write(b"GET / HTTP/1.1\r\n\r\n")
    connection.finish_request()
    assert (await connection.head(None)).status == 200
    assert await connection.read(None) == b"ok"


def play(dialogue: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await dialogue()
        await asyncio.sleep(0.02)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def play_with(context: ssl.SSLContext, dialogue: Callable[[Server, int], Awaitable[None]]) -> None:
    async def main() -> None:
        async with listening(context) as (server, port):
            await dialogue(server, port)

    play(main)


def failure(context: ssl.SSLContext, tls: UpstreamTls) -> str:
    """The cause that a client is told of where no connection comes about."""
    causes: list[str] = []

    async def dialogue(_server: Server, port: int) -> None:
        pool = pool_to(port, tls)
        with pytest.raises(RelayError) as caught:
            await pool.fresh()
        assert pool.open == 0
        causes.append(caught.value.cause.word)

    play_with(context, dialogue)
    return causes[0]


def test_a_certificate_of_a_known_authority_for_the_right_name_is_good(authority: Authority) -> None:
    async def dialogue(server: Server, port: int) -> None:
        for name in (None, "127.0.0.1"):
            pool = pool_to(port, UpstreamTls(ca=authority.file, server_name=name))
            connection = await pool.fresh()
            await ask(connection)
            pool.give_back(connection)
            pool.retire()
        assert server.protocols == [None, None], "the server has no opinion on ALPN"

    play_with(authority.server("127.0.0.1"), dialogue)


def test_another_name_may_be_asked_for(authority: Authority) -> None:
    async def dialogue(_server: Server, port: int) -> None:
        pool = pool_to(port, UpstreamTls(ca=authority.file, server_name=NAME))
        await ask(await pool.fresh())

    play_with(authority.server(NAME), dialogue)


def test_only_http_1_1_is_offered(authority: Authority) -> None:
    async def dialogue(server: Server, port: int) -> None:
        await ask(await pool_to(port, UpstreamTls(ca=authority.file)).fresh())
        assert server.protocols == ["http/1.1"]

    context = authority.server("127.0.0.1")
    context.set_alpn_protocols(["h2", "http/1.1"])
    play_with(context, dialogue)


def test_a_wrong_certificate_is_told_apart_from_any_other_failure(authority: Authority, tmp_path: Path) -> None:
    """C64."""
    (tmp_path / "other").mkdir()
    others = Authority(tmp_path / "other")
    assert failure(others.server("127.0.0.1"), UpstreamTls(ca=authority.file)) == "certificate_invalid"
    assert failure(authority.server(NAME), UpstreamTls(ca=authority.file)) == "certificate_invalid"
    assert failure(authority.server("127.0.0.1"), UpstreamTls()) == "certificate_invalid"
    old = authority.server("127.0.0.1")
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    assert failure(old, UpstreamTls(ca=authority.file)) == "tls_failed"


def test_a_certificate_is_not_looked_at_where_the_route_says_so(authority: Authority) -> None:
    async def dialogue(_server: Server, port: int) -> None:
        await ask(await pool_to(port, UpstreamTls(verify=False)).fresh())

    play_with(authority.server(NAME), dialogue)


def test_a_client_certificate_is_shown(authority: Authority) -> None:
    context = authority.server("127.0.0.1", ssl.TLSVersion.TLSv1_2)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.trust(context)
    certificate, key = authority.client_files()

    async def dialogue(_server: Server, port: int) -> None:
        tls = UpstreamTls(ca=authority.file, certificate=certificate, key=key)
        await ask(await pool_to(port, tls).fresh())

    play_with(context, dialogue)
    assert failure(context, UpstreamTls(ca=authority.file)) == "tls_failed"


def test_unusable_files_are_told_when_the_context_is_made(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        client_context(UpstreamTls(ca=str(tmp_path / "none.pem")))
    with pytest.raises(ssl.SSLError):
        client_context(UpstreamTls(ca=__file__))
    with pytest.raises(OSError, match="SSL"):
        client_context(UpstreamTls(certificate=authority.file))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_resumed_by_every_later_connection(authority: Authority, version: ssl.TLSVersion) -> None:
    """Counted by the upstream: after one full handshake, only short ones."""

    async def dialogue(server: Server, port: int) -> None:
        pool = pool_to(port, UpstreamTls(ca=authority.file))
        for _ in range(4):
            connection = await pool.fresh()
            await ask(connection)
            pool.give_back(connection)
        pool.retire()
        assert server.resumed == [False, True, True, True]

    play_with(authority.server("127.0.0.1", version), dialogue)


def test_connections_that_are_made_at_once_all_resume(authority: Authority) -> None:
    async def dialogue(server: Server, port: int) -> None:
        pool = pool_to(port, UpstreamTls(ca=authority.file))
        first = await pool.fresh()
        await ask(first)
        pool.give_back(first)
        others = await asyncio.gather(*(pool.fresh() for _ in range(3)))
        await asyncio.gather(*map(ask, others))
        assert server.resumed == [False, True, True, True]

    play_with(authority.server("127.0.0.1"), dialogue)


def test_origins_with_the_same_settings_share_a_context_and_each_name_resumes_its_own_session(
    authority: Authority,
) -> None:
    """To make a context reads the system's authorities, which with 1,000 origins took 36 s."""

    async def dialogue(first: Server, port: int) -> None:
        async with listening(authority.server(NAME)) as (second, other_port):
            pools = Pools(asyncio.get_running_loop())
            tls = UpstreamTls(ca=authority.file)
            mine = pools.get(pool_to(port, tls).origin)
            other = pools.get(pool_to(other_port, UpstreamTls(ca=authority.file)).origin._replace(host="localhost"))
            assert mine._context is other._context
            assert pools.get(mine.origin._replace(tls=UpstreamTls(verify=False)))._context is not mine._context
            other.origin = other.origin._replace(tls=UpstreamTls(ca=authority.file, server_name=NAME))
            for _ in range(2):
                for pool in (mine, other):
                    connection = await pool.fresh()
                    await ask(connection)
                    pool.give_back(connection)
                    pool.take()
            assert (first.resumed, second.resumed) == ([False, True], [False, True])

    play_with(authority.server("127.0.0.1"), dialogue)


def test_an_upstream_that_forgot_the_session_gets_a_full_handshake(authority: Authority) -> None:
    async def dialogue(server: Server, port: int) -> None:
        pool = pool_to(port, UpstreamTls(ca=authority.file))
        connection = await pool.fresh()
        await ask(connection)
        pool.give_back(connection)
        async with listening(authority.server("127.0.0.1")) as (other, other_port):
            pool.origin = pool.origin._replace(port=other_port)
            await ask(await pool.fresh())
            assert (server.resumed, other.resumed) == ([False], [False])

    play_with(authority.server("127.0.0.1"), dialogue)


# ---- endings --------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def one_answer(context: ssl.SSLContext, answer: bytes, *, says_goodbye: bool) -> AsyncIterator[int]:
    """Serves one connection from a thread, and closes it with TLS's own goodbye or without."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            raw, _ = listener.accept()
            with raw, context.wrap_socket(raw, server_side=True) as tls:
                tls.recv(1024)
                tls.sendall(answer)
                if says_goodbye:
                    with contextlib.suppress(OSError):
                        tls.unwrap()
                else:
                    tls.shutdown(socket.SHUT_RDWR)

        serving = asyncio.create_task(asyncio.to_thread(serve))
        yield listener.getsockname()[1]
        await serving


@pytest.mark.parametrize("says_goodbye", [True, False])
def test_a_body_that_only_the_close_ends_is_whole_only_with_the_goodbye_of_tls(
    authority: Authority, *, says_goodbye: bool
) -> None:
    """C46, with RFC 9112 section 9.8: without the closure alert anybody on the way may have cut it."""

    async def dialogue() -> None:
        context = authority.server("127.0.0.1")
        async with one_answer(context, b"HTTP/1.0 200 OK\r\n\r\nhello", says_goodbye=says_goodbye) as port:
            connection = await pool_to(port, UpstreamTls(ca=authority.file)).fresh()
            connection.begin("GET")
            connection.write(b"GET / HTTP/1.1\r\n\r\n")
            await connection.head(None)
            assert await connection.read(None) == b"hello"
            if says_goodbye:
                assert await connection.read(None) == b""
            else:
                with pytest.raises(RelayError, match="truncated"):
                    await connection.read(None)

    play(dialogue)
