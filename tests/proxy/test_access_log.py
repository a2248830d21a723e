"""The access log: lines of JSON, in batches, and never a failed request."""

import io
import json
import time
from types import SimpleNamespace
from typing import Any

import pytest

from proxy.access_log import BATCH_BYTES, AccessLog


class Output(io.RawIOBase):
    """Standard output that a test reads, or that fails."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.error: OSError | None = None

    @property
    def buffer(self) -> "Output":
        return self

    def write(self, data: Any) -> int:
        if self.error is not None:
            raise self.error
        self.written += bytes(data)
        return len(data)


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> Output:
    output = Output()
    # Not `sys.stdout` itself, which pytest puts back between a fixture and its test.
    monkeypatch.setattr("proxy.access_log.sys", SimpleNamespace(stdout=output))
    return output


def test_a_line_is_json_and_begins_with_the_time(output: Output) -> None:
    log = AccessLog()
    log.write({"target": "/\xff\n", "status": 200})
    assert output.written == b""
    log.flush()
    assert output.written.count(b"\n") == 1
    line = json.loads(output.written)
    assert list(line) == ["time", "target", "status"]
    assert abs(line["time"] - time.time()) < 60
    assert (line["target"], line["status"]) == ("/\xff\n", 200)


def test_what_has_been_written_is_not_written_again(output: Output) -> None:
    log = AccessLog()
    log.flush()
    log.write({"n": 1})
    log.flush()
    log.flush()
    log.write({"n": 2})
    log.flush()
    assert [json.loads(line)["n"] for line in output.written.splitlines()] == [1, 2]


def test_a_full_batch_does_not_wait_for_the_tick(output: Output) -> None:
    log = AccessLog()
    log.write({"n": "x" * BATCH_BYTES})
    assert len(output.written) > BATCH_BYTES


def test_a_reader_that_is_gone_costs_lines_and_no_request(output: Output) -> None:
    log = AccessLog()
    output.error = BrokenPipeError()
    log.write({"n": 1})
    log.flush()
    output.error = None
    log.write({"n": 2})
    log.flush()
    assert [json.loads(line)["n"] for line in output.written.splitlines()] == [2]
