"""The naive proxy is a fair rival: it relays the exact bytes both ways and keeps its upstream connection."""

import hashlib
import http.client
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.processes import Launch, free_port, running
from loadtests.servers import SERVERS, Job, Traffic
from loadtests.streaming_upstream import event
from loadtests.upstreams import REPOSITORY, Origin


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[http.client.HTTPConnection]:
    directory = tmp_path_factory.mktemp("naive")
    origin = Origin("http", free_port(), Path("unused"))
    command = [sys.executable, "-m", "loadtests.streaming_upstream", str(origin.port)]
    upstream = Launch(command, origin.port, directory=REPOSITORY)
    proxy = SERVERS["naive"].launch(Job(origin, Traffic.STREAMS, free_port(), directory))
    with running(upstream, directory / "upstream.log"), running(proxy, directory / "naive.log"):
        connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
        yield connection
        connection.close()


@pytest.mark.parametrize("size", [0, 283, 3_000_000])
def test_uploads_cross_unchanged(client: http.client.HTTPConnection, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"r" * (size % 256)
    client.request("POST", "/checksum", body)
    answer = client.getresponse()
    assert answer.status == 200
    assert json.loads(answer.read()) == {"bytes": size, "sha256": hashlib.sha256(body).hexdigest()}


def test_streams_cross_unchanged(client: http.client.HTTPConnection) -> None:
    client.request("GET", "/events?count=1000")
    assert client.getresponse().read() == b"".join(event(number) for number in range(1000))


def test_an_upstream_that_is_not_there_is_a_502(tmp_path: Path) -> None:
    job = Job(Origin("http", free_port(), Path("unused")), Traffic.REQUESTS, free_port(), tmp_path)
    launch = SERVERS["naive"].launch(job)
    with running(launch, tmp_path / "naive.log"):
        connection = http.client.HTTPConnection("127.0.0.1", launch.port, timeout=10)
        connection.request("GET", "/")
        assert connection.getresponse().status == 502
        connection.close()
