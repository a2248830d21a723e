"""Candidates for tests of selectors, and how well what was chosen fits the odds."""

from collections.abc import Sequence
from math import sqrt

from proxy.rules.credentials import Credential
from proxy.rules.selection import Candidate

NOW_S = 1_790_000_000.0

ONE_IN_100_000 = 4.26
"""So many standard deviations above the mean lies one of as many normally distributed values."""

COMMON = 5
"""What is expected less often than this is rare: the test does not hold for it alone."""


def candidate(
    name: str = "a",
    requests: int = 0,
    successes: int = 0,
    last_used_s: float = 0.0,
    tokens_used: int | None = None,
    tokens_total: int | None = None,
) -> Candidate:
    return Candidate(
        Credential(
            id=name,
            secret="",
            requests=requests,
            successes=successes,
            last_used_s=last_used_s,
            tokens_used=tokens_used,
            tokens_total=tokens_total,
        )
    )


def fits(counts: Sequence[int], odds: Sequence[float]) -> bool:
    """Whether so many of each are what these odds give: Pearson's chi-square test, wrong once in 100,000 times.

    The bound is Wilson and Hilferty's approximation. Rare ones are taken together; what has no odds must not occur.
    """
    total, all_odds = sum(counts), sum(odds)
    pairs = [(count, total * odd / all_odds) for count, odd in zip(counts, odds, strict=True)]
    if any(count and not expected for count, expected in pairs):
        return False
    rare = [pair for pair in pairs if pair[1] < COMMON]
    cells = [pair for pair in pairs if pair[1] >= COMMON]
    together = sum(expected for _, expected in rare)
    if together >= COMMON:
        cells.append((sum(count for count, _ in rare), together))
    freedom = len(cells) - 1
    bound = freedom * (1 - 2 / (9 * freedom) + ONE_IN_100_000 * sqrt(2 / (9 * freedom))) ** 3
    return sum((count - expected) ** 2 / expected for count, expected in cells) <= bound
