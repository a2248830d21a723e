"""Statistics: what is counted of requests, and how that adds up. Pure: no file, no clock, no state of its own.

The law of this file: rows add up in any order (`merged`), of one worker or of many, of one delta or of many. So whoever
has each delta once has counted each request once.
"""

from collections.abc import Callable, Iterable

import msgspec

from proxy.rules.histogram import FIRST_16_BITS_AT, Histogram
from proxy.rules.records import (
    DURATION_AT,
    HEAD_AT,
    OVERHEAD_AT,
    RECORD_BYTES,
    REQUEST_BYTES_AT,
    RESPONSE_BYTES_AT,
    UPSTREAM_AT,
    by_key,
    column,
)

UNMATCHED = ""
"""Stands for the prefix of requests that no route was found for. No prefix is empty, and no client chooses it."""

CLIENT_LEFT = "client_left"
"""The outcome of a request whose client left before its end."""

STATUS_CLASSES = tuple(f"{status // 100}xx" for status in range(1000))
"""The outcome of a request that was relayed or answered to its end, by its status."""


class Counts(msgspec.Struct, array_like=True, gc=False):
    """What was counted of the requests of one route that had one outcome.

    Bytes are those of bodies (of WebSockets, of messages) that were relayed. `retries` are attempts beyond each
    request's first; `truncated` are responses that had begun and did not come to their end.
    """

    requests: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    retries: int = 0
    truncated: int = 0

    def add(self, other: "Counts") -> None:
        """Adds what others have counted."""
        self.requests += other.requests
        self.request_bytes += other.request_bytes
        self.response_bytes += other.response_bytes
        self.retries += other.retries
        self.truncated += other.truncated


class RouteCounts(msgspec.Struct, array_like=True):
    """What was counted for one route: a prefix, and the authority of its target.

    An outcome is a class of statuses (`2xx`), the word of the cause for which the relay failed a request, or
    `client_left`. `durations` last from a request's arrival to its end, but for WebSockets that were opened; `heads` to
    the upstream's response head, where one came; `overheads` until it was first written to an upstream, where it was;
    `upstreams` from then to its end, but for WebSockets that were opened. `last_s` (Unix time) is that of the latest
    delta with a request.
    """

    prefix: str
    authority: str
    outcomes: dict[str, Counts] = {}
    durations: Histogram = msgspec.field(default_factory=Histogram)
    heads: Histogram = msgspec.field(default_factory=Histogram)
    overheads: Histogram = msgspec.field(default_factory=Histogram)
    upstreams: Histogram = msgspec.field(default_factory=Histogram)
    last_s: float = 0.0

    def add(self, other: "RouteCounts") -> None:
        """Adds what was counted for the same route at another time or by another worker."""
        for outcome, counts in other.outcomes.items():
            self.outcomes.setdefault(outcome, Counts()).add(counts)
        self.durations.add(other.durations)
        self.heads.add(other.heads)
        self.overheads.add(other.overheads)
        self.upstreams.add(other.upstreams)
        self.last_s = max(self.last_s, other.last_s)


Rows = dict[tuple[str, str], RouteCounts]
"""Rows by prefix and authority."""


class StatisticsDelta(msgspec.Struct, array_like=True, frozen=True):
    """What a worker has counted since its last delta. It may be encoded by msgspec as it stands.

    `worker` is a random name, new at each start, and begins the ids that the worker gives to requests. `sequence`
    counts its deltas from 1. So a consumer that remembers each worker's last sequence takes every delta once; whoever
    sends one must send it unchanged until it has arrived, and only then take the next. Times are Unix time.
    """

    worker: str
    started_s: float
    sequence: int
    time_s: float
    routes: list[RouteCounts]


class Key(msgspec.Struct, array_like=True, frozen=True):
    """What a record leaves out, because many have it in common.

    `truncated`: the response had begun and did not come to its end. `opened`: it was a WebSocket, whose duration is its
    client's choice and so no latency.
    """

    prefix: str
    authority: str
    outcome: str
    retries: int
    truncated: bool
    opened: bool


def fold(records: bytes, key_at: Callable[[int], Key], rows: Rows) -> None:
    """Adds what these records count to `rows`. `key_at` returns the key that lies at a place."""
    for place, group in by_key(records).items():
        key = key_at(place)
        route = rows.get((key.prefix, key.authority))
        if route is None:
            route = rows[key.prefix, key.authority] = RouteCounts(key.prefix, key.authority)
        counts = route.outcomes.setdefault(key.outcome, Counts())
        memory = memoryview(group)
        requests = len(group) // RECORD_BYTES
        counts.requests += requests
        counts.request_bytes += sum(column(memory, REQUEST_BYTES_AT, "Q"))
        counts.response_bytes += sum(column(memory, RESPONSE_BYTES_AT, "Q"))
        counts.retries += requests * key.retries
        counts.truncated += requests * key.truncated
        times = [(route.heads, HEAD_AT), (route.overheads, OVERHEAD_AT)]
        if not key.opened:
            times += [(route.durations, DURATION_AT), (route.upstreams, UPSTREAM_AT)]
        for histogram, at in times:
            histogram.record_column(column(memory, at, "d"), column(memory, at + FIRST_16_BITS_AT, "H"))


def merged(rows: Iterable[RouteCounts]) -> list[RouteCounts]:
    """Returns one row a route, sorted, with all that these rows have counted; they stay as they are."""
    totals: Rows = {}
    for row in rows:
        totals.setdefault((row.prefix, row.authority), RouteCounts(row.prefix, row.authority)).add(row)
    return [totals[key] for key in sorted(totals)]
