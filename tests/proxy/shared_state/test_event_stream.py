"""A worker's side of the stream of events, on a real server."""

import asyncio
from typing import Any

import pytest

from proxy.shared_state import events
from proxy.shared_state.breaker import Breaker, Guard
from proxy.shared_state.event_stream import EventStream
from proxy.shared_state.events import event
from proxy.shared_state.keys import EVENTS
from tests.redis_servers import DEADLINE_S, EMBEDDED, connected, redis_at


def test_it_takes_what_it_has_room_for_and_tells_when_that_changes(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(events, "EVENTS_MAX", 1)

    async def story(client: Any) -> None:
        stream = EventStream(client, Guard(client, Breaker(), DEADLINE_S))
        assert await stream.has_room(5)
        await stream.add(b"kind", b"data")
        assert [fields for _, fields in await client.xrange(EVENTS)] == [event(b"kind", b"data")]
        assert [await stream.has_room(5) for _ in range(2)] == [False, False]
        await client.delete(EVENTS)
        assert [await stream.has_room(5) for _ in range(2)] == [True, True]

    async def main() -> None:
        async with connected(url) as client:
            await story(client)

    with redis_at(EMBEDDED, tmp_path_factory.mktemp("redis")) as url:
        asyncio.run(main())
    assert [record.getMessage() for record in caplog.records] == [
        "the stream of events is full: statistics wait",
        "the stream of events is no longer full",
    ]
