"""Choices of the one with the least of something, any of them where several have.

Candidates lie in buckets by their number, and a heap knows which numbers there are. A heap of candidates would have to
break ties by an order of its own, which would be the same in all workers.
"""

from abc import abstractmethod
from collections.abc import Callable
from heapq import heapify, heappop, heappush

from proxy.config import KeyPool
from proxy.rules.selectors_base import Buckets, Candidate, Place, Selector

STALE_MAX = 64
"""How many more numbers than there are buckets twice over the heap may hold before it is made anew."""


class HeapedBuckets(Buckets):
    """Buckets that know the least number. The heap keeps those that are gone until they come up, or are too many."""

    __slots__ = ("heap",)

    def __init__(self) -> None:
        super().__init__()
        self.heap: list[int] = []

    def least(self) -> list[Place]:
        """Returns the bucket of the least number, an empty one where there is none."""
        by_number, heap = self.by_number, self.heap
        while heap:
            bucket = by_number.get(heap[0])
            if bucket is not None:
                return bucket
            heappop(heap)
        return []

    def _new_bucket(self, number: int) -> list[Place]:
        heappush(self.heap, number)
        bucket = super()._new_bucket(number)
        if len(self.heap) > 2 * len(self.by_number) + STALE_MAX:
            self.heap = list(self.by_number)
            heapify(self.heap)
        return bucket


class Least(Selector):
    """The least `number`."""

    def __init__(self, settings: KeyPool) -> None:
        super().__init__(settings)
        self._buckets = HeapedBuckets()
        self._chosen: Place | None = None
        """Whose figures change next, most likely."""

    @abstractmethod
    def number(self, candidate: Candidate) -> int:
        """Returns what the chosen one has the least of."""

    def add(self, candidate: Candidate) -> None:
        self._buckets.put(candidate, self.number(candidate))

    def remove(self, candidate: Candidate) -> None:
        self._buckets.discard(candidate)

    def changed(self, candidate: Candidate) -> None:
        place = self._buckets.place(candidate, self._chosen)
        if place is not None:
            self._buckets.move(place, self.number(candidate))

    def choose(self, now_s: float, random01: Callable[[], float], affinity: bytes | None) -> Candidate | None:  # noqa: ARG002 - not all that is there to go by
        least = self._buckets.least()
        if not least:
            return None
        self._chosen = chosen = least[int(random01() * len(least))]
        return chosen.candidate

    def __len__(self) -> int:
        return len(self._buckets)

    def __contains__(self, candidate: Candidate) -> bool:
        return candidate in self._buckets


class LeastUsed(Least):
    """The least `requests`, over all time."""

    def number(self, candidate: Candidate) -> int:
        return candidate.requests


class LeastTokenUsed(Least):
    """The least tokens used; not known is none."""

    def number(self, candidate: Candidate) -> int:
        return candidate.tokens_used or 0


class MaxRemaining(Least):
    """The most tokens remaining.

    One whose total is not known comes after all that are known to have some, and before those known to have none: it
    may be empty, but would never be used if it counted as that.
    """

    def number(self, candidate: Candidate) -> int:
        if candidate.tokens_total is None:
            return 0
        remaining = candidate.tokens_total - (candidate.tokens_used or 0)
        return -remaining if remaining > 0 else 1 - remaining
