"""HTTP/2 clients (C59): curl and nghttp, in clear text by prior knowledge and over TLS.

In clear text `http: both` is needed; over TLS the client chooses by ALPN (test_tls.py).
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.fake_behaviours import pattern_slice
from loadtests.fake_upstream import UpstreamInThread
from tests.end_to_end.asking import answer, raw, response_bytes, sse
from tests.end_to_end.certificates import Certificates
from tests.end_to_end.harness import Places, RelayFarm, Seen, program
from tests.end_to_end.relay_process import Relay
from tests.end_to_end.waiting import eventually

CONNECTION_FIELDS = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}


@pytest.fixture(name="both", scope="module")
def fixture_both(farm: RelayFarm, upstream: UpstreamInThread, places: Places) -> Iterator[Relay]:
    """A relay that takes HTTP/1.1 and HTTP/2 on one port in clear text."""
    routes = {
        "/up": upstream.url,
        "/base": f"{upstream.url}/base",
        "/preserve": {"target": upstream.url, "preserve_host": True},
        "/refused": f"http://{places.refused}",
    }
    with farm.running({"server": {"http": "both"}, "routes": routes}) as relay:
        yield relay


def curl(relay: Relay, path: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    """curl over HTTP/2 without TLS; the head is in its output."""
    command = [program("curl"), "-sS", "-i", "--max-time", "20", "--http2-prior-knowledge", *options, relay.url + path]
    return subprocess.run(command, capture_output=True, timeout=30, check=False)


def head_of(finished: subprocess.CompletedProcess[bytes]) -> list[tuple[bytes, bytes]]:
    head = finished.stdout.partition(b"\r\n\r\n")[0]
    assert head.startswith(b"HTTP/2 "), head
    pairs = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
    return [(name, value.strip()) for name, _, value in pairs]


def body_of(finished: subprocess.CompletedProcess[bytes]) -> bytes:
    return finished.stdout.partition(b"\r\n\r\n")[2]


def test_c59_a_request_and_its_answer_cross(both: Relay, seen: Seen, upstream: UpstreamInThread) -> None:
    finished = curl(both, "/up/echo/a%2Fb?c=d", "-H", "X-Custom: 1", "-d", "hello")
    assert (finished.returncode, finished.stdout[:10]) == (0, b"HTTP/2 200")
    recorded = seen.one()
    assert (recorded.method, recorded.target, bytes(recorded.body)) == ("POST", b"/echo/a%2Fb?c=d", b"hello")
    assert recorded.values("content-length") == [b"5"]
    assert recorded.values("x-custom") == [b"1"]
    assert recorded.values("host") == [upstream.authority.encode()]
    assert not [name for name in recorded.names() if name.startswith(b":")]


def test_c59_no_connection_fields_and_lower_case_names_only(both: Relay) -> None:
    fields = (b"Connection: keep-alive", b"Keep-Alive: timeout=5", b"X-Upper-Case: Yes", b"Transfer-Encoding: chunked")
    finished = curl(both, "/up" + raw(response_bytes(b"HTTP/1.1 200 OK", *fields, body=b"2\r\nhi\r\n0\r\n\r\n")))
    names = [name for name, _ in head_of(finished)]
    assert not set(names) & CONNECTION_FIELDS
    assert all(name == name.lower() for name in names)
    assert (b"x-upper-case", b"Yes") in head_of(finished)
    assert body_of(finished) == b"hi"


def test_c59_preserve_host_is_the_authority(both: Relay, seen: Seen) -> None:
    assert curl(both, "/preserve/echo").returncode == 0
    assert seen.one().values("host") == [f"127.0.0.1:{both.port}".encode()]


def test_c59_split_cookies_are_joined(both: Relay, seen: Seen) -> None:
    """HTTP/2 may split Cookie (RFC 9113 §8.2.3); HTTP/1.1 must not see it so."""
    command = [program("nghttp"), "-H", "cookie: a=1", "-H", "cookie: b=2", f"{both.url}/up/echo"]
    subprocess.run(command, capture_output=True, timeout=20, check=True)
    assert seen.one().values("cookie") == [b"a=1; b=2"]


def test_c59_an_upload_without_a_length_is_chunked(both: Relay, seen: Seen) -> None:
    command = [program("curl"), "-sS", "--http2-prior-knowledge", "-T", "-", f"{both.url}/up/echo"]
    body = pattern_slice(0, 300_000)
    subprocess.run(command, input=body, capture_output=True, timeout=20, check=True)
    recorded = seen.one()
    assert (recorded.method, recorded.framing, recorded.body_bytes) == ("PUT", "chunked", 300_000)
    assert bytes(recorded.body) == body


def test_c59_a_get_over_http_2_has_no_body(both: Relay, seen: Seen) -> None:
    assert curl(both, "/up/echo").returncode == 0
    assert (seen.one().framing, seen.one().complete) == ("none", True)


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_c59_large_bodies_come_whole(both: Relay, framing: str, tmp_path: Path) -> None:
    file = tmp_path / "body"
    command = [program("curl"), "-sS", "--http2-prior-knowledge", "-o", str(file)]
    path = "/up" + answer(framing=framing, body_bytes=5_000_000)
    subprocess.run([*command, both.url + path], capture_output=True, timeout=30, check=True)
    assert file.read_bytes() == pattern_slice(0, 5_000_000)


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("end", ["fin", "rst"])
def test_c59_a_truncation_resets_the_stream(both: Relay, framing: str, end: str) -> None:
    finished = curl(both, "/up" + answer(framing=framing, body_bytes=300_000, cut_after_bytes=200_000, end=end))
    assert finished.returncode != 0, "curl took a part for the whole"
    assert finished.returncode in {16, 18, 56, 92}, finished.stderr


def test_c59_head_204_and_304_have_no_body(both: Relay) -> None:
    finished = curl(both, "/up" + answer(body_bytes=1234), "-I")
    assert finished.returncode == 0
    assert (b"content-length", b"1234") in head_of(finished)
    for status in (204, 304):
        finished = curl(both, "/up" + answer(status=status, framing="none"))
        assert (finished.returncode, body_of(finished)) == (0, b"")


def test_c59_errors_of_ours_are_the_same(both: Relay) -> None:
    finished = curl(both, "/nowhere")
    assert finished.stdout.startswith(b"HTTP/2 404")
    assert b'"no_route"' in body_of(finished)
    assert b"x-request-id" in [name for name, _ in head_of(finished)]
    for target in ("/base/..%2f..", "/refused/x"):
        assert re.match(rb"HTTP/2 (400|502)", curl(both, target, "--path-as-is").stdout)


def test_c59_events_come_one_by_one(both: Relay) -> None:
    """The first is there long before the last is sent."""
    command = [program("curl"), "-sSN", "--http2-prior-knowledge", f"{both.url}/up{sse(events=3, interval_ms=500)}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"id: 0\n"
        assert process.poll() is None
        assert process.stdout.read().count(b"data: ") == 3


def test_c59_a_client_that_leaves_cancels_its_request(both: Relay, seen: Seen) -> None:
    command = [program("curl"), "-sSN", "--http2-prior-knowledge", f"{both.url}/up/sse?events=1000&interval_ms=20"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    eventually(lambda: seen.one().peer_closed_s, 1.0, what="the close of the upstream's connection")


def test_c59_one_stream_that_is_reset_spares_the_others(both: Relay, seen: Seen) -> None:
    """Many streams on one connection: a truncated one among whole ones, each with its own end."""
    whole = [f"{both.url}/up{answer(body_bytes=100_000, header=f'x-n:{n}')}" for n in range(4)]
    cut = f"{both.url}/up{answer(body_bytes=100_000, cut_after_bytes=50_000, end='fin')}"
    command = [program("nghttp"), "-v", "-n", *whole, cut]
    finished = subprocess.run(command, capture_output=True, timeout=20, text=True, check=False)
    assert finished.stdout.count(":status: 200") >= 4
    assert finished.stdout.count("recv RST_STREAM") == 1
    assert len(seen.all()) == 5


def test_c59_streams_do_not_wait_for_each_other(both: Relay) -> None:
    """A stream whose answer is late does not hold up the one asked for after it."""
    slow, quick = f"{both.url}/up{answer(body='s', head_delay_ms=1500)}", f"{both.url}/up{answer(body='q')}"
    finished = subprocess.run(
        [program("nghttp"), "-v", "-n", slow, quick], capture_output=True, timeout=20, text=True, check=True
    )
    ended = re.findall(r"recv DATA frame .*stream_id=(\d+)", finished.stdout)
    assert ended[0] > ended[-1], "the quick answer came last"


@pytest.mark.parametrize(
    "field",
    [
        "transfer-encoding: chunked",
        "connection: x-drop",
        "content-length: 2",
        "te: gzip",
        "upgrade: websocket",
        "host: a",
    ],
)
def test_c59_what_http_2_forbids_is_refused_or_dropped(both: Relay, seen: Seen, tmp_path: Path, field: str) -> None:
    """Nothing of it reaches the upstream in a way that HTTP/1.1 would act on."""
    body = tmp_path / "body"
    body.write_bytes(b"0\r\n\r\nGET /up/smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
    command = [program("nghttp"), "-H", field, "-d", str(body), f"{both.url}/up/echo"]
    subprocess.run(command, capture_output=True, timeout=20, check=False)
    seen.assert_nothing_smuggled(b"/echo")
    for recorded in seen.all():
        assert not set(recorded.names()) & {b"connection", b"upgrade", b"x-drop", b"te"}
        assert recorded.values("host") != [b"a"]
        assert not recorded.complete or bytes(recorded.body) == body.read_bytes()
    assert both.get("/healthz").status == 200


@pytest.fixture(name="secure_h2", scope="module")
def fixture_secure_h2(farm: RelayFarm, certificates: Certificates, upstream: UpstreamInThread) -> Iterator[Relay]:
    tls = {"certificate": str(certificates.good.certificate), "key": str(certificates.good.key)}
    configuration = {"server": {"http": "2"}, "tls": tls, "routes": {"/up": upstream.url}}
    with farm.running(configuration, certificates.client_tls("h2")) as relay:
        yield relay


def test_c59_http_2_over_tls(secure_h2: Relay, certificates: Certificates, seen: Seen) -> None:
    command = [program("curl"), "-sS", "-i", "--http2", "--cacert", str(certificates.ca), "-d", "hello"]
    finished = subprocess.run([*command, f"{secure_h2.url}/up/echo"], capture_output=True, timeout=20, check=False)
    assert (finished.returncode, finished.stdout[:10]) == (0, b"HTTP/2 200"), finished.stderr
    assert bytes(seen.one().body) == b"hello"


@pytest.mark.parametrize("http", ["1", "auto"])
def test_http_1_only_refuses_http_2(farm: RelayFarm, upstream: UpstreamInThread, http: str) -> None:
    with farm.running({"server": {"http": http}, "routes": {"/up": upstream.url}}) as relay:
        assert curl(relay, "/up/echo").returncode != 0
        assert relay.get("/up/echo").status == 200
