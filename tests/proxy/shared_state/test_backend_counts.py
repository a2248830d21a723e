"""Counts of workers add up, whatever else lies there."""

import msgspec

from proxy.shared_state.backend_counts import BackendCounts, decode_counts, encode_counts, summed, written_s
from proxy.shared_state.linked_groups import Elsewhere

A, B = ("up", "a"), ("up", "b")


def test_counts_are_told_by_upstream_and_backend() -> None:
    data = encode_counts({A: 2, ("other", "a"): 1}, 5.5)
    assert decode_counts(data) == BackendCounts(5.5, {"up\0a": 2, "other\0a": 1})
    assert summed([data]) == {A: Elsewhere(2, 1), ("other", "a"): Elsewhere(1, 1)}
    assert written_s(data) == 5.5


def test_counts_of_all_workers_add_up() -> None:
    assert summed([encode_counts({A: 2}, 1.0), encode_counts({A: 3, B: 1}, 2.0)]) == {
        A: Elsewhere(5, 2),
        B: Elsewhere(1, 1),
    }
    assert summed([]) == {}


def test_what_this_version_cannot_read_is_left_out() -> None:
    strange = msgspec.msgpack.encode({"time_s": 1.0, "counts": {"without": 1}})
    newer = msgspec.msgpack.encode({"time_s": 1.0, "counts": {"up\0a": 1}, "new": 1})
    assert summed([b"", b"garbage", strange, newer]) == {A: Elsewhere(1, 1)}
    assert written_s(b"garbage") is None
