"""When the ledger is cleaned: by the clock, when asked, and again soon where it did not go."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from admin.database import DatabaseDown
from admin.quota_cleanup import FIRST_MS, HOUR_MS, QuotaCleanup
from admin.services.ledger_retention import Cleaned
from proxy.config import QuotaCleanup as Kept
from tests.redis_servers import beside, until


class Retention:
    """Counts; fails where it is told to."""

    def __init__(self) -> None:
        self.times = 0
        self.failure: Exception | None = None
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def forget(self) -> int:
        self.times += 1
        await self.go_on.wait()
        if self.failure is not None:
            raise self.failure
        return 3

    async def cleaned(self) -> Cleaned:
        return Cleaned(5, 3, 3 * self.times)


class Plane:
    def __init__(self, kept: Kept) -> None:
        self.now_ms = 0
        self.retention = Retention()
        retention: Any = self.retention
        self.cleanup = QuotaCleanup(kept, retention, lambda: self.now_ms)

    async def next_ms(self) -> int | None:
        return (await self.cleanup.standing()).next_at_ms

    async def done(self, times: int) -> None:
        async def ended() -> bool:
            return self.retention.times == times and not (await self.cleanup.standing()).is_running

        await until(ended)


def play(kept: Kept, story: Callable[[Plane], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        await story(Plane(kept))

    asyncio.run(main())


def test_it_comes_after_a_minute_and_then_each_interval() -> None:
    async def story(plane: Plane) -> None:
        assert await plane.next_ms() == FIRST_MS
        plane.now_ms = FIRST_MS
        async with beside(plane.cleanup.run()):
            await plane.done(1)
            assert await plane.next_ms() == FIRST_MS + 2 * HOUR_MS

    play(Kept(interval_hours=2), story)


def test_where_it_is_off_it_comes_when_asked_for_alone() -> None:
    async def story(plane: Plane) -> None:
        assert await plane.next_ms() is None
        async with beside(plane.cleanup.run()):
            assert plane.cleanup.trigger()
            await plane.done(1)
            assert plane.cleanup.trigger()
            await plane.done(2)
            standing = await plane.cleanup.standing()
        assert (standing.enabled, standing.next_at_ms, standing.total_rows) == (False, None, 6)

    play(Kept(enabled=False), story)


def test_it_is_not_asked_for_twice_at_once() -> None:
    async def story(plane: Plane) -> None:
        plane.retention.go_on.clear()
        assert plane.cleanup.trigger()
        assert not plane.cleanup.trigger()
        async with beside(plane.cleanup.run()):

            async def begun() -> bool:
                return plane.retention.times == 1

            await until(begun)
            assert not plane.cleanup.trigger()
            plane.retention.go_on.set()
            await plane.done(1)

    play(Kept(), story)


@pytest.mark.parametrize("failure", [DatabaseDown("here", OSError("gone")), ValueError("secret")])
def test_a_failure_is_tried_again_in_a_minute(failure: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async def story(plane: Plane) -> None:
        plane.retention.failure = failure
        async with beside(plane.cleanup.run()):
            plane.cleanup.trigger()
            await plane.done(1)
            assert await plane.next_ms() == FIRST_MS

    play(Kept(), story)
    assert "secret" not in caplog.text
    assert len(caplog.messages) == (1 if isinstance(failure, ValueError) else 0)
