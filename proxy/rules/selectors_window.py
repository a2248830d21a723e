"""The choice of the one with the fewest uses lately.

A window that slides changes the number of every candidate all the time. So time is cut into slots, a tenth of the
window each, and a use counts until its slot is wholly out of the window: for `window_s`, or up to a tenth longer.
Then only the end of a slot lowers numbers, and only of those that were used in it.

Uses are kept in the candidate (`RecentUses`): one that was banned for half a minute would otherwise come back as one
that has not been used at all, and be given everything.
"""

from collections.abc import Callable
from math import inf

from proxy.config import KeyPool
from proxy.rules.recent_uses import SLOTS, RecentUses
from proxy.rules.selectors_base import Candidate, Place
from proxy.rules.selectors_least import Least

ENDED_MAX = 32
"""How many candidates are moved for ended slots at one choice. There is one use a choice, so they never pile up, and
a slot in which 100,000 were used does not stop the event loop when it ends: some only count as used a little longer."""


class TimeWindow(Least):
    """The fewest uses within the last `window_s`. Of uses before the first selector of this kind nothing is known."""

    def __init__(self, settings: KeyPool) -> None:
        super().__init__(settings)
        self._slot_s = settings.window_s / SLOTS
        self._by_oldest_slot: dict[int, list[Place]] = {}
        """By the oldest slot they were used in; an entry is void unless the place awaits that slot."""
        self._oldest_of_all: float = inf

    def number(self, candidate: Candidate) -> int:
        return self._uses_of(candidate).count

    def add(self, candidate: Candidate) -> None:
        super().add(candidate)
        self.changed(candidate)

    def changed(self, candidate: Candidate) -> None:
        place = self._buckets.place(candidate, self._chosen)
        if place is None:
            return
        uses = self._uses_of(candidate)
        uses.count_up_to(candidate.requests, candidate.last_used_s)
        if place.awaits_slot is None:
            self._await_end_of(uses.oldest_slot(), place)
        self._buckets.move(place, uses.count)

    def choose(self, now_s: float, random01: Callable[[], float], affinity: bytes | None) -> Candidate | None:
        ended = int(now_s // self._slot_s) - SLOTS - 1
        if self._oldest_of_all <= ended:
            for _ in range(ENDED_MAX):
                self._forget_one_up_to(ended)
                if self._oldest_of_all > ended:
                    break
        return super().choose(now_s, random01, affinity)

    def _uses_of(self, candidate: Candidate) -> RecentUses:
        uses = candidate.recent_uses
        if uses is None or uses.slot_s != self._slot_s:
            uses = candidate.recent_uses = RecentUses(self._slot_s, candidate.requests)
        return uses

    def _await_end_of(self, slot: int | None, place: Place) -> None:
        place.awaits_slot = slot
        if slot is None:
            return
        places = self._by_oldest_slot.get(slot)
        if places is None:
            places = self._by_oldest_slot[slot] = []
            self._oldest_of_all = min(self._oldest_of_all, slot)
        places.append(place)

    def _forget_one_up_to(self, ended: int) -> None:
        oldest = int(self._oldest_of_all)
        places = self._by_oldest_slot[oldest]
        place = places.pop()
        if not places:
            del self._by_oldest_slot[oldest]
            self._oldest_of_all = min(self._by_oldest_slot, default=inf)  # of SLOTS + 2, or a few more
        if place.awaits_slot != oldest:
            return
        uses = self._uses_of(place.candidate)
        uses.forget_up_to(ended)
        self._await_end_of(uses.oldest_slot(), place)
        self._buckets.move(place, uses.count)
