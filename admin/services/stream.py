"""The stream of events as it goes just now: how far its consumer is behind, and how many requests it tells of."""

import time
from collections.abc import Callable

from admin.rules.recent import Recent

STALE_S = 30.0
"""What was noted longer ago says nothing any more."""


class Stream:
    """`now_s` is a clock that never goes back."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._recent = Recent()
        self._lag: tuple[int, float] | None = None
        self._noted_s = 0.0

    def note(self, waiting: int, lag_s: float) -> None:
        """Notes how many events wait, and for how long the oldest has."""
        self._lag = (waiting, lag_s)
        self._noted_s = self._now_s()

    def add(self, age_s: float, requests: int) -> None:
        """Adds requests that were reported so long ago."""
        self._recent.add(self._now_s() - age_s, requests)

    def lag(self) -> tuple[int, float] | None:
        """How many events wait, and for how many seconds the oldest has; None while nobody knows."""
        return self._lag if self._now_s() - self._noted_s < STALE_S else None

    def requests_per_second(self) -> float:
        """Over the last ten seconds, of what has been taken into SQL."""
        return self._recent.per_second(self._now_s())
