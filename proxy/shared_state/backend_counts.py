"""How many requests each backend has from each worker, in the hash `keys.BACKENDS_RUNNING`.

A worker writes its own once a second while it has any. Who reads judges by his own clock which of them still change.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from proxy.shared_state.backend_names import SEPARATOR
from proxy.shared_state.linked_groups import Elsewhere, Name
from proxy.shared_state.published import UNREADABLE


class BackendCounts(msgspec.Struct, frozen=True):
    """One worker's running requests by backend (its upstream's name, a NUL, its id).

    `time_s` is Unix time by its machine's clock, and changes each time.
    """

    time_s: float
    counts: dict[str, int]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(BackendCounts)


def encode_counts(running: Mapping[Name, int], time_s: float) -> bytes:
    return _encoder.encode(BackendCounts(time_s, {SEPARATOR.join(name): count for name, count in running.items()}))


def decode_counts(data: bytes) -> BackendCounts:
    """Raises one of `published.UNREADABLE` where it is none. Fields that this version does not know are passed over."""
    return _decoder.decode(data)


def written_s(data: bytes) -> float | None:
    """Returns when counts were written, in seconds since 1970; None where they cannot be read."""
    try:
        return decode_counts(data).time_s
    except UNREADABLE:
        return None


def summed(entries: Iterable[bytes]) -> dict[Name, Elsewhere]:
    """Adds up what workers said. What this version cannot read is left out."""
    running: Counter[str] = Counter()
    workers: Counter[str] = Counter()
    for data in entries:
        try:
            counts = decode_counts(data).counts
        except UNREADABLE:
            continue
        running.update(counts)
        workers.update(counts.keys())
    names = ((key.partition(SEPARATOR), key) for key in running)
    return {
        (upstream, backend): Elsewhere(running[key], workers[key])
        for (upstream, separator, backend), key in names
        if separator
    }
