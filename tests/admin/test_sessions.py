"""Sessions, against a clock that the test turns."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from admin import sessions as module
from admin.sessions import LIFETIME_S, Sessions, label
from tests.admin.memory import Settings


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def test_a_session_ends_after_seven_days() -> None:
    async def scenario() -> None:
        clock = Clock()
        sessions = Sessions(Settings(), "hash", clock)
        name = await sessions.open()
        clock.now_s += LIFETIME_S - 1
        assert await sessions.is_open(name)
        clock.now_s += 1
        assert not await sessions.is_open(name)

    run(scenario())


def test_a_new_token_ends_all_sessions_and_a_restart_none() -> None:
    async def scenario() -> None:
        settings = Settings()
        name = await Sessions(settings, "hash").open()
        assert await Sessions(settings, "hash").is_open(name)
        assert not await Sessions(settings, "another").is_open(name)

    run(scenario())


def test_a_closed_session_stays_closed_in_every_process() -> None:
    async def scenario() -> None:
        settings = Settings()
        one, other = Sessions(settings, "hash"), Sessions(settings, "hash")
        name = await one.open()
        await other.close(name)
        assert not await one.is_open(name)
        await one.close(name)
        await one.close("never opened")

    run(scenario())


def test_what_is_over_is_removed_and_the_number_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPEN_MAX", 3)

    async def scenario() -> None:
        clock, settings = Clock(), Settings()
        sessions = Sessions(settings, "hash", clock)
        names = []
        for _ in range(5):
            names.append(await sessions.open())
            clock.now_s += 1
        assert [await sessions.is_open(name) for name in names] == [False, False, True, True, True]
        assert len(settings.values) == 1 + 3
        clock.now_s += LIFETIME_S
        await sessions.open()
        assert len(settings.values) == 1 + 1

    run(scenario())


def test_sessions_opened_at_once_are_all_remembered() -> None:
    async def scenario() -> None:
        settings = Settings()
        sessions = Sessions(settings, "hash")
        names = await asyncio.gather(*(sessions.open() for _ in range(20)))
        assert len(set(names)) == 20
        assert all([await sessions.is_open(name) for name in names])
        assert settings.values["sessions"].count("session:") == 20

    run(scenario())


def test_a_label_does_not_lead_back_to_the_name() -> None:
    assert label("name").startswith("session:")
    assert len(label("name")) == len("session:") + 8
    assert label("name") != label("other")
