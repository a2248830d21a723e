"""How a backend of an upstream is chosen: the table of balancers.

| balancer | who is chosen |
| --- | --- |
| ip_hash | the same for the same address; when one of N comes or goes, 1/N of the clients move |
| least_connections | the fewest requests running, of all workers |
| least_connections_weight | the fewest by weight |
| weight | each in turn, in proportion to its weight, evenly interleaved |
| performance_least_connections_weight | the least 0.7 running / weight + 0.3 * 100 util (`util_of`; no report: 0) |
| least_latency | of two random ones the lower latency * (running + 1) / weight |

Where several are equal, any of them is chosen. What others than this worker have running is as old as the last exchange
between workers: a second.
"""

from collections.abc import Callable, Mapping, Sequence

from proxy.config import Balancer
from proxy.rules.balancing_base import Chooser, Member, observe, util_of
from proxy.rules.balancing_hash import IpHash
from proxy.rules.balancing_latency import LeastLatency
from proxy.rules.balancing_least import LeastConnections, LeastConnectionsWeight, Performance
from proxy.rules.balancing_turns import WeightedTurns

__all__ = ["CHOOSERS", "Chooser", "Member", "chooser", "observe", "util_of"]

CHOOSERS: Mapping[Balancer, Callable[[Sequence[Member], Callable[[], float]], Chooser]] = {
    Balancer.IP_HASH: IpHash,
    Balancer.LEAST_CONNECTIONS: LeastConnections,
    Balancer.LEAST_CONNECTIONS_WEIGHT: LeastConnectionsWeight,
    Balancer.WEIGHT: WeightedTurns,
    Balancer.PERFORMANCE: Performance,
    Balancer.LEAST_LATENCY: LeastLatency,
}


def chooser(balancer: Balancer, members: Sequence[Member], random: Callable[[], float]) -> Chooser:
    """Makes a chooser among these members, or those of them that are usable. `random` gives numbers from [0, 1).

    It is made anew where members come or go, or their weights change.
    """
    return CHOOSERS[balancer](members, random)
