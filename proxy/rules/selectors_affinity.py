"""The choice of the same one for the same key, for as long as it is there.

Multi-probe consistent hashing (Appleton and O'Reilly, 2015): each candidate is one point on a circle, a key is several,
and it goes to the candidate whose point follows one of them most closely. Who leaves gives up its own keys alone, to
several others; who comes takes its share alone. No candidate gets more than PROBES / (PROBES - 1) of an equal share of
keys, where one probe would give the luckiest of 100,000 twelve; one in nine gets less than 0.4. All of it follows from
the ids, so all workers agree, whatever came and went in each.
"""

from bisect import bisect_left, insort
from collections.abc import Callable
from hashlib import blake2b
from struct import Struct

from proxy.config import KeyPool
from proxy.rules.selectors_base import Candidate
from proxy.rules.selectors_order import RoundRobin

PROBES = 4
DIGEST_BYTES = 8 * PROBES
CIRCLE = 1 << 64
AS_POINTS = Struct(f"<{PROBES}Q")
RUN_MAX = 512


class Circle:
    """Sorted points, in runs of at most RUN_MAX, so that a new one moves few others."""

    __slots__ = ("_lasts", "_runs")

    def __init__(self) -> None:
        self._runs: list[list[int]] = []
        self._lasts: list[int] = []
        """The last point of each run."""

    def add(self, point: int) -> None:
        if not self._runs:
            self._runs, self._lasts = [[point]], [point]
            return
        index = min(bisect_left(self._lasts, point), len(self._lasts) - 1)
        run = self._runs[index]
        insort(run, point)
        self._runs[index : index + 1] = runs = (
            [run] if len(run) <= RUN_MAX else [run[: RUN_MAX // 2], run[RUN_MAX // 2 :]]
        )
        self._lasts[index : index + 1] = [run[-1] for run in runs]

    def remove(self, point: int) -> None:
        """Takes out a point, which must be there."""
        index = bisect_left(self._lasts, point)
        run = self._runs[index]
        del run[bisect_left(run, point)]
        if run:
            self._lasts[index] = run[-1]
        else:
            del self._runs[index], self._lasts[index]

    def closest(self, points: tuple[int, ...]) -> int:
        """Returns the point that follows one of these most closely. There must be one."""
        lasts, runs = self._lasts, self._runs
        least, found = CIRCLE, 0
        for point in points:
            index = bisect_left(lasts, point)
            run = runs[index if index < len(runs) else 0]
            following = run[bisect_left(run, point) if index < len(runs) else 0]
            distance = (following - point) % CIRCLE
            if distance < least:
                least, found = distance, following
        return found


class CacheAffinity(RoundRobin):
    """The one that the affinity leads to; one after the other where there is none."""

    def __init__(self, settings: KeyPool) -> None:
        super().__init__(settings)
        self._circle = Circle()
        self._at: dict[int, Candidate] = {}
        self._point_of: dict[Candidate, int] = {}

    def add(self, candidate: Candidate) -> None:
        if candidate in self._point_of:
            return
        super().add(candidate)
        (point,) = Struct("<Q").unpack(blake2b(candidate.id.encode(), digest_size=8).digest())
        while point in self._at:  # by two of one id, or once in a thousand years
            point = (point + 1) % CIRCLE
        self._at[point] = candidate
        self._point_of[candidate] = point
        self._circle.add(point)

    def remove(self, candidate: Candidate) -> None:
        super().remove(candidate)
        point = self._point_of.pop(candidate, None)
        if point is not None:
            del self._at[point]
            self._circle.remove(point)

    def choose(self, now_s: float, random01: Callable[[], float], affinity: bytes | None) -> Candidate | None:
        if affinity is None or not self._at:
            return super().choose(now_s, random01, affinity)
        points = AS_POINTS.unpack(blake2b(affinity, digest_size=DIGEST_BYTES).digest())
        return self._at[self._circle.closest(points)]
