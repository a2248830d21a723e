"""How a credential is chosen among those of a tier: the table of algorithms.

A caller keeps one `Selector` for each tier, and for each model where that makes a difference. It takes out who is
banned and adds who may be used again, sets the figures of a `Candidate` after each use, and then calls `changed`. No
choice costs more where there are more candidates.

| algorithm | who is chosen | where figures are missing |
| --- | --- | --- |
| round-robin | the next in order, each once a round | |
| random | any | |
| least-used | the least requests | |
| weighted-score | odds 0.6 success % + 0.3 (100 - 4 hours idle) + 0.1 requests / 10 | never used: 100 %, 0 hours |
| least-token-used | the least tokens used | none used |
| max-remaining | the most tokens remaining | after all with some left, before all with none |
| weighted-usage | odds 0.4 remaining % + 0.3 (100 - used %) + 0.3 success % | remaining 100 %, success 100 % |
| quota-aware | odds remaining % | 100 % |
| time-window | the fewest uses within the last `window_s`, to a tenth of it | none used |
| cache-affinity | the same for the same key while it is there | no key: round-robin |

Each part of the odds is 0 at least and 100 at most, before it is weighed. Where several are equal, any of them is
chosen. Where all odds are 0, any is; otherwise never one whose odds are 0.
"""

from collections.abc import Mapping

from proxy.config import Algorithm, KeyPool
from proxy.rules.selectors_affinity import CacheAffinity
from proxy.rules.selectors_base import Candidate, Selector
from proxy.rules.selectors_least import LeastTokenUsed, LeastUsed, MaxRemaining
from proxy.rules.selectors_order import Random, RoundRobin
from proxy.rules.selectors_weighted import QuotaAware, WeightedScore, WeightedUsage
from proxy.rules.selectors_window import TimeWindow

__all__ = ["SELECTORS", "Candidate", "Selector", "selector"]

SELECTORS: Mapping[Algorithm, type[Selector]] = {
    Algorithm.ROUND_ROBIN: RoundRobin,
    Algorithm.RANDOM: Random,
    Algorithm.LEAST_USED: LeastUsed,
    Algorithm.WEIGHTED_SCORE: WeightedScore,
    Algorithm.LEAST_TOKEN_USED: LeastTokenUsed,
    Algorithm.MAX_REMAINING: MaxRemaining,
    Algorithm.WEIGHTED_USAGE: WeightedUsage,
    Algorithm.QUOTA_AWARE: QuotaAware,
    Algorithm.TIME_WINDOW: TimeWindow,
    Algorithm.CACHE_AFFINITY: CacheAffinity,
}


def selector(settings: KeyPool) -> Selector:
    """Makes an empty selector of the algorithm that the settings name."""
    return SELECTORS[settings.algorithm](settings)
