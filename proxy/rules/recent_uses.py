"""How often a credential was used lately, for all time-window selectors that it is in.

Time is cut into slots, SLOTS to a window. A credential has SLOTS + 1 of them at most, also where nobody forgets any.
"""

import msgspec

SLOTS = 10


class RecentUses(msgspec.Struct, eq=False, gc=False):
    """The uses of one credential in slots of `slot_s` seconds, counted by its `requests`.

    `count` is the sum over all slots that are not forgotten. `requests` is up to where uses have been counted: so any
    number of selectors may have them counted, and each use counts once.

    It is out of the garbage collector's sight, which 100,000 would stop for long; there is no way back to it from here.
    """

    slot_s: float
    requests: int
    count: int = 0
    _newest_slot: int = 0
    _newest: int = 0
    # Most credentials of a large pool are used in one slot only, and need no list.
    _older: list[tuple[int, int]] | None = None

    def count_up_to(self, requests: int, at_s: float) -> None:
        """Counts what came since the last call as used at `at_s`, or in the newest slot if that is later."""
        uses = requests - self.requests
        self.requests = requests
        if uses <= 0:
            return
        slot = int(at_s // self.slot_s)
        if slot > self._newest_slot:
            self._begin(slot)
        self._newest += uses
        self.count += uses

    def forget_up_to(self, slot: int) -> None:
        """Forgets the uses in this slot and older ones."""
        if self._newest_slot <= slot:
            self.count = self._newest = 0
            self._older = None
        older = self._older
        while older and older[0][0] <= slot:
            self.count -= older.pop(0)[1]

    def oldest_slot(self) -> int | None:
        """Returns the number of the oldest slot with a use, None where there is none."""
        if self._older:
            return self._older[0][0]
        return self._newest_slot if self._newest else None

    def slots(self) -> list[tuple[int, int]]:
        """Returns the slots with uses, oldest first: number and uses."""
        return [*(self._older or ()), (self._newest_slot, self._newest)] if self._newest else []

    def _begin(self, slot: int) -> None:
        if self._newest:
            if self._older is None:
                self._older = []
            self._older.append((self._newest_slot, self._newest))
        self._newest_slot, self._newest = slot, 0
        if self._older and len(self._older) > SLOTS:
            self.forget_up_to(slot - SLOTS - 1)
