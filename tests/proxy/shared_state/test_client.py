"""Every form of URL against a real server of its kind, and every URL that cannot be used against its one line."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis.exceptions as redis_errors
import trustme
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import ConfigError
from proxy.shared_state import keys
from proxy.shared_state.breaker import Breaker, Guard, StoreUnavailable
from proxy.shared_state.client import Aof, Found, check, connect
from proxy.shared_state.direct import direct
from tests.redis_servers import DEADLINE_S, cluster, connected, redis_at, sentinel, server, settle, tls_server, until

PASSWORD = "p/s?#@:% é"
SECRET = "hunter2"


def run(url: str, *commands: tuple[Any, ...]) -> list[Any]:
    """What a client of this URL is answered; the hot path's own connection is there too, but to a cluster."""

    async def dialogue() -> list[Any]:
        async with connected(url) as client:
            answers = [await client.execute_command(*command) for command in commands]
            if own := direct(client):
                with contextlib.closing(own):
                    await own.connect()
                    assert await own.ask(DEADLINE_S, "ECHO", "own") == b"own"
            return answers

    return asyncio.run(dialogue())


def found_at(url: str) -> Found:
    async def dialogue() -> Found:
        async with connected(url) as client:
            return await check(client)

    return asyncio.run(dialogue())


def test_it_answers_in_bytes_and_speaks_resp3(redis_url: str, prefix: str) -> None:
    [_, value, fields] = run(
        redis_url,
        ("HSET", f"{prefix}h", "field", b"\xff\x00"),
        ("HGET", f"{prefix}h", "field"),
        ("HGETALL", f"{prefix}h"),
    )
    assert value == b"\xff\x00"
    assert fields == {b"field": b"\xff\x00"}


def test_check_finds_version_and_append_only_file(tmp_path: Path) -> None:
    with redis_at("embedded", tmp_path) as url:
        found = found_at(url)
    assert found.aof is Aof.ON
    assert found.version.startswith(("6.2.", "7.", "8."))


def test_check_turns_the_append_only_file_on(tmp_path: Path) -> None:
    with server(tmp_path) as port:
        url = f"redis://127.0.0.1:{port}"
        assert found_at(url).aof is Aof.TURNED_ON
        assert found_at(url).aof is Aof.ON
        asyncio.run(settle(url))


def test_check_says_if_it_may_not(tmp_path: Path) -> None:
    with server(tmp_path, "--rename-command", "CONFIG", "") as port:
        assert found_at(f"redis://127.0.0.1:{port}").aof is Aof.OFF


@pytest.mark.parametrize(("version", "hello"), [("5.0.7", False), ("6.0.16", True)])
def test_an_old_server_is_refused(version: str, hello: bool) -> None:  # noqa: FBT001
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = f"redis_version:{version}\r\naof_enabled:1\r\n"
        while (head := await reader.readline()).startswith(b"*"):
            words = [await word(reader) for _ in range(int(head[1:]))]
            match words[0]:
                case b"HELLO" if hello:
                    writer.write(b"%1\r\n+proto\r\n:3\r\n")
                case b"PING":
                    writer.write(b"+PONG\r\n")
                case b"INFO":
                    writer.write(f"${len(info)}\r\n{info}\r\n".encode())
                case _:
                    writer.write(b"-ERR unknown command `%s`, with args beginning with:\r\n" % words[0])
        writer.close()

    async def word(reader: asyncio.StreamReader) -> bytes:
        length = int((await reader.readline())[1:])
        return (await reader.readexactly(length + 2))[:-2]

    async def dialogue() -> None:
        fake = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with fake, connected(f"redis://127.0.0.1:{fake.sockets[0].getsockname()[1]}") as client:
            with pytest.raises(ConfigError, match=r"^redis: .*6\.2 or newer is needed$"):
                await check(client)

    asyncio.run(dialogue())


def test_user_password_and_database(tmp_path: Path) -> None:
    with server(tmp_path, "--requirepass", PASSWORD, "--user", "relay", "on", f">{SECRET}", "~*", "+@all") as port:
        [_, who] = run(f"redis://relay:{SECRET}@127.0.0.1:{port}/3", ("SET", "k", "in 3"), ("ACL", "WHOAMI"))
        assert who == b"relay"
        secret = quote(PASSWORD, safe="")
        assert run(f"redis://:{secret}@127.0.0.1:{port}/3", ("GET", "k")) == [b"in 3"]
        assert run(f"redis://:{secret}@localhost:{port}", ("GET", "k")) == [None]
        with pytest.raises(redis_errors.AuthenticationError):
            run(f"redis://:wrong@127.0.0.1:{port}", ("GET", "k"))


