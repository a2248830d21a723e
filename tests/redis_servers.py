"""Real Redis servers for tests: the embedded one, the one at TEST_REDIS_URL, and single ones, Sentinels and clusters.

All but the second end with the test that started them.
"""

import asyncio
import contextlib
import functools
import os
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtests.processes import PORTS, Launch, free_port, is_free, running
from proxy.config import ConfigError
from proxy.shared_state.client import Client, connect
from proxy.shared_state.embedded import EmbeddedRedis, find_program
from proxy.shared_state.tasks import end

EMBEDDED = "embedded"
GIVEN = "TEST_REDIS_URL"
KINDS = (EMBEDDED, GIVEN)
"""What a suite that talks to Redis should run against."""

START_DEADLINE_S = 15.0
DEADLINE_S = 5.0
"""For a call in a test that is not about deadlines, on a machine that may be busy."""

LOOK_AGAIN_S = 0.01
CLUSTER_BUS_ABOVE = 10_000


@contextlib.contextmanager
def redis_at(kind: str, directory: Path) -> Iterator[str]:
    """The URL of one of `KINDS`. Skips the test where there is none."""
    if kind == EMBEDDED:
        program()
        with asyncio.Runner() as runner:
            server = EmbeddedRedis(directory)
            runner.run(server.start())
            try:
                yield server.url
            finally:
                runner.run(server.stop())
    elif url := os.environ.get(GIVEN):
        yield url
    else:
        pytest.skip(f"{GIVEN} is not set")


@contextlib.asynccontextmanager
async def connected(url: str, deadline_s: float = DEADLINE_S) -> AsyncIterator[Client]:
    client = connect(url, deadline_s=deadline_s)
    try:
        yield client
    finally:
        await client.aclose()


@contextlib.asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs what has no end, which is to live as long as the block."""
    task = asyncio.create_task(work)
    try:
        yield
        assert not task.done(), "it has ended"
    finally:
        await end(task)


def own_prefix() -> str:
    """What a test's keys begin with, so that tests can share a server."""
    return f"test:{uuid.uuid4().hex}:"


async def remove_keys(url: str, prefix: str) -> None:
    async with connected(url) as client:
        async for key in client.scan_iter(match=f"{prefix}*"):
            await client.delete(key)


def program() -> str:
    """A server's executable; skips the test where none is installed."""
    try:
        return find_program().path
    except ConfigError as error:
        pytest.skip(str(error))


@contextlib.contextmanager
def server(directory: Path, *options: str, port: int | None = None) -> Iterator[int]:
    """One server on a TCP port of 127.0.0.1, without persistence. `options` are as in redis.conf: `--name`, `value`."""
    port = port or free_port()
    folder = directory / str(port)
    folder.mkdir(parents=True)
    command = [program(), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", *options]
    with running(Launch(command, port), folder / "output.log"):
        yield port


@functools.cache
def speaks_tls(path: str) -> bool:
    """Whether an executable was built with TLS."""
    tried = subprocess.run([path, "--tls-port", "x"], capture_output=True, text=True, timeout=START_DEADLINE_S)
    return "argument" in tried.stdout + tried.stderr


@contextlib.contextmanager
def tls_server(directory: Path, ca: Path, certificate: Path, key: Path) -> Iterator[int]:
    """One server that speaks TLS only, and asks clients for no certificate. Yields its port."""
    if not speaks_tls(program()):
        pytest.skip(f"{program()} is built without TLS")
    port = free_port()
    files = [
        "--tls-ca-cert-file",
        ca,
        "--tls-cert-file",
        certificate,
        "--tls-key-file",
        key,
        "--tls-auth-clients",
        "no",
    ]
    command = [
        program(),
        "--port",
        "0",
        "--tls-port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--dir",
        directory,
        "--save",
        "",
    ]
    with running(Launch([str(part) for part in (*command, *files)], port), directory / "output.log"):
        yield port


@contextlib.contextmanager
def sentinel(directory: Path, master_port: int, service: str, password: str = "") -> Iterator[int]:
    """A Sentinel without a password that watches a master on 127.0.0.1. Yields its port."""
    port = free_port()
    config = directory / f"sentinel-{port}.conf"
    lines = [f"port {port}", "bind 127.0.0.1", f"sentinel monitor {service} 127.0.0.1 {master_port} 1"]
    if password:
        lines.append(f"sentinel auth-pass {service} {password}")
    config.write_text("\n".join([*lines, ""]))
    with running(Launch([program(), str(config), "--sentinel"], port), directory / f"sentinel-{port}.log"):
        yield port


@contextlib.contextmanager
def cluster(directory: Path, nodes: int = 3) -> Iterator[list[int]]:
    """A cluster of masters that share the slots evenly. Yields their ports, once each knows all of it."""
    ports = [free_cluster_port() for _ in range(nodes)]
    with contextlib.ExitStack() as stack:
        for port in ports:
            stack.enter_context(server(directory, "--cluster-enabled", "yes", port=port))
        asyncio.run(join(ports))
        yield ports


def free_cluster_port() -> int:
    """A free port, of which that of the cluster's own bus is free too, and no other program's by chance."""
    while True:
        port = free_port()
        bus = port + CLUSTER_BUS_ABOVE
        if bus in PORTS and is_free(bus):
            return port


async def join(ports: list[int]) -> None:
    async with contextlib.AsyncExitStack() as stack:
        nodes: list[Any] = [await stack.enter_async_context(connected(f"redis://127.0.0.1:{port}")) for port in ports]
        bounds = [16384 * number // len(nodes) for number in range(len(nodes) + 1)]
        for node, first, end in zip(nodes, bounds, bounds[1:], strict=False):
            await node.execute_command("CLUSTER", "ADDSLOTS", *range(first, end))
        for port in ports[1:]:
            await nodes[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port)
        for node in nodes:
            await until(functools.partial(whole, node, len(nodes)), START_DEADLINE_S)


async def whole(node: Any, nodes: int) -> bool:
    about: dict[str, str] = await node.cluster("INFO")
    return (about["cluster_state"], about["cluster_known_nodes"]) == ("ok", str(nodes))


async def until(look: Callable[[], Awaitable[object]], deadline_s: float = DEADLINE_S) -> None:
    """Returns once `look` gives something true; fails at the deadline."""
    end_s = time.monotonic() + deadline_s
    while not await look():
        assert time.monotonic() < end_s, f"not come true within {deadline_s} s"
        await asyncio.sleep(LOOK_AGAIN_S)


async def settle(url: str) -> None:
    """Waits for the first append-only file to be written: until then a server does not end when it is told to."""

    async def written() -> bool:
        about: dict[str, int] = await client.info("persistence")
        return not about["aof_rewrite_in_progress"] and not about["aof_rewrite_scheduled"]

    async with connected(url) as client:
        await until(written)
