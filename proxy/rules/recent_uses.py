"""How often a credential was used lately, for all time-window selectors that it is in.

Time is cut into slots, SLOTS to a window. A credential has SLOTS + 1 of them at most, also where nobody forgets any.
"""

SLOTS = 10


class RecentUses:
    """The uses of one credential in slots of `slot_s` seconds, counted by its `requests`.

    `slots` holds a slot's number and the uses in it, oldest first; `count` is their sum. `requests` is up to where they
    have been counted: so any number of selectors may have them counted, and each use counts once.
    """

    __slots__ = ("count", "requests", "slot_s", "slots")

    def __init__(self, slot_s: float, requests: int) -> None:
        self.slot_s = slot_s
        self.requests = requests
        self.slots: list[tuple[int, int]] = []
        self.count = 0

    def count_up_to(self, requests: int, at_s: float) -> None:
        """Counts what came since the last call as used at `at_s`, or in the newest slot if that is later."""
        uses = requests - self.requests
        self.requests = requests
        if uses <= 0:
            return
        self.count += uses
        slot = int(at_s // self.slot_s)
        if self.slots and self.slots[-1][0] >= slot:
            slot, before = self.slots.pop()
            uses += before
        self.slots.append((slot, uses))
        if len(self.slots) > SLOTS + 1:
            self.forget_up_to(slot - SLOTS - 1)

    def forget_up_to(self, slot: int) -> None:
        """Forgets the uses in this slot and older ones."""
        slots = self.slots
        while slots and slots[0][0] <= slot:
            self.count -= slots.pop(0)[1]
