"""The stream `keys.EVENTS`: what workers report, taken by the control plane into SQL. How an entry is spelled.

An entry says of which kind it is, and has its data in msgpack. Nothing trims the stream, so nothing is lost that has
been added; a worker that finds it full keeps what it has counted, and goes on counting.
"""

KIND = b"kind"
DATA = b"data"
"""The two fields of an entry."""

STATISTICS = b"statistics"
"""The kind of a `proxy.statistics.StatisticsDelta`."""

EVENTS_MAX = 1_000
"""Entries from which on the stream counts as full: a worker adds one a second at most."""

EVENTS_BYTES_MAX = 256 * 1024 * 1024
"""The same in bytes, if all entries are as large as the one that is to be added: a few KB, or 4 MB of 10,000 routes."""


def is_full(entries: int, size: int) -> bool:
    """Tells whether a stream of so many entries takes no further one of this size, in bytes."""
    return entries >= EVENTS_MAX or entries * size >= EVENTS_BYTES_MAX


def event(kind: bytes, data: bytes) -> dict[bytes, bytes]:
    """Returns the fields of an entry."""
    return {KIND: kind, DATA: data}
