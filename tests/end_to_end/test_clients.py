"""curl, as the README's reader will use it: its exit status says whether the transfer was whole."""

import json
import subprocess
from pathlib import Path

import pytest

from loadtests.fake_behaviours import pattern_slice
from tests.end_to_end.asking import answer, sse
from tests.end_to_end.harness import Seen, program
from tests.end_to_end.relay_process import Relay

PARTIAL_FILE = 18
RECEIVE_ERROR = 56


def curl(relay: Relay, path: str, *options: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [program("curl"), "-sS", "--max-time", "20", *options, relay.url + path]
    return subprocess.run(command, input=given, capture_output=True, timeout=30, check=False)


def test_get(relay: Relay, seen: Seen) -> None:
    finished = curl(relay, "/up/echo", "-H", "X-Mine: 1")
    assert finished.returncode == 0
    assert json.loads(finished.stdout)["target"] == "/echo"
    assert seen.one().values("user-agent")[0].startswith(b"curl/")


def test_post_json(relay: Relay, seen: Seen) -> None:
    finished = curl(relay, "/up/echo", "-H", "Content-Type: application/json", "-d", '{"model":"m"}')
    assert finished.returncode == 0
    assert bytes(seen.one().body) == b'{"model":"m"}'


@pytest.mark.parametrize("size", [0, 1000, 2_000_000])
def test_upload_of_a_file_with_expect(relay: Relay, seen: Seen, tmp_path: Path, size: int) -> None:
    """From 1 MB on curl asks `Expect: 100-continue`; it would wait a second for an answer that does not come."""
    file = tmp_path / "upload"
    file.write_bytes(pattern_slice(0, size))
    finished = curl(relay, "/up/echo", "-T", str(file), "-w", "\n%{time_total}")
    assert finished.returncode == 0
    assert json.loads(finished.stdout.splitlines()[0])["body_bytes"] == size
    assert float(finished.stdout.splitlines()[-1]) < 0.9
    assert seen.one().values("content-length") == [b"%d" % size]


def test_upload_from_a_pipe_is_chunked(relay: Relay, seen: Seen) -> None:
    finished = curl(relay, "/up/echo", "-T", "-", given=pattern_slice(0, 300_000))
    assert finished.returncode == 0
    assert (seen.one().framing, seen.one().body_bytes) == ("chunked", 300_000)


def test_form_upload(relay: Relay, seen: Seen, tmp_path: Path) -> None:
    file = tmp_path / "audio.mp3"
    file.write_bytes(pattern_slice(0, 50_000))
    finished = curl(relay, "/up/echo", "-F", f"file=@{file}", "-F", "model=whisper-1")
    assert finished.returncode == 0
    assert pattern_slice(0, 50_000) in bytes(seen.one().body)
    assert seen.one().values("content-type")[0].startswith(b"multipart/form-data; boundary=")


def test_events_are_streamed(relay: Relay) -> None:
    command = [program("curl"), "-sSN", f"{relay.url}/up{sse(events=3, interval_ms=500)}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"id: 0\n"
        assert process.poll() is None, "the stream came all at once"
        assert process.stdout.read().count(b"data: ") == 3


def test_head(relay: Relay) -> None:
    finished = curl(relay, "/up" + answer(body_bytes=1234), "-I")
    assert finished.returncode == 0
    assert b"content-length: 1234\r\n" in finished.stdout


def test_ranges_and_conditions_are_the_upstreams_affair(relay: Relay, seen: Seen) -> None:
    path = "/up" + answer(status=206, body="bcd", header="content-range:bytes 1-3/5")
    assert curl(relay, path, "-r", "1-3").stdout == b"bcd"
    assert seen.one().values("range") == [b"bytes=1-3"]


def test_http_1_0(relay: Relay) -> None:
    finished = curl(relay, "/up" + answer(framing="chunked", body_bytes=100_000), "--http1.0")
    assert (finished.returncode, finished.stdout) == (0, pattern_slice(0, 100_000))


def test_redirects_are_the_clients_affair(relay: Relay, seen: Seen) -> None:
    path = "/up" + answer(status=307, header=f"location:{relay.url}/up/echo")
    assert json.loads(curl(relay, path, "-L", "-d", "again").stdout)["body_bytes"] == 5
    assert [recorded.method for recorded in seen.all()] == ["POST", "POST"]


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_c44_c45_a_cut_answer_is_a_failed_transfer(relay: Relay, framing: str) -> None:
    finished = curl(relay, "/up" + answer(framing=framing, body_bytes=300_000, cut_after_bytes=200_000, end="fin"))
    assert finished.returncode in {PARTIAL_FILE, RECEIVE_ERROR}


def test_a_large_download_is_whole(relay: Relay, tmp_path: Path) -> None:
    file = tmp_path / "download"
    assert curl(relay, "/up" + answer(body_bytes=20_000_000), "-o", str(file)).returncode == 0
    assert file.read_bytes() == pattern_slice(0, 20_000_000)


def test_compressed_answers_are_the_upstreams(relay: Relay, seen: Seen) -> None:
    assert curl(relay, "/up/echo", "--compressed").returncode == 0
    assert b"gzip" in seen.one().values("accept-encoding")[0]


def test_an_unknown_prefix_fails_with_f(relay: Relay) -> None:
    assert curl(relay, "/nowhere", "-f").returncode == 22
