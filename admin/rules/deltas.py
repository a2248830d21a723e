"""What workers have counted, on its way into tables: which deltas count, and into which slots. Pure.

Rows only ever add up, so it makes no difference how the same requests are cut into deltas and these into batches.
"""

from collections.abc import Iterable, Mapping
from typing import Generic, NamedTuple, Protocol, TypeVar

import msgspec

from admin.rules.periods import ALL_TIME, DAY_S, HOUR_S, MINUTE_S, Slot, slot_of
from proxy.rules.histogram import Histogram
from proxy.statistics import Counts, RouteCounts, StatisticsDelta

Key = tuple[str, str]
"""The prefix of a route and the authority of its target."""

EVERYTHING: Key = ("", "\0")
"""Stands for all routes together. A delta with such an authority is refused."""

NUMBER_MAX = 2**53
"""Sums of such numbers do not reach the end of SQL's integers within the life of the universe."""
TIME_MAX_S = 2**33
BUCKET_MAX = 0x7FEE
"""The last bucket of a histogram whose upper edge is a number."""
WORKER_CHARACTERS_MAX = 64
OUTCOME_CHARACTERS_MAX = 64

Rows = dict[Key, RouteCounts]

_decoder = msgspec.msgpack.Decoder(StatisticsDelta)


class Numbered(Protocol):
    """What a worker tells, each with the number after the one before, from 1 on."""

    @property
    def worker(self) -> str: ...
    @property
    def sequence(self) -> int: ...


Delta = TypeVar("Delta", bound=Numbered)


class Fresh(NamedTuple, Generic[Delta]):
    """Deltas that are not counted yet, how far each worker is with them, and how many before them never came."""

    deltas: list[Delta]
    sequences: dict[str, int]
    missing: int


def read(data: bytes) -> StatisticsDelta | None:
    """Returns a delta, None where it is none or has what no table takes."""
    try:
        delta = _decoder.decode(data)
    except (msgspec.DecodeError, ValueError):  # the latter of text that is not UTF-8
        return None
    return delta if _fits(delta) else None


def fresh(deltas: Iterable[Delta], counted: Mapping[str, int]) -> Fresh[Delta]:
    """Returns the deltas that come after those `counted`, the last sequence of each worker."""
    found: Fresh[Delta] = Fresh([], {}, 0)
    missing = 0
    for delta in deltas:
        last = found.sequences.get(delta.worker, counted.get(delta.worker, 0))
        if delta.sequence > last:
            found.deltas.append(delta)
            found.sequences[delta.worker] = delta.sequence
            missing += delta.sequence - last - 1
    return found._replace(missing=missing)


def rolled_up(deltas: Iterable[StatisticsDelta]) -> dict[Slot, Rows]:
    """Returns what was counted in each slot of each period, by route and of EVERYTHING."""
    slots: dict[Slot, Rows] = {}
    for delta in deltas:
        minute = slots.setdefault(slot_of(MINUTE_S, delta.time_s), {})
        for row in delta.routes:
            _add(minute, (row.prefix, row.authority), row)
    for minute in slots.values():
        for row in list(minute.values()):
            _add(minute, EVERYTHING, row)
    for slot, minute in list(slots.items()):
        for whole in (slot_of(HOUR_S, slot.start_s), slot_of(DAY_S, slot.start_s), ALL_TIME):
            rows = slots.setdefault(whole, {})
            for key, row in minute.items():
                _add(rows, key, row)
    return slots


def _add(rows: Rows, key: Key, row: RouteCounts) -> None:
    found = rows.get(key)
    if found is None:
        found = rows[key] = RouteCounts("", "")
    found.add(row)


def _fits(delta: StatisticsDelta) -> bool:
    return (
        0 < len(delta.worker) <= WORKER_CHARACTERS_MAX
        and "\0" not in delta.worker
        and 0 < delta.sequence <= NUMBER_MAX
        and 0 <= delta.time_s <= TIME_MAX_S
        and all(map(_row_fits, delta.routes))
    )


def _row_fits(row: RouteCounts) -> bool:
    return (
        "\0" not in row.prefix
        and "\0" not in row.authority
        and 0 <= row.last_s <= TIME_MAX_S
        and all(len(outcome) <= OUTCOME_CHARACTERS_MAX and _fit(counts) for outcome, counts in row.outcomes.items())
        and all(map(_histogram_fits, (row.durations, row.heads, row.overheads, row.upstreams)))
    )


def _fit(counts: Counts) -> bool:
    return all(0 <= number <= NUMBER_MAX for number in msgspec.structs.astuple(counts))


def _histogram_fits(histogram: Histogram) -> bool:
    buckets, numbers = histogram.counts.keys(), histogram.counts.values()
    return 0 <= histogram.sum_us <= NUMBER_MAX and (
        not buckets
        or (min(buckets) >= 0 and max(buckets) <= BUCKET_MAX and min(numbers) > 0 and max(numbers) <= NUMBER_MAX)
    )
