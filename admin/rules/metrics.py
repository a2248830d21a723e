"""What /metrics says, for all workers together. Pure.

Counters come from all-time rows, so they never go back, over restarts of workers either. Labels are bounded: the oldest
SERIES_MAX series keep their names, all others are one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from admin.rules.exposition import Family, Sample, histogram, labels
from admin.rules.figures import Counters, Dropped
from proxy.rules.histogram import Histogram
from proxy.shared_state.worker_state import WorkerState
from proxy.statistics import Counts, RouteCounts

SERIES_MAX = 500
UNMATCHED = "unmatched"
"""Names what no route was found for. No prefix is spelled like it, nor like OTHER: prefixes begin with a slash."""
OTHER = "other"
NO_UPSTREAM = "none"

# These have a line from the start, so that the first drop is an increase.
DROPPED = (
    *(("ledger", "missing"), ("ledger", "undecodable"), ("statistics", "missing"), ("statistics", "undecodable")),
    ("unknown", "undecodable"),
)

HISTOGRAMS: tuple[tuple[str, str, Callable[[RouteCounts], Histogram]], ...] = (
    ("request_duration_seconds", "From a request's arrival to its end.", lambda row: row.durations),
    ("overhead_seconds", "From a request's arrival until it went out to the upstream.", lambda row: row.overheads),
    (
        "upstream_duration_seconds",
        "From when a request went out to the upstream to its end.",
        lambda row: row.upstreams,
    ),
    (
        "stream_first_byte_seconds",
        "From a request's arrival to the head of the upstream's response.",
        lambda row: row.heads,
    ),
)
SUMS: tuple[tuple[str, str, Callable[[Counts], int]], ...] = (
    ("request_bytes_total", "Bytes of request bodies.", lambda counts: counts.request_bytes),
    ("response_bytes_total", "Bytes of response bodies.", lambda counts: counts.response_bytes),
    ("retries_total", "Attempts beyond each request's first.", lambda counts: counts.retries),
    (
        "truncated_total",
        "Responses that had begun and did not come to their end.",
        lambda counts: counts.truncated,
    ),
)


class Known(NamedTuple):
    """All that /metrics is made of. `counters` is None where SQL has never answered, the lags where Redis does not."""

    counters: Counters | None
    workers: Sequence[WorkerState]
    lag: tuple[int, float] | None
    ledger_lag: tuple[int, float] | None
    components: Mapping[str, bool]
    version: str


def families(known: Known) -> Iterator[Family]:
    yield from _gauges(known)
    if known.counters is not None:
        yield _gauge("configuration_version", "The newest version of the configuration.", known.counters.version)
        yield Family(
            "relaygate_events_dropped_total",
            "counter",
            "Events that will never be in the database.",
            _dropped(known.counters.dropped),
        )
        yield from _of_series(named(known.counters.rows))


def named(rows: Iterable[RouteCounts]) -> list[tuple[str, RouteCounts]]:
    """Returns rows with the labels of their series; those beyond SERIES_MAX as one."""
    found: list[tuple[str, RouteCounts]] = []
    others = RouteCounts(OTHER, OTHER)
    for row in rows:
        if len(found) < SERIES_MAX:
            values = {"route": row.prefix or UNMATCHED, "upstream": row.authority or NO_UPSTREAM}
            found.append((labels(values), row))
        else:
            others.add(row)
    if others.outcomes:
        found.append((labels({"route": OTHER, "upstream": OTHER}), others))
    return found


def _gauges(known: Known) -> Iterator[Family]:
    yield _gauge("build_info", "The version of the control plane.", 1, labels({"version": known.version}))
    yield Family(
        "relaygate_component_up",
        "gauge",
        "Whether a component is there.",
        [Sample(labels({"component": name}), int(up)) for name, up in known.components.items()],
    )
    yield _gauge("workers", "Workers of the data plane that are there.", len(known.workers))
    in_flight = sum(worker.in_flight for worker in known.workers)
    yield _gauge("requests_in_flight", "Requests that run, WebSockets among them.", in_flight)
    memory = sum(worker.memory_bytes for worker in known.workers)
    yield _gauge("workers_memory_bytes", "Resident memory of the workers.", memory)
    unsent = sum(worker.unsent for worker in known.workers)
    yield _gauge("requests_unsent", "Requests that workers have counted and not handed on.", unsent)
    if known.lag is not None:
        waiting, lag_s = known.lag
        yield _gauge("events_waiting", "Events in the stream that are not in the database.", waiting)
        yield _gauge("events_lag_seconds", "How long the oldest of them has waited.", lag_s)
    if known.ledger_lag is not None:
        waiting, lag_s = known.ledger_lag
        yield _gauge("ledger_waiting", "Entries of the ledger's stream that are not in the database.", waiting)
        yield _gauge("ledger_lag_seconds", "How long the oldest of them has waited.", lag_s)


def _gauge(name: str, about: str, value: float, of: str = "") -> Family:
    return Family(f"relaygate_{name}", "gauge", about, [Sample(of, value)])


def _dropped(dropped: Iterable[Dropped]) -> Iterator[Sample]:
    events = dict.fromkeys(DROPPED, 0) | {(one.kind, one.reason): one.events for one in dropped}
    for (kind, reason), count in events.items():
        yield Sample(labels({"kind": kind, "reason": reason}), count)


def _of_series(series: Sequence[tuple[str, RouteCounts]]) -> Iterator[Family]:
    yield Family(
        "relaygate_requests_total",
        "counter",
        "Requests that were answered or broken off, by outcome: a class of statuses, a cause, or client_left.",
        [
            Sample(f"{of},{labels({'outcome': outcome})}", counts.requests)
            for of, row in series
            for outcome, counts in sorted(row.outcomes.items())
        ],
    )
    for name, about, part in SUMS:
        samples = [Sample(of, sum(map(part, row.outcomes.values()))) for of, row in series]
        yield Family(f"relaygate_{name}", "counter", about, samples)
    for name, about, of_row in HISTOGRAMS:
        yield Family(
            f"relaygate_{name}",
            "histogram",
            about,
            (sample for of, row in series if of_row(row).counts for sample in histogram(of, of_row(row))),
        )