def test_a_database_of_a_unix_socket(redis_url: str, prefix: str) -> None:
    if not redis_url.startswith("unix:"):
        pytest.skip("the Redis at TEST_REDIS_URL is not on a unix socket")
    run(f"{redis_url}?db=1", ("SET", f"{prefix}k", "in 1", "EX", 60))
    assert run(redis_url, ("GET", f"{prefix}k")) == [None]
    assert run(f"{redis_url}?db=1", ("GETDEL", f"{prefix}k")) == [b"in 1"]


def test_a_command_whose_connection_broke_is_not_sent_again() -> None:
    seen = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read(4096)
        writer.write(b"%1\r\n+proto\r\n:3\r\n")
        while b"INCR" not in data and data:
            data = await reader.read(4096)
        seen.append(data)
        writer.close()

    async def dialogue() -> None:
        fake = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with fake, connected(f"redis://127.0.0.1:{fake.sockets[0].getsockname()[1]}") as client:
            with pytest.raises(redis_errors.ConnectionError):
                await client.incr("k")

    asyncio.run(dialogue())
    assert len(seen) == 1


def test_a_connection_that_was_closed_while_idle_is_replaced_unseen(tmp_path: Path) -> None:
    with server(tmp_path) as port:

        async def dialogue() -> None:
            url = f"redis://127.0.0.1:{port}"
            async with connected(url) as client, connected(url) as other:
                for _ in range(20):
                    await client.set("k", "v")
                    assert await other.client_kill_filter(_type="normal", skipme=True) == 1
                    assert await client.get("k") == b"v"

        asyncio.run(dialogue())


# TLS


