"""The state of components."""

import asyncio
import logging
import time

import pytest

from admin import readiness as module
from admin.readiness import DEADLINE_S, GOOD_FOR_S, Health, Readiness


class Component:
    """A component that can be taken away; it counts how often it was asked."""

    def __init__(self) -> None:
        self.down: Exception | None = None
        self.asked = 0

    async def probe(self) -> None:
        self.asked += 1
        if self.down is not None:
            raise self.down


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_component_goes_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        clock, redis = Clock(), Component()
        readiness = Readiness({"redis": redis.probe}, now_s=clock)
        assert await readiness.components() == {"redis": (Health.OK, 1000)}
        clock.now_s += 5
        assert await readiness.components() == {"redis": (Health.OK, 1000)}
        redis.down = ConnectionError("redis://:s3cret@10.0.0.1")
        clock.now_s += 5
        assert await readiness.components() == {"redis": (Health.DOWN, 1010)}
        clock.now_s += 5
        assert await readiness.components() == {"redis": (Health.DOWN, 1010)}
        redis.down = None
        clock.now_s += 5
        assert await readiness.components() == {"redis": (Health.OK, 1020)}

    with caplog.at_level(logging.INFO, "relaygate"):
        asyncio.run(scenario())
    assert caplog.messages == ["redis is down", "redis is ok"]


def test_whoever_asks_often_does_not_burden_the_components() -> None:
    async def scenario() -> None:
        clock, redis = Clock(), Component()
        readiness = Readiness({"redis": redis.probe}, now_s=clock)
        await asyncio.gather(*(readiness.components() for _ in range(100)))
        assert redis.asked == 1
        clock.now_s += GOOD_FOR_S
        await readiness.components()
        assert redis.asked == 2

    asyncio.run(scenario())


def test_components_that_hang_cost_one_deadline_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEADLINE_S", 0.2)
    hanging = {f"hanging-{number}" for number in range(100)}

    async def hang() -> None:
        await asyncio.Event().wait()

    async def scenario() -> float:
        readiness = Readiness({**dict.fromkeys(hanging, hang), "redis": Component().probe})
        before_s = time.monotonic()
        states = await readiness.components()
        assert {name for name, state in states.items() if state.health is Health.DOWN} == hanging
        return time.monotonic() - before_s

    assert DEADLINE_S == 1
    assert asyncio.run(scenario()) < 100 * 0.2 / 2
