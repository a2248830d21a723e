"""Requests as they are counted, and deltas as a consumer takes them."""

from time import perf_counter
from typing import Any

import msgspec

from proxy.errors import Cause
from proxy.journal import Journal
from proxy.phases.account import count
from proxy.statistics import Key, RouteCounts, Rows, StatisticsDelta, fold, merged
from proxy.tallies import Tallies, Tally


class Ended:
    """A request that has ended: what of an exchange is counted."""

    def __init__(
        self, status: int = 200, *, cause: Cause | None = None, request_bytes: int = 0, duration_s: float = 0.25
    ) -> None:
        self.status = status
        self.cause = cause
        self.truncated = False
        self.response_started = True
        self.attempts = 1
        self.request_bytes = request_bytes
        self.response_bytes = 0
        self.started_s = perf_counter() - duration_s
        self.head_s = self.sent_s = 0.0


def count_one(tally: Tally, status: int = 200, **state: Any) -> None:
    count(Ended(status, **state), tally)  # type: ignore[arg-type]


def in_memory(worker: str = "worker") -> Tallies:
    return Tallies(Journal.in_memory(), worker, 0.0)


def decoded(delta: bytes) -> StatisticsDelta:
    return msgspec.msgpack.decode(delta, type=StatisticsDelta)


def taken(tallies: Tallies) -> list[RouteCounts]:
    """What was counted since the last look."""
    delta = tallies.offer(0.0)
    tallies.confirm()
    return [] if delta is None else decoded(delta).routes


def requests_of(rows: list[RouteCounts]) -> dict[str, int]:
    """How many requests each prefix had."""
    return {row.prefix: sum(counts.requests for counts in row.outcomes.values()) for row in merged(rows)}


class Consumer:
    """Takes each number of each worker once."""

    def __init__(self) -> None:
        self.rows: list[RouteCounts] = []
        self.last: dict[str, int] = {}
        self.gaps = 0

    def take(self, data: bytes) -> None:
        delta = decoded(data)
        last = self.last.get(delta.worker, 0)
        if delta.sequence > last:
            self.gaps += delta.sequence > last + 1
            self.last[delta.worker] = delta.sequence
            self.rows = merged([*self.rows, *delta.routes])


def folded(records: bytes, keys: dict[int, Key]) -> Rows:
    rows: Rows = {}
    fold(records, keys.__getitem__, rows)
    return rows
