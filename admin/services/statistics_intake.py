"""What workers have counted, into SQL: each delta once, each request into the slots of its minute, hour, day, all time.

The rows of a slot are read, added to, and replaced, in a few statements for all of them. Nobody comes between: whoever
takes events holds their lock.

What 10,000 routes have counted in a second takes a second to add up. A thread does it, so that the event loop gets its
turn every 5 ms meanwhile (`sys.getswitchinterval`): the publisher and who asks the admin API do not wait.
"""

import asyncio
import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

import msgspec
from sqlalchemy import Row, and_, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from admin import tables
from admin.rules import deltas, outcomes
from admin.rules.deltas import EVERYTHING, Key
from admin.rules.periods import Slot
from admin.services.events import Entry, Taken
from admin.services.stream import Stream
from proxy.statistics import RouteCounts, StatisticsDelta

Name = TypeVar("Name", int, str)

ALL_SERIES = 0
"""The number under which the rows of all routes together stand. The database numbers series from 1."""

ROWS_MAX = 10_000
"""Of a statement, whose bound values are bounded: see `services/edits.py`."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(RouteCounts)


def packed(row: RouteCounts) -> bytes:
    return _encoder.encode(row)


def unpacked(data: bytes) -> RouteCounts:
    return _decoder.decode(data)


class StatisticsIntake:
    """Takes deltas of workers, and tells `stream` of each. `now_ms` is the clock, in milliseconds since 1970."""

    def __init__(self, stream: Stream, now_ms: Callable[[], int]) -> None:
        self._stream = stream
        self._now_ms = now_ms

    async def take(self, connection: AsyncConnection, entries: Sequence[Entry]) -> Taken:
        """Adds the deltas that are not counted yet. A delta that is missing before one is told."""
        read = await asyncio.to_thread(_read, entries)
        undecodable = [entry for entry, delta in read if delta is None]
        ages_s = {(delta.worker, delta.sequence): entry.age_s for entry, delta in read if delta is not None}
        found = [delta for _, delta in read if delta is not None]
        fresh = deltas.fresh(found, await _sequences(connection, {delta.worker for delta in found}))
        if not fresh.deltas:
            return Taken(undecodable)
        await self._note(connection, fresh.sequences)
        slots = await asyncio.to_thread(deltas.rolled_up, fresh.deltas)
        series = await _numbered(connection, {key for rows in slots.values() for key in rows if key != EVERYTHING})
        series[EVERYTHING] = ALL_SERIES
        for slot, rows in slots.items():
            await _add(connection, slot, {series[key]: row for key, row in rows.items()})
        return Taken(undecodable, fresh.missing, partial(self._tell, fresh.deltas, ages_s))

    def _tell(self, counted: Sequence[StatisticsDelta], ages_s: Mapping[tuple[str, int], float]) -> None:
        for delta in counted:
            self._stream.add(ages_s[delta.worker, delta.sequence], sum(map(outcomes.requests, delta.routes)))

    async def _note(self, connection: AsyncConnection, sequences: Mapping[str, int]) -> None:
        row = tables.statistics_workers.c
        now_ms = self._now_ms()
        for workers in _parts(sequences):
            await connection.execute(delete(tables.statistics_workers).where(row.worker.in_(workers)))
        rows = [{"worker": name, "sequence": last, "seen_at": now_ms} for name, last in sequences.items()]
        await connection.execute(insert(tables.statistics_workers), rows)


async def _sequences(connection: AsyncConnection, workers: Collection[str]) -> dict[str, int]:
    """Returns the last delta of each of these workers that is counted, where there is one."""
    row = tables.statistics_workers.c
    found: dict[str, int] = {}
    for names in _parts(workers):
        query = select(row.worker, row.sequence).where(row.worker.in_(names))
        found.update((worker, sequence) for worker, sequence in await connection.execute(query))
    return found


async def _numbered(connection: AsyncConnection, keys: Collection[Key]) -> dict[Key, int]:
    """Returns the number of each of these series; those that are new are numbered in their order."""
    digests = {_digest(key): key for key in keys}
    found = await _known(connection, digests)
    if missing := sorted(key for key in keys if key not in found):
        rows = [{"digest": _digest(key), "prefix": key[0], "authority": key[1]} for key in missing]
        await connection.execute(insert(tables.statistics_series), rows)
        found.update(await _known(connection, {row["digest"]: digests[row["digest"]] for row in rows}))
    return found


async def _known(connection: AsyncConnection, digests: Mapping[str, Key]) -> dict[Key, int]:
    row = tables.statistics_series.c
    found: dict[Key, int] = {}
    for part in _parts(digests):
        query = select(row.digest, row.id).where(row.digest.in_(part))
        found.update((digests[digest], number) for digest, number in await connection.execute(query))
    return found


def _digest(key: Key) -> str:
    return hashlib.sha256("\0".join(key).encode()).hexdigest()


async def _add(connection: AsyncConnection, slot: Slot, rows: Mapping[int, RouteCounts]) -> None:
    """Adds to the rows of a slot, by the number of their series."""
    row = tables.statistics.c
    for part in _parts(rows):
        here = and_(row.period_s == slot.period_s, row.start_s == slot.start_s, row.series.in_(part))
        before = (await connection.execute(select(row.series, row.counts).where(here))).all()
        after = await asyncio.to_thread(_added, slot, {series: rows[series] for series in part}, before)
        if before:
            await connection.execute(delete(tables.statistics).where(here))
        await connection.execute(insert(tables.statistics), after)


def _read(entries: Sequence[Entry]) -> list[tuple[Entry, StatisticsDelta | None]]:
    return [(entry, deltas.read(entry.data)) for entry in entries]


def _added(slot: Slot, rows: Mapping[int, RouteCounts], before: Iterable[Row[int, bytes]]) -> list[dict[str, object]]:
    """Adds what was there before to the rows of a slot; returns them as they go into the table."""
    for series, data in before:
        rows[series].add(unpacked(data))
    return [_row(slot, series, row) for series, row in rows.items()]


def _row(slot: Slot, series: int, counted: RouteCounts) -> dict[str, object]:
    return {
        "period_s": slot.period_s,
        "start_s": slot.start_s,
        "series": series,
        "requests": outcomes.requests(counted),
        "errors": outcomes.errors(counted),
        "last_at": int(counted.last_s * 1000),
        "counts": packed(counted),
    }


def _parts(whole: Collection[Name]) -> Iterator[list[Name]]:
    ordered = sorted(whole)
    for start in range(0, len(ordered), ROWS_MAX):
        yield ordered[start : start + ROWS_MAX]
