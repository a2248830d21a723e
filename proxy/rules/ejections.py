"""When a worker leaves a backend alone that keeps failing for its own requests, and how it comes back.

The laws:
- Only failures in a row eject; any success ends the row. An ejection does not: where no success came since, the first
  failure after it ejects again.
- Every ejection ends. It lasts `ejection_s`, and twice as long each time in a row, up to `ejection_max_s`. The row of
  them ends where a member succeeds, and has not failed for `ejection_s` since it came back.
- Only news counts. A failure of a request that began before the last ejection ended says nothing that is not known.
- No more than a share of all members is ejected at once: `share_max` of them, rounded down, but one at least where
  there are two. One that fails while no more may be ejected is so at its next failure after another came back.

Time is an argument, in seconds of a clock that never goes back. What a failure or a success costs does not grow with
the members.
"""

from collections.abc import Collection
from math import floor, inf

from proxy.config import Ejection
from proxy.rules.balancing_base import Member

DOUBLINGS_MAX = 60
"""Beyond, an ejection is as long as it can be anyway; and a float overflows much later."""
SHARE_AT_FIRST = 0.1


class _Row:
    """The ejections of one member in a row."""

    __slots__ = ("back_s", "count", "failed_s")

    def __init__(self) -> None:
        self.count = 0
        self.back_s = -inf
        """When it last came back."""
        self.failed_s = -inf
        """When it last failed."""


class Ejections:
    """The ejections of one upstream's members in one worker. It counts failures in the members themselves.

    It has no members, and ejects none, until `use` tells them. `next_due_s` is when the next one comes back, infinite
    where none is ejected.
    """

    __slots__ = ("_ejected", "_members", "_rows", "_settings", "next_due_s")

    def __init__(self, settings: Ejection) -> None:
        self._settings = settings
        self._members: frozenset[Member] = frozenset()
        self._ejected: dict[Member, float] = {}
        """Until when."""
        self._rows: dict[Member, _Row] = {}
        """Of those that have been ejected."""
        self.next_due_s = inf

    def use(self, settings: Ejection, members: Collection[Member]) -> None:
        """Takes these settings, and that these are all members.

        An ejection that has begun lasts as long as it was to. Where fewer may be ejected than are, those that would
        come back first are no longer.
        """
        self._settings, self._members = settings, frozenset(members)
        self._rows = {member: row for member, row in self._rows.items() if member in self._members}
        staying = sorted(self._ejected.keys() & self._members, key=self._ejected.__getitem__)
        excess = max(len(staying) - self._ejected_max(), 0)
        self._ejected = {member: self._ejected[member] for member in staying[excess:]}
        self._find_next_due()

    def failed(self, member: Member, now_s: float, began_s: float = inf) -> bool:
        """Takes that a request failed for its member's sake; tells whether the member is ejected for that.

        `began_s` is when the request began, where that may have been before an ejection.
        """
        row = self._rows.get(member)
        if member in self._ejected or (row is not None and began_s < row.back_s):
            return False
        if row is not None:
            if not member.failures and now_s - max(row.back_s, row.failed_s) >= self._settings.ejection_s:
                row.count = 0
            row.failed_s = now_s
        member.failures += 1
        failures = self._settings.failures
        if failures is None or member.failures < failures or len(self._ejected) >= self._ejected_max():
            return False
        self._eject(member, now_s)
        return True

    def succeeded(self, member: Member) -> None:
        """Takes that a member answered well; needs to be told only where it has `failures`."""
        member.failures = 0

    def is_ejected(self, member: Member) -> bool:
        """Tells whether a member is to be left alone. One whose time has come is until `due` has named it."""
        return member in self._ejected

    def due(self, now_s: float) -> list[Member]:
        """Returns those whose ejection has ended, and ends it."""
        if now_s < self.next_due_s:
            return []
        back = [member for member, until_s in self._ejected.items() if until_s <= now_s]
        for member in back:
            del self._ejected[member]
            self._rows[member].back_s = now_s
        self._find_next_due()
        return back

    def lift(self, member: Member, now_s: float) -> None:
        """Ends an ejection, if there is one: somebody else knows that the member is well."""
        if self._ejected.pop(member, None) is not None:
            self._rows[member].back_s = now_s
            member.failures = 0
            self._find_next_due()

    def _eject(self, member: Member, now_s: float) -> None:
        row = self._rows.setdefault(member, _Row())
        length_s = self._settings.ejection_s * 2.0 ** min(row.count, DOUBLINGS_MAX)
        row.count += 1
        row.failed_s = now_s
        self._ejected[member] = now_s + min(length_s, max(self._settings.ejection_max_s, self._settings.ejection_s))
        self._find_next_due()

    def _ejected_max(self) -> int:
        if self._settings.failures is None:
            return 0
        return ejected_max(self._settings.share_max, len(self._members))

    def _find_next_due(self) -> None:
        self.next_due_s = min(self._ejected.values(), default=inf)


def ejected_max(share_max: float, members: int) -> int:
    """Returns how many of so many members may be ejected at once."""
    # 0.29 * 100 is 28.999999999999996.
    share = floor(share_max * members + 1e-9)
    return max(share, 1) if share_max and members > 1 else share


def slow_start_share(since_s: float, now_s: float, slow_start_s: float) -> float:
    """Returns the share of its weight that a member has which came back at `since_s`: from a tenth, steadily, to 1."""
    gone_s = max(now_s - since_s, 0.0)
    if gone_s >= slow_start_s:
        return 1.0
    return SHARE_AT_FIRST + (1.0 - SHARE_AT_FIRST) * gone_s / slow_start_s
