"""What all balancers have in common: a backend as they see it, and what they are asked.

A member belongs to whoever hands requests out, who keeps its figures and flags. A balancer reads them; the one that
goes by latency also notes when it tried a member. Several balancers may choose among the same members (one for each
protocol, one for each route), so what one of them remembers of its own turns lies in it and not in the member.
"""

from collections.abc import Sequence
from math import exp, inf
from typing import Protocol

DEFAULT_WEIGHT = 100
LATENCY_TIME_CONSTANT_S = 10.0
"""After so long without news, what is known of a latency counts for a third (1/e) of what it did."""
LATENCY_MIN_S = 1e-6
"""A latency that is known is no less than this, since 0 says that it is not known."""


class Member:
    """One backend as one worker sees it. Equal to nothing but itself.

    `running` are the requests that it has from this worker, `elsewhere` those from all others, as last told, and
    `sharers` how many workers have any, this one included; `connections_max` bounds the sum where it is more than 0,
    and `most` what this worker may give it. `util` is how busy it says that it is, 0 to 1. `latency_s` is how long it
    takes to a response head, averaged by `observe`; 0 is not known. `latency_at_s` is when it was last observed,
    `latency_tried_s` when it was last observed or tried for want of news. `share` multiplies the weight: less than 1,
    and more than 0, while it slowly starts. `failures` in a row are counted by `Ejections`. `usable` says that it may
    get a request now.
    """

    __slots__ = (
        "connections_max",
        "elsewhere",
        "failures",
        "id",
        "latency_at_s",
        "latency_s",
        "latency_tried_s",
        "most",
        "priority",
        "running",
        "share",
        "sharers",
        "usable",
        "util",
        "weight",
    )

    def __init__(self, id: str, weight: int = DEFAULT_WEIGHT, connections_max: int = 0, priority: int = 0) -> None:  # noqa: A002 - as the settings spell it
        self.id = id
        self.weight = weight
        self.priority = priority
        self.running = 0
        self.elsewhere = 0
        self.sharers = 1
        self.util = 0.0
        self.latency_s = 0.0
        self.latency_at_s = 0.0
        self.latency_tried_s = 0.0
        self.share = 1.0
        self.failures = 0
        self.usable = True
        self.use_cap(connections_max)

    @property
    def full(self) -> bool:
        """Whether it has as many requests as this worker may give it."""
        return self.running >= self.most

    def use_cap(self, connections_max: int) -> None:
        """Takes how many requests it may have of all workers; 0 or less: any number."""
        self.connections_max = connections_max
        self.use_elsewhere(self.elsewhere, self.sharers)

    def use_elsewhere(self, running: int, sharers: int) -> None:
        """Takes how many requests it has from other workers, and how many workers have any, this one included.

        This worker may give it what the others leave. Where all together have more than they may, nobody takes more,
        and whoever has more than its even share goes down to that. One request each worker may have in any case:
        otherwise those who came first would keep a cap for themselves, however many wait elsewhere.
        """
        self.elsewhere, self.sharers = running, sharers
        if self.connections_max <= 0:
            self.most: float = inf
        elif self.running + running > self.connections_max:
            self.most = max(min(self.running, self.connections_max // sharers), 1)
        else:
            self.most = max(self.connections_max - running, 1)

    def __repr__(self) -> str:
        return f"Member({self.id!r})"


class Chooser(Protocol):
    """A balancer over a fixed set of members."""

    def choose(self, usable: Sequence[Member], address: str, /) -> Member:
        """Returns one of `usable`: never empty, in the order of the members, each with its `usable` set, and no others.

        `address` is that of the client.
        """


def observe(member: Member, latency_s: float, now_s: float) -> None:
    """Takes how long a member took to a response head, in seconds, into its average.

    The average is exponential in time and not in the number of requests: what came within the last 10 s weighs 63 %,
    whether that was one request or a thousand. A first latency is taken as it is. `now_s` never goes back.
    """
    if latency_s < LATENCY_MIN_S:
        latency_s = LATENCY_MIN_S
    if member.latency_s:
        kept = exp((member.latency_at_s - now_s) / LATENCY_TIME_CONSTANT_S)
        latency_s = member.latency_s * kept + latency_s * (1.0 - kept)
    member.latency_s = latency_s
    member.latency_at_s = member.latency_tried_s = now_s


def util_of(cpu_usage: float, memory_usage: float, load_avg_1: float) -> float:
    """Returns how busy a backend is, 0 to 1, by its report: two figures in per cent, and its load average of a minute.

    As reference 004 has it: 0.4 cpu + 0.4 memory + 0.2 load, cpu and memory as fractions. A figure below 0 is taken
    for 0.
    """
    cpu, memory = max(cpu_usage, 0.0) / 100, max(memory_usage, 0.0) / 100
    return min(0.4 * cpu + 0.4 * memory + 0.2 * max(load_avg_1, 0.0), 1.0)
