"""Choices that ask for no figures: one after the other, or any."""

from array import array
from collections.abc import Callable

from proxy.config import KeyPool
from proxy.rules.selectors_base import Buckets, Candidate, Selector


class RoundRobin(Selector):
    """A round: the next one is chosen, and who is added comes last.

    Between two choices of one candidate, each other that was there all the time has been chosen exactly once, whatever
    was added and removed meanwhile. It is a doubly linked list in arrays: with an object for each of 100,000 candidates
    it would take the garbage collector long.
    """

    def __init__(self, settings: KeyPool) -> None:
        super().__init__(settings)
        self._places: dict[Candidate, int] = {}
        self._candidates: list[Candidate | None] = []
        self._before = array("l")
        self._after = array("l")
        self._free: list[int] = []
        self._next = 0
        """The place of the next one; of no meaning while there is none."""

    def add(self, candidate: Candidate) -> None:
        if candidate in self._places:
            return
        if not self._free:
            self._free.append(len(self._candidates))
            self._candidates.append(None)
            self._before.append(0)
            self._after.append(0)
        at = self._free.pop()
        if not self._places:
            self._next = self._before[at] = at
        after = self._next
        before = self._before[after]
        self._before[at], self._after[at] = before, after
        self._after[before] = self._before[after] = at
        self._candidates[at] = candidate
        self._places[candidate] = at

    def remove(self, candidate: Candidate) -> None:
        at = self._places.pop(candidate, None)
        if at is None:
            return
        before, after = self._before[at], self._after[at]
        self._after[before], self._before[after] = after, before
        self._candidates[at] = None
        self._free.append(at)
        if at == self._next:
            self._next = after

    def choose(self, now_s: float, random01: Callable[[], float], affinity: bytes | None) -> Candidate | None:  # noqa: ARG002 - not all that is there to go by
        if not self._places:
            return None
        at = self._next
        self._next = self._after[at]
        return self._candidates[at]

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, candidate: Candidate) -> bool:
        return candidate in self._places


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
        places = self._buckets.by_number[0]
        return places[int(random01() * len(places))].candidate

    def __len__(self) -> int:
        return len(self._buckets)

    def __contains__(self, candidate: Candidate) -> bool:
        return candidate in self._buckets
