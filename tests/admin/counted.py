"""Deltas of workers, as tests make them."""

from typing import Any

import msgspec
from hypothesis import strategies as st

from proxy.rules.histogram import Histogram
from proxy.shared_state.worker_state import WorkerState
from proxy.statistics import Counts, RouteCounts, StatisticsDelta

NOW_S = 1_800_000_000.0
"""2027-01-15T08:00:00Z."""


def histogram(*seconds: float) -> Histogram:
    found = Histogram()
    if seconds:
        found.record(seconds)
    return found


def row(
    prefix: str = "/a", authority: str = "a.example", at_s: float = NOW_S, seconds: float = 0.25, **outcomes: int
) -> RouteCounts:
    """A route that had so many requests with each outcome (`s2xx=3`: three of 2xx), each of the same duration."""
    counted = {name.removeprefix("s"): Counts(number, 10 * number, 100 * number) for name, number in outcomes.items()}
    times = [seconds] * sum(outcomes.values())
    return RouteCounts(
        prefix, authority, counted, histogram(*times), histogram(*times), histogram(*times), histogram(*times), at_s
    )


def delta(*rows: RouteCounts, worker: str = "w", sequence: int = 1, at_s: float = NOW_S) -> StatisticsDelta:
    return StatisticsDelta(worker, 0.0, sequence, at_s, list(rows))


def packed(one: StatisticsDelta) -> bytes:
    return msgspec.msgpack.encode(one)


def worker(name: str = "w", **fields: Any) -> WorkerState:
    """What a worker says of itself."""
    state = WorkerState(name, "host", 7, "1.0", NOW_S - 60, NOW_S, 3, 2, 50 * 1024 * 1024, 0)
    return msgspec.structs.replace(state, **fields)


small = st.integers(0, 1000)
counts = st.builds(Counts, small, small, small, small, small)
histograms = st.builds(Histogram, st.dictionaries(st.integers(0x3F00, 0x4000), st.integers(1, 9), max_size=3), small)
rows = st.builds(
    RouteCounts,
    st.sampled_from(["", "/a", "/b"]),
    st.sampled_from(["", "up.example"]),
    st.dictionaries(st.sampled_from(["2xx", "5xx", "closed"]), counts, min_size=1, max_size=3),
    *[histograms] * 4,
    st.integers(0, 1000).map(float),
)
"""What a route had in a second."""
seconds = st.integers(0, 3 * 86_400).map(lambda second: NOW_S + second)
"""Three days, so that requests lie in several slots of each period."""
