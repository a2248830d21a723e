"""An entry of the stream of events lies in Redis as it is spelled."""

import asyncio
from typing import Any

import msgspec
import pytest

from proxy.shared_state import events
from proxy.statistics import RouteCounts, StatisticsDelta
from tests.redis_servers import connected

DELTA = StatisticsDelta("worker", 1.5, 1, 2.5, [RouteCounts("/a", "a.example")])


@pytest.mark.parametrize(
    ("entries", "size", "full"),
    [
        (0, 10 * events.EVENTS_BYTES_MAX, False),
        (1, events.EVENTS_BYTES_MAX - 1, False),
        (1, events.EVENTS_BYTES_MAX, True),
        (events.EVENTS_MAX - 1, 2000, False),
        (events.EVENTS_MAX, 2000, True),
        (100, 4_000_000, True),
    ],
)
def test_a_stream_is_full_by_entries_or_by_bytes(entries: int, size: int, *, full: bool) -> None:
    assert events.is_full(entries, size) is full


def test_an_event_comes_back_as_it_was(redis_url: str, prefix: str) -> None:
    async def main() -> None:
        async with connected(redis_url) as client:
            entry = events.event(events.STATISTICS, msgspec.msgpack.encode(DELTA))
            added = await client.xadd(f"{prefix}events", entry)  # type: ignore[arg-type,unused-ignore]
            entries: Any = await client.xrange(f"{prefix}events")
            ((entry_id, fields),) = entries
            assert (entry_id, fields[events.KIND]) == (added, events.STATISTICS)
            assert msgspec.msgpack.decode(fields[events.DATA], type=StatisticsDelta) == DELTA

    asyncio.run(main())
