"""Statistics: what a worker has relayed, counted exactly, and handed on as what has changed.

The law of this file: whatever is counted is in exactly one delta. A tally counts for one route until `delta` takes its
counts away, and goes on from nothing; nothing is ever subtracted, compared or kept twice. Rows of deltas add up in any
order (`merged`), of one worker or of many. Nothing here reads a clock, waits or locks: one event loop, plain integers.
"""

from collections.abc import Iterable
from weakref import WeakValueDictionary

import msgspec

from proxy.rules.histogram import Histogram

UNMATCHED = ""
"""Stands for the prefix of requests that no route was found for. No prefix is empty, and no client chooses it."""

CLIENT_LEFT = "client_left"
"""The outcome of a request whose client left before its end."""

STATUS_CLASSES = tuple(f"{status // 100}xx" for status in range(1000))
"""The outcome of a request that was relayed or answered to its end, by its status."""

SETTLE_MIN = 256
"""How many latencies may wait to be counted between two deltas: a few KB, and work that is soon done."""


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
    the upstream's response head, where one came. `last_s` (Unix time) is that of the latest delta with a request.
    """

    prefix: str
    authority: str
    outcomes: dict[str, Counts] = {}
    durations: Histogram = msgspec.field(default_factory=Histogram)
    heads: Histogram = msgspec.field(default_factory=Histogram)
    last_s: float = 0.0

    def add(self, other: "RouteCounts") -> None:
        """Adds what was counted for the same route at another time or by another worker."""
        for outcome, counts in other.outcomes.items():
            self.outcomes.setdefault(outcome, Counts()).add(counts)
        self.durations.add(other.durations)
        self.heads.add(other.heads)
        self.last_s = max(self.last_s, other.last_s)


class StatisticsDelta(msgspec.Struct, array_like=True, frozen=True):
    """What a worker has counted since its last delta. It may be encoded by msgspec as it stands.

    `worker` is a random name, new at each start, and begins the ids that the worker gives to requests. `sequence`
    counts its deltas from 1. So a consumer that remembers each worker's last sequence takes every delta once; whoever
    sends one must send it unchanged until it has arrived, and only then take the next. `in_flight` is how many requests
    ran at `time_s`; both times are Unix time.
    """

    worker: str
    started_s: float
    sequence: int
    time_s: float
    in_flight: int
    routes: list[RouteCounts]


class Tally:
    """Counts the requests of one route since the last delta. `phases/account.py` does the counting."""

    __slots__ = ("__weakref__", "_touched", "authority", "counts", "durations_s", "heads_s", "prefix")

    def __init__(self, prefix: str, authority: str, touched: list["Tally"]) -> None:
        self.prefix = prefix
        self.authority = authority
        self.counts: RouteCounts | None = None
        """None while there has been no request since the last delta."""
        self.durations_s: list[float] = []
        self.heads_s: list[float] = []
        """Latencies in seconds that wait to be counted: many at a time are counted for less."""
        self._touched = touched

    def begin(self) -> RouteCounts:
        """Makes the counts that the next delta takes."""
        counts = self.counts = RouteCounts(self.prefix, self.authority)
        self._touched.append(self)
        return counts

    def settle(self, counts: RouteCounts) -> None:
        """Counts the latencies that wait."""
        for histogram, waiting in ((counts.durations, self.durations_s), (counts.heads, self.heads_s)):
            if waiting:
                histogram.record(waiting)
                waiting.clear()


class Statistics:
    """The tallies of one worker. They outlive configurations: a route that stays goes on with its own."""

    def __init__(self, worker: str, started_s: float) -> None:
        self._worker = worker
        self._started_s = started_s
        self._sequence = 0
        self._touched: list[Tally] = []
        # Held by the snapshots and requests that use them, and by `_touched` until what they counted is taken.
        self._tallies: WeakValueDictionary[tuple[str, str], Tally] = WeakValueDictionary()

    def tally(self, prefix: str, authority: str) -> Tally:
        """Returns the tally of a route; the same one as long as anybody has it."""
        key = (prefix, authority)
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = Tally(prefix, authority, self._touched)
        return tally

    def settle(self) -> None:
        """Counts the latencies of busy routes, so that neither they nor the work of the next delta pile up."""
        for tally in self._touched:
            if tally.counts is not None and len(tally.durations_s) + len(tally.heads_s) >= SETTLE_MIN:
                tally.settle(tally.counts)

    def delta(self, now_s: float, in_flight: int) -> StatisticsDelta:
        """Takes all that has been counted since the last time. Costs nothing for routes without requests."""
        routes = []
        for tally in self._touched:
            counts = tally.counts
            if counts is not None:
                tally.settle(counts)
                counts.last_s = now_s
                routes.append(counts)
                tally.counts = None
        self._touched.clear()
        self._sequence += 1
        return StatisticsDelta(self._worker, self._started_s, self._sequence, now_s, in_flight, routes)


def merged(rows: Iterable[RouteCounts]) -> list[RouteCounts]:
    """Returns one row a route, sorted, with all that these rows have counted; they stay as they are."""
    totals: dict[tuple[str, str], RouteCounts] = {}
    for row in rows:
        totals.setdefault((row.prefix, row.authority), RouteCounts(row.prefix, row.authority)).add(row)
    return [totals[key] for key in sorted(totals)]