class Tls:
    """A server of one authority, and that of another."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        self.ca = directory / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca))
        self.other_ca = directory / "other.pem"
        trustme.CA().cert_pem.write_to_path(str(self.other_ca))
        issued = authority.issue_cert("127.0.0.1")
        self.certificate, self.key = directory / "server.pem", directory / "server.key"
        issued.cert_chain_pems[0].write_to_path(str(self.certificate))
        issued.private_key_pem.write_to_path(str(self.key))


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return Tls(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def tls_port(tls: Tls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with tls_server(tmp_path_factory.mktemp("tls-redis"), tls.ca, tls.certificate, tls.key) as port:
        yield port


def test_tls_with_an_authority_of_our_own(tls: Tls, tls_port: int) -> None:
    assert run(f"rediss://127.0.0.1:{tls_port}?ca={tls.ca}", ("ECHO", "x")) == [b"x"]


def test_tls_is_verified(tls: Tls, tls_port: int) -> None:
    for url in (
        f"rediss://127.0.0.1:{tls_port}",  # the system's authorities have not signed it
        f"rediss://127.0.0.1:{tls_port}?ca={tls.other_ca}",
        f"rediss://localhost:{tls_port}?ca={tls.ca}",  # another name
    ):
        with pytest.raises(redis_errors.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            run(url, ("ECHO", "x"))


def test_an_own_authority_stands_in_the_place_of_the_systems(tls: Tls) -> None:
    client: Any = connect(f"rediss://127.0.0.1?ca={tls.ca}")
    context = client.connection_pool.make_connection().ssl_context.get()
    assert context.cert_store_stats()["x509_ca"] == 1
    assert client.connection_pool.make_connection().ssl_context.get() is context


# Sentinel


@pytest.mark.parametrize("password", ["", SECRET])
def test_sentinel_names_the_master(tmp_path: Path, password: str) -> None:
    options = ("--requirepass", password) if password else ()
    with server(tmp_path, *options) as port, sentinel(tmp_path, port, "main", password) as sentinel_port:
        user = f":{password}@" if password else ""
        dead = f"127.0.0.1:{sentinel_port},127.0.0.1:1"
        url = f"redis+sentinel://{user}{dead}/main/2"
        [_, value] = run(url, ("SET", "k", "v"), ("GET", "k"))
        assert value == b"v"
        assert run(f"redis://{user}127.0.0.1:{port}/2", ("GET", "k")) == [b"v"]
        with pytest.raises(redis_errors.ConnectionError, match="No master found"):
            run(f"redis+sentinel://{user}{dead}/other", ("GET", "k"))


def test_a_sentinel_that_is_silent_does_not_use_up_each_deadline(tmp_path: Path) -> None:
    async def dialogue(sentinel_port: int) -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        mute = await asyncio.start_server(silent, "127.0.0.1", 0)
        async with mute:
            mute_port = mute.sockets[0].getsockname()[1]
            url = f"redis+sentinel://127.0.0.1:{mute_port},127.0.0.1:{sentinel_port}/main"
            async with connected(url) as client:
                guard = Guard(client, Breaker(), 0.5)
                with pytest.raises(StoreUnavailable, match="timeout"):
                    await guard.call(client.ping)
                await guard.call(client.ping)

    with server(tmp_path) as port, sentinel(tmp_path, port, "main") as sentinel_port:
        asyncio.run(dialogue(sentinel_port))


# Cluster


@pytest.fixture(scope="module")
def cluster_ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[int]]:
    with cluster(tmp_path_factory.mktemp("cluster")) as ports:
        yield ports


def test_a_cluster(cluster_ports: list[int]) -> None:
    url = f"redis+cluster://127.0.0.1:{cluster_ports[0]},127.0.0.1:{cluster_ports[1]}"

    async def dialogue() -> None:
        async with connected(url) as client:
            for number in range(50):
                await client.set(f"key {number}", number)
            assert [await client.get(f"key {number}") for number in range(50)] == [b"%d" % n for n in range(50)]
            async with client.pipeline(transaction=True) as together:
                together.hset(keys.CONFIG_SECTIONS, "routes", b"x")
                together.incr(keys.CONFIG_VERSION)
                assert await together.execute() == [1, 1]
            assert (await check(client)).aof is Aof.TURNED_ON
            assert (await check(client)).aof is Aof.ON
        for port in cluster_ports:
            await settle(f"redis://127.0.0.1:{port}")

    asyncio.run(dialogue())


def test_announcements_cross_a_cluster(cluster_ports: list[int]) -> None:
    async def dialogue() -> None:
        async with (
            connected(f"redis+cluster://127.0.0.1:{cluster_ports[0]}") as sender,
            connected(f"redis+cluster://127.0.0.1:{cluster_ports[2]}") as receiver,
            receiver.pubsub(ignore_subscribe_messages=True) as channel,
        ):
            await channel.subscribe(keys.CONFIG_CHANNEL)
            await channel.get_message(timeout=5.0)

            async def heard() -> bool:
                await sender.publish(keys.CONFIG_CHANNEL, b"7")
                message = await channel.get_message(timeout=0.1)
                return message is not None and message["data"] == b"7"

            await until(heard)

    asyncio.run(dialogue())


def test_a_cluster_that_is_not_there_has_a_word() -> None:
    async def dialogue() -> None:
        async with connected("redis+cluster://127.0.0.1:1") as client:
            with pytest.raises(StoreUnavailable, match="connection"):
                await Guard(client, Breaker(), 5.0).call(lambda: client.get("k"))

    asyncio.run(dialogue())


# URLs that cannot be used


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "the scheme must be"),
        (f"{SECRET}@host:6379", "percent-encoded"),
        ("http://host", "the scheme must be"),
        ("redis://", "a host is missing"),
        ("redis://:6379", "a host is missing"),
        ("redis://host:port", "a port must be a number"),
        ("redis://host:0", "a port is 0"),
        ("redis://host:65536", "a port must be a number"),
        ("redis://[::1", "it is no URL"),
        ("redis://a:1,b:2", "several servers need"),
        ("redis://host/one", "the database must be a number"),
        ("redis://host/²", "the database must be a number"),
        ("redis://host/1/2", "the database must be a number"),
        ("redis://host/99999999999999999999", "the database must be a number"),
        ("redis://host?db=1", "its query may hold nothing only"),
        (f"redis://user:{SECRET}/x@host:6379", "percent-encoded"),
        (f"redis://user:{SECRET}?x@host:6379", "percent-encoded"),
        (f"redis://user:{SECRET}#x@host:6379", "percent-encoded"),
        (f"redis://user:{SECRET}:6379:@host:{SECRET}", "a port must be a number"),
        ("rediss://host?verify=no", "its query may hold ca only"),
        ("rediss://host?ca=/nowhere/ca.pem", "ca: /nowhere/ca.pem: No such file or directory"),
        ("unix://run/redis.sock", "absolute path"),
        ("unix:redis.sock", "absolute path"),
        (f"unix://user:{SECRET}@", "absolute path"),
        ("redis+sentinel://host:26379", "needs a service"),
        ("redis+sentinel://host:26379/main/x", "the database must be a number"),
        ("redis+cluster://host:6379/1", "has no databases"),
        ("redis+cluster://a:6379,,b:6379", "a host is missing"),
    ],
)
def test_a_url_that_cannot_be_used(url: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        connect(url)
    assert str(caught.value).startswith("redis: ")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)


URL_TEXT = st.text(st.sampled_from("redis:/+@[]?#,=%&dbcau0129é\n "), max_size=30)


@given(
    st.sampled_from(["redis", "rediss", "unix", "redis+sentinel", "redis+cluster", ""]),
    URL_TEXT,
    URL_TEXT,
)
def test_no_url_fails_but_with_a_config_error_or_tells_its_password(scheme: str, before: str, behind: str) -> None:
    refusal = ""
    try:
        connect(f"{scheme}://{before}{SECRET}{behind}")
    except ConfigError as error:
        refusal = str(error)
    assert SECRET not in refusal.partition("ca: ")[0]
    assert "\n" not in refusal
