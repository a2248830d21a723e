"""When bans end, so that a request finds who may be tried again without a look at all that are banned.

The law of this file: a heap keeps what was noted, also what is no longer true, and leaves that out when it comes up.
"""

import heapq
import math
from collections.abc import Iterator, Mapping

from proxy.key_pool.ban_book import Field

LOOKED_AT_MAX = 100
"""Of bans that have ended."""


class BanEnds:
    """The ends of a worker's bans, by group and model, in seconds since 1970.

    `home` has the group of each credential; without one it cannot be chosen, and its bans do not matter.
    """

    def __init__(self, home: Mapping[str, str]) -> None:
        self.next_s = math.inf
        """When the first of all bans ends, or an earlier time."""
        self._home = home
        self._by_group: dict[tuple[str, str], list[tuple[float, str]]] = {}
        self._all: list[tuple[float, Field]] = []
        self._noted: dict[Field, float] = {}
        """Under which time a ban is in both."""

    def note(self, group: str, field: Field, end_s: float) -> None:
        """Has it come up when a ban ends."""
        if self._noted.get(field) == end_s:
            return
        self._noted[field] = end_s
        heapq.heappush(self._by_group.setdefault((group, field[1]), []), (end_s, field[0]))
        heapq.heappush(self._all, (end_s, field))
        self.next_s = min(self.next_s, end_s)

    def forget(self, field: Field) -> None:
        """Takes that there is no such ban, or that its credential is of another group now."""
        self._noted.pop(field, None)

    def find_next(self) -> None:
        """Finds out when the first of all bans ends; of one that is due, when it did."""
        heap = self._all
        while heap:
            end_s, field = heap[0]
            if self._noted.get(field) == end_s and field[0] in self._home:
                self.next_s = end_s
                return
            heapq.heappop(heap)
        self.next_s = math.inf

    def first_s(self, group: str, model: str) -> float | None:
        """Returns when the first credential of a group may be tried that is banned for a model, or for all."""
        heap = self._by_group.get((group, model))
        while heap:
            end_s, name = heap[0]
            if self._home.get(name) == group and self._noted.get((name, model)) == end_s:
                return end_s
            heapq.heappop(heap)
        return None

    def due(self, group: str, model: str, now_s: float) -> Iterator[str]:
        """Yields credentials of a group whose time has come, LOOKED_AT_MAX at most; some may be so no longer."""
        end_s = self.first_s(group, model)
        if end_s is None or end_s > now_s:
            return
        heap = self._by_group[group, model]
        places = [0]
        for _ in range(LOOKED_AT_MAX):
            if not places:
                return
            at = places.pop()
            if at < len(heap) and heap[at][0] <= now_s:
                places += (2 * at + 2, 2 * at + 1)
                yield heap[at][1]
