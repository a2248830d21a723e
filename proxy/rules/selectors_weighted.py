"""Choices by odds: random in proportion to a weight, exactly, at a cost that does not grow with the candidates.

Candidates lie in buckets by the power of two above their weight. A draw takes a bucket in proportion to its size times
that power, one of its candidates, and accepts it with the odds weight : power; else it begins anew. What is accepted is
so in proportion to its weight, after two draws on average at most.

Weights are taken anew at each draw, and may fall as time passes: a candidate that is found below its bucket is moved
down. The odds of one that was filed long ago are exact all the same; there are only more draws until all are where they
belong.
"""

from abc import abstractmethod
from bisect import bisect
from collections.abc import Callable
from itertools import accumulate
from math import frexp, ldexp

from proxy.config import KeyPool
from proxy.rules.selectors_base import Buckets, Candidate, Selector

NO_WEIGHT = -2000
"""The bucket of weight 0: two to this power is 0.0 in a float."""


def success_percent(candidate: Candidate) -> float:
    """Returns how many of its requests succeeded, 0 to 100; of one never used 100, so that it is tried."""
    return percent_of(candidate.successes, candidate.requests)


def percent_of(successes: int, requests: int) -> float:
    return 100.0 * successes / requests if 0 <= successes < requests else 100.0


def fresh_percent(last_used_s: float, now_s: float) -> float:
    """Returns 100 less 4 for each hour without a use, never less than 0; of what was never used (0) 100."""
    idle_s = now_s - last_used_s
    if idle_s <= 0.0 or last_used_s <= 0.0:
        return 100.0
    return 100.0 - idle_s / 900.0 if idle_s < 90_000.0 else 0.0


def score(requests: int, successes: int, last_used_s: float, now_s: float) -> float:
    """Returns the weight of `weighted-score`, as reference 001 has it: 0 to 100."""
    used_percent = requests / 10.0 if requests < 1000 else 100.0
    return 0.6 * percent_of(successes, requests) + 0.3 * fresh_percent(last_used_s, now_s) + 0.1 * used_percent


def remaining_percent(candidate: Candidate) -> float:
    """Returns how much of its tokens remains, 0 to 100; where the total is not known 100, so that it is found out."""
    total = candidate.tokens_total
    if total is None:
        return 100.0
    remaining = total - (candidate.tokens_used or 0)
    if remaining <= 0:
        return 0.0
    return 100.0 * remaining / total if remaining < total else 100.0


class Weighted(Selector):
    """In proportion to `weight`; those that have none only where nobody has one, and then any."""

    def __init__(self, settings: KeyPool) -> None:
        super().__init__(settings)
        self._buckets = Buckets()
        self._powers: list[int] = []
        """The buckets' numbers, and up to where each reaches if they are laid end to end. Empty: to be made anew."""
        self._reach: list[float] = []

    @abstractmethod
    def weight(self, candidate: Candidate, now_s: float) -> float:
        """Returns a number not below 0, which never rises as time passes."""

    def add(self, candidate: Candidate) -> None:
        self._file(candidate, self.weight(candidate, candidate.last_used_s))

    def remove(self, candidate: Candidate) -> None:
        self._buckets.discard(candidate)
        self._powers = []

    def changed(self, candidate: Candidate) -> None:
        if candidate in self._buckets:
            self._file(candidate, self.weight(candidate, candidate.last_used_s))

    def choose(self, now_s: float, random01: Callable[[], float], affinity: bytes | None) -> Candidate | None:  # noqa: ARG002 - not all that is there to go by
        by_power = self._buckets.by_number
        while by_power:
            if not self._powers:
                self._lay_end_to_end()
            reach = self._reach
            power = self._powers[bisect(reach, random01() * reach[-1], 0, len(reach) - 1)]
            places = by_power[power]
            point = random01() * len(places)
            index = int(point)
            candidate = places[index].candidate
            if power == NO_WEIGHT:
                return candidate
            weight = self.weight(candidate, now_s)
            # What is behind the point of `point` is as random as a second number would be.
            if ldexp(point - index, power) < weight:
                return candidate
            self._file(candidate, weight)
        return None

    def _lay_end_to_end(self) -> None:
        by_power = self._buckets.by_number
        self._powers = sorted(by_power, reverse=True)
        self._reach = list(accumulate(ldexp(len(by_power[power]), power) for power in self._powers))

    def _file(self, candidate: Candidate, weight: float) -> None:
        if self._buckets.put(candidate, frexp(weight)[1] if weight > 0.0 else NO_WEIGHT):
            self._powers = []

    def __len__(self) -> int:
        return len(self._buckets)

    def __contains__(self, candidate: Candidate) -> bool:
        return candidate in self._buckets


class WeightedScore(Weighted):
    """By success, by how lately it was used, and a little by how often."""

    def weight(self, candidate: Candidate, now_s: float) -> float:
        return score(candidate.requests, candidate.successes, candidate.last_used_s, now_s)


class WeightedUsage(Weighted):
    """By tokens and success. The rule has tokens twice, 0.4 for what remains and 0.3 for what is not used."""

    def weight(self, candidate: Candidate, now_s: float) -> float:  # noqa: ARG002 - holds at any time
        return (0.4 + 0.3) * remaining_percent(candidate) + 0.3 * success_percent(candidate)


class QuotaAware(Weighted):
    """By the share of its tokens that remains."""

    def weight(self, candidate: Candidate, now_s: float) -> float:  # noqa: ARG002 - holds at any time
        return remaining_percent(candidate)
