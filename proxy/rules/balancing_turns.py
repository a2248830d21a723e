"""Choices in turns: each member in proportion to its weight, as evenly in between as can be.

Smooth weighted round robin, as nginx has it: at each choice every usable member is credited its
weight, who has most is chosen and pays the sum of the weights. Of three with weights 5, 1, 1 that makes a a b a c a a.
Here the sum is 1: credits are counted in choices. In nginx's units a member with a credit of 500 out of 1,001 that is
then left with one of weight 1 is chosen 250 times in a row; so it is no more than one or two choices away from its
share, however the usable members change (10 members with weights of 1 to 1,000: 1.6 at most in 90,000 choices).

A member that is not usable keeps its credit, and is owed nothing for the time.
"""

from collections.abc import Callable, Sequence
from math import inf

from proxy.rules.balancing_base import Member


class WeightedTurns:
    """In turns, by weight. Each worker begins at a place of its own, so that not all send to the same one together."""

    __slots__ = ("_credits",)

    def __init__(self, members: Sequence[Member], random01: Callable[[], float]) -> None:
        self._credits = {member: -random01() for member in members}

    def choose(self, usable: Sequence[Member], address: str) -> Member:  # noqa: ARG002 - one for all clients
        credit_of = self._credits
        weights = 0.0
        for member in usable:
            weights += member.weight * member.share
        part = 1.0 / weights
        chosen, most = usable[0], -inf
        for member in usable:
            credit_of[member] = credit = credit_of[member] + member.weight * member.share * part
            if credit > most:
                chosen, most = member, credit
        credit_of[chosen] = most - 1.0
        return chosen
