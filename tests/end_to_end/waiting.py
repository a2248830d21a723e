"""Waiting for something to come true, by looking again and again until a deadline. Never by sleeping and hoping."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LOOK_AGAIN_S = 0.01


def eventually(look: Callable[[], T], deadline_s: float = 5.0, *, what: str = "the condition") -> T:
    """Return `look()` as soon as it is true; fail at the deadline."""
    end_s = time.monotonic() + deadline_s
    while not (seen := look()):
        assert time.monotonic() < end_s, f"{what} did not come true within {deadline_s} s"
        time.sleep(LOOK_AGAIN_S)
    return seen


def never(look: Callable[[], object], for_s: float, *, what: str = "the condition") -> None:
    """Assert that `look()` stays false for so long."""
    end_s = time.monotonic() + for_s
    while time.monotonic() < end_s:
        assert not look(), f"{what} came true"
        time.sleep(LOOK_AGAIN_S)


def settled(look: Callable[[], T], for_s: float = 0.3, deadline_s: float = 10.0) -> T:
    """The value of `look()` once it has not changed for so long."""
    end_s = time.monotonic() + deadline_s
    last, since_s = look(), time.monotonic()
    while time.monotonic() - since_s < for_s:
        assert time.monotonic() < end_s, f"never settled within {deadline_s} s"
        time.sleep(LOOK_AGAIN_S)
        if (now := look()) != last:
            last, since_s = now, time.monotonic()
    return last
