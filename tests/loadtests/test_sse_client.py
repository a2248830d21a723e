"""Events are counted exactly, however a stream is cut, and by the real client from the real upstream."""

import sys
from pathlib import Path

import pytest

from loadtests.processes import Launch, free_port, running
from loadtests.sse_client import StreamError, event_streams, events_ended
from loadtests.streaming_upstream import EVENTS_PER_S, chunk, event
from loadtests.upstreams import REPOSITORY

STREAM = b"".join(chunk(event(number)) for number in range(3))


@pytest.mark.parametrize("framed", [STREAM, b"".join(event(number) for number in range(3))])
def test_every_cut_gives_the_same_count(framed: bytes) -> None:
    for cut in range(1, len(framed)):
        head, tail = framed[:cut], framed[cut:]
        assert events_ended(0, head, len(head)) + events_ended(head[-1], tail, len(tail)) == 3


def test_byte_by_byte_gives_the_same_count() -> None:
    before = bytes((0,)) + STREAM
    assert sum(events_ended(before[i], STREAM[i : i + 1], 1) for i in range(len(STREAM))) == 3


def test_what_lies_behind_the_read_does_not_count() -> None:
    assert events_ended(0, STREAM, len(STREAM) - 3) == 2


def test_streams_run_at_their_pace(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "loadtests.streaming_upstream", str(port)]
    with (
        running(Launch(command, port, directory=REPOSITORY), tmp_path / "upstream.log"),
        event_streams(port, 10) as streams,
    ):
        tally = streams.receive(0.5)
    # A busy machine may deliver less, but never more than was due.
    assert 0 < tally.events <= 10 * (EVENTS_PER_S * tally.seconds + 3)
    assert tally.ended == 0
    assert all(delay_us > 0 for delay_us in tally.delays_us)


def test_an_answer_that_is_no_stream_is_refused(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(tmp_path), str(port)]
    with (
        running(Launch(command, port), tmp_path / "server.log"),
        pytest.raises(StreamError, match="404"),
        event_streams(port, 1),
    ):
        pass
