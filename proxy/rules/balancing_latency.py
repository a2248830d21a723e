"""The choice of the faster of two random members.

Two choices (Mitzenmacher, 2001), and an average latency times the requests running, as Finagle and linkerd do. To go
for the fastest of all would send the requests of all workers there until it is not.

The laws:
- A member that is never chosen is never observed either. So what is known of one that had no news for longer than the
  other fades, down to a third in 10 s, until it is tried.
- A trial is one request: the latency then counts in full again until there is news, or it has faded anew. So one
  that takes ten times as long as the others is tried every 23 s, and one that hangs has few requests waiting.
- One of which nothing is known is tried by one request. Until that has told, it is taken to be as fast as the other.
"""

from collections.abc import Callable, Sequence
from math import exp

from proxy.rules.balancing_base import LATENCY_TIME_CONSTANT_S, Member


class LeastLatency:
    """The lower latency times (active + 1) / weight, of two that are drawn at random."""

    __slots__ = ("_random01",)

    def __init__(self, members: Sequence[Member], random01: Callable[[], float]) -> None:  # noqa: ARG002 - no state
        self._random01 = random01

    def choose(self, usable: Sequence[Member], address: str) -> Member:  # noqa: ARG002 - one for all clients
        count = len(usable)
        if count == 1:
            return usable[0]
        index = int(self._random01() * count)
        other_index = int(self._random01() * (count - 1))
        if other_index >= index:
            other_index += 1
        one, other = usable[index], usable[other_index]
        if not one.latency_s or not other.latency_s:
            return first_tried(one, other)
        older_s = other.latency_tried_s - one.latency_tried_s
        if older_s < 0.0:
            one, other, older_s = other, one, -older_s
        # `one` is that of the older news.
        if one.latency_s * exp(-older_s / LATENCY_TIME_CONSTANT_S) * load(one) > other.latency_s * load(other):
            return other
        one.latency_tried_s = other.latency_tried_s
        return one


def load(member: Member) -> float:
    """Returns the requests that it would have with one more, by weight."""
    return (member.running + member.elsewhere + 1) / (member.weight * member.share)


def first_tried(one: Member, other: Member) -> Member:
    """Returns one of two of which at least one has no latency yet."""
    for member in (one, other):
        if not member.latency_s and not member.running:
            return member
    return other if load(other) < load(one) else one
