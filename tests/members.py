"""Members for tests of balancers, and what is chosen among them."""

import random
from collections import Counter
from collections.abc import Sequence

from proxy.rules.balancing import Chooser, Member

ADDRESS = "203.0.113.7"


def member(
    name: str = "a",
    weight: int = 100,
    running: int = 0,
    elsewhere: int = 0,
    util: float = 0.0,
    latency_s: float = 0.0,
    share: float = 1.0,
) -> Member:
    made = Member(name, weight)
    made.running, made.elsewhere, made.util, made.latency_s, made.share = running, elsewhere, util, latency_s, share
    return made


def many(count: int, seed: int = 1) -> list[Member]:
    """Members that differ in all figures."""
    source = random.Random(seed)
    return [
        member(
            f"backend-{number}",
            weight=source.choice((1, 50, 100, 300)),
            running=source.randrange(10),
            elsewhere=source.randrange(10),
            util=source.random(),
            latency_s=source.uniform(0.001, 2.0),
        )
        for number in range(count)
    ]


def counts(balancer: Chooser, usable: Sequence[Member], choices: int, address: str = ADDRESS) -> list[int]:
    """How often each of the usable is chosen, in their order."""
    found = Counter(balancer.choose(usable, address) for _ in range(choices))
    assert found.keys() <= set(usable), "chosen, and not usable"
    return [found[one] for one in usable]
