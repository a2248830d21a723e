"""Choices of the one with the least of something, any of them where several have.

Candidates lie in buckets by their number, and a heap knows which numbers there are. A heap of candidates would have to
break ties by an order of its own, which would be the same in all workers.
"""

from abc import abstractmethod
from collections.abc import Callable
from heapq import heapify, heappop, heappush

from proxy.config import KeyPool
from proxy.rules.selectors_base import Buckets, Candidate, Selector

STALE_MAX = 64
"""How many more numbers than there are buckets twice over the heap may hold before it is made anew."""


class Least(Selector):
    """The least `number`. The heap keeps numbers whose bucket is gone until they come up, or are too many."""

    def __init__(self, settings: KeyPool) -> None:
        super().__init__(settings)
        self._buckets = Buckets()
        self._heap: list[int] = []

    @abstractmethod
    def number(self, candidate: Candidate) -> int:
        """Returns what the chosen one has the least of."""

    def add(self, candidate: Candidate) -> None:
        self._file(candidate)

    def remove(self, candidate: Candidate) -> None:
        self._buckets.discard(candidate)

    def changed(self, candidate: Candidate) -> None:
        if candidate in self._buckets:
            self._file(candidate)

    def choose(self, now_s: float, random01: Callable[[], float], affinity: bytes | None) -> Candidate | None:  # noqa: ARG002 - not all that is there to go by
        by_number, heap = self._buckets.by_number, self._heap
        while heap:
            least = by_number.get(heap[0])
            if least is not None:
                return least[int(random01() * len(least))]
            heappop(heap)
        return None

    def _file(self, candidate: Candidate) -> None:
        number = self.number(candidate)
        by_number = self._buckets.by_number
        if number not in by_number:
            heappush(self._heap, number)
        self._buckets.put(candidate, number)
        if len(self._heap) > 2 * len(by_number) + STALE_MAX:
            self._heap = list(by_number)
            heapify(self._heap)

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
