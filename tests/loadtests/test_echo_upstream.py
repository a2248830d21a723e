"""The upstream says what it was asked, however the request is cut."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from functools import partial

import pytest

from loadtests.echo_upstream import echo
from loadtests.processes import Launch, Running, free_port, running
from loadtests.upstreams import REPOSITORY
from tests.end_to_end.waiting import eventually

REQUEST = b"POST /v1/x?a=b HTTP/1.1\r\nhost: up\r\nContent-Length: 5\r\n\r\nhello"
BODY = echo(b"alpha", b"POST", b"/v1/x?a=b", b"hello")


@pytest.fixture(name="upstream", scope="module")
def fixture_upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    port = free_port()
    command = [sys.executable, "-m", "loadtests.echo_upstream", str(port), "alpha"]
    with running(Launch(command, port, directory=REPOSITORY), tmp_path_factory.mktemp("upstream") / "log") as program:
        yield program


@pytest.fixture(name="port")
def fixture_port(upstream: Running) -> int:
    return upstream.port


def until(client: socket.socket, end: bytes) -> bytes:
    """What comes up to this; fails at the client's timeout."""
    received = b""
    while not received.endswith(end):
        received += client.recv(1)
    return received


@pytest.mark.parametrize("cut", [0, 10, REQUEST.index(b"\r\n\r\n") + 4, len(REQUEST) - 1])
def test_it_echoes_method_target_and_body(port: int, cut: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):
            client.sendall(REQUEST[:cut])
            client.sendall(REQUEST[cut:])
            received = until(client, BODY)
            assert received.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"\r\ncontent-length: %d\r\n" % len(BODY) in received


def test_without_a_body(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"GET /y HTTP/1.1\r\nhost: up\r\n\r\n")
        until(client, b"alpha GET /y\n")


def test_it_is_unwell_between_two_signals(upstream: Running) -> None:
    def is_now(status: bytes) -> bool:
        with socket.create_connection(("127.0.0.1", upstream.port), timeout=10) as client:
            client.sendall(b"GET /y HTTP/1.1\r\nhost: up\r\n\r\n")
            return until(client, b"alpha GET /y\n").split()[1] == status

    for number, expected in ((signal.SIGUSR1, b"503"), (signal.SIGUSR2, b"200")):
        os.kill(upstream.session, number)
        eventually(partial(is_now, expected))
