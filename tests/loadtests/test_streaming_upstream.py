"""The upstream of streams and uploads answers exactly what the comparison checks for."""

import hashlib
import http.client
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.processes import Launch, free_port, running
from loadtests.streaming_upstream import event
from loadtests.upstreams import REPOSITORY


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[http.client.HTTPConnection]:
    port = free_port()
    log: Path = tmp_path_factory.mktemp("upstream") / "log"
    command = [sys.executable, "-m", "loadtests.streaming_upstream", str(port)]
    with running(Launch(command, port, directory=REPOSITORY), log):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        yield client
        client.close()


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection.request(method, path, body)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_a_counted_stream_is_always_the_same(connection: http.client.HTTPConnection) -> None:
    assert ask(connection, "GET", "/events?count=20") == (200, b"".join(event(number) for number in range(20)))


@pytest.mark.parametrize("size", [0, 1, 1_000_000])
def test_an_upload_is_counted_and_hashed(connection: http.client.HTTPConnection, size: int) -> None:
    body = b"r" * size
    status, answer = ask(connection, "POST", "/checksum", body)
    assert status == 200
    assert json.loads(answer) == {"bytes": size, "sha256": hashlib.sha256(body).hexdigest()}
    assert ask(connection, "POST", "/upload", body) == (200, json.dumps({"bytes": size}).encode())


def test_anything_else_is_refused(connection: http.client.HTTPConnection) -> None:
    assert ask(connection, "GET", "/nothing")[0] == 400
