"""Choices of the member with the least load, any of them where several have it.

Each looks at all usable members once. Where the next of equals is found, it takes the place of the one before with odds
1 : number of them, which gives all the same odds without a list. Three loops are written out, because a call for each
member would cost more than all that is done for it.
"""

from collections.abc import Callable, Sequence
from math import inf

from proxy.rules.balancing_base import Member


class LeastConnections:
    """The fewest requests running. While a member slowly starts, each of its own counts as 1 / share."""

    __slots__ = ("_random01",)

    def __init__(self, members: Sequence[Member], random01: Callable[[], float]) -> None:  # noqa: ARG002 - no state
        self._random01 = random01

    def choose(self, usable: Sequence[Member], address: str) -> Member:  # noqa: ARG002 - one for all clients
        chosen, least, equals = usable[0], inf, 1
        for member in usable:
            load = (member.running + member.elsewhere) / member.share
            if load < least:
                chosen, least, equals = member, load, 1
            elif load == least:
                equals += 1
                if self._random01() * equals < 1.0:
                    chosen = member
        return chosen


class LeastConnectionsWeight:
    """The fewest requests running by weight."""

    __slots__ = ("_random01",)

    def __init__(self, members: Sequence[Member], random01: Callable[[], float]) -> None:  # noqa: ARG002 - no state
        self._random01 = random01

    def choose(self, usable: Sequence[Member], address: str) -> Member:  # noqa: ARG002 - one for all clients
        chosen, least, equals = usable[0], inf, 1
        for member in usable:
            load = (member.running + member.elsewhere) / (member.weight * member.share)
            if load < least:
                chosen, least, equals = member, load, 1
            elif load == least:
                equals += 1
                if self._random01() * equals < 1.0:
                    chosen = member
        return chosen


class Performance:
    """The least of what reference 004 makes of requests running by weight, and of how busy members say they are.

    0.7 active / weight + 0.3 * 100 util. With the usual weight of 100, a member that is 1 % busier gets 43 requests
    fewer.
    """

    __slots__ = ("_random01",)

    def __init__(self, members: Sequence[Member], random01: Callable[[], float]) -> None:  # noqa: ARG002 - no state
        self._random01 = random01

    def choose(self, usable: Sequence[Member], address: str) -> Member:  # noqa: ARG002 - one for all clients
        chosen, least, equals = usable[0], inf, 1
        for member in usable:
            # Divided first: 3 / 300 and 1 / 100 round to the same, but 0.7 * 3 / 300 is less than 0.7 * 1 / 100.
            active = (member.running + member.elsewhere) / (member.weight * member.share)
            load = 0.7 * active + 30.0 * member.util
            if load < least:
                chosen, least, equals = member, load, 1
            elif load == least:
                equals += 1
                if self._random01() * equals < 1.0:
                    chosen = member
        return chosen
