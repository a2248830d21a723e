"""What a worker says of itself crosses the wire, also between versions."""

import msgspec
import pytest

from proxy.shared_state.worker_state import WorkerState, decode_state, encode_state

STATE = WorkerState("0123456789abcdef", "host", 7, "0.1.0", 1.5, 2.5, 3, 4, 5, 6)


def test_it_comes_back_as_it_was() -> None:
    assert decode_state(encode_state(STATE)) == STATE


def test_what_an_older_version_leaves_out_is_empty() -> None:
    said = msgspec.structs.asdict(STATE)
    del said["tls"]
    assert decode_state(msgspec.msgpack.encode(said)) == STATE


def test_what_a_newer_version_adds_is_passed_over() -> None:
    data = msgspec.msgpack.encode(msgspec.structs.asdict(STATE) | {"more": 1})
    assert decode_state(data) == STATE


@pytest.mark.parametrize("data", [b"", b"\x80", msgspec.msgpack.encode({"name": 1})])
def test_what_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_state(data)
