"""Choices that ask for no figures: one after the other, or any."""

from collections import OrderedDict
from collections.abc import Callable

from proxy.config import KeyPool
from proxy.rules.selectors_base import Buckets, Candidate, Selector


class RoundRobin(Selector):
    """A queue: who is chosen goes to its end, and so does who is added.

    Between two choices of one candidate, each other that was there all the time has been chosen exactly once, whatever
    was added and removed meanwhile.
    """

    def __init__(self, settings: KeyPool) -> None:
        super().__init__(settings)
        # A dict would do but for its first key, which is behind the places of all that were first before.
        self._queue: OrderedDict[Candidate, None] = OrderedDict()

    def add(self, candidate: Candidate) -> None:
        self._queue.setdefault(candidate)

    def remove(self, candidate: Candidate) -> None:
        self._queue.pop(candidate, None)

    def choose(self, now_s: float, random01: Callable[[], float], affinity: bytes | None) -> Candidate | None:  # noqa: ARG002 - not all that is there to go by
        for candidate in self._queue:
            self._queue.move_to_end(candidate)
            return candidate
        return None

    def __len__(self) -> int:
        return len(self._queue)

    def __contains__(self, candidate: Candidate) -> bool:
        return candidate in self._queue


class Random(Selector):
    """Each with the same odds."""

    def __init__(self, settings: KeyPool) -> None:
        super().__init__(settings)
        self._buckets = Buckets()

    def add(self, candidate: Candidate) -> None:
        self._buckets.put(candidate, 0)

    def remove(self, candidate: Candidate) -> None:
        self._buckets.discard(candidate)

    def choose(self, now_s: float, random01: Callable[[], float], affinity: bytes | None) -> Candidate | None:  # noqa: ARG002 - not all that is there to go by
        if not self._buckets:
            return None
        candidates = self._buckets.by_number[0]
        return candidates[int(random01() * len(candidates))]

    def __len__(self) -> int:
        return len(self._buckets)

    def __contains__(self, candidate: Candidate) -> bool:
        return candidate in self._buckets
