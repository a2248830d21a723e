"""Which outcomes are errors. Pure."""

from proxy.statistics import CLIENT_LEFT, RouteCounts

GOOD = frozenset({"1xx", "2xx", "3xx", CLIENT_LEFT})
"""What counts as served: an upstream that answered so, and a client that did not wait for the end."""


def requests(row: RouteCounts) -> int:
    return sum(counts.requests for counts in row.outcomes.values())


def errors(row: RouteCounts) -> int:
    """How many requests ended otherwise than well: with 4xx or 5xx, or with the word of a cause."""
    return sum(counts.requests for outcome, counts in row.outcomes.items() if outcome not in GOOD)


def percent(part: int, whole: int) -> float:
    """To two decimals; 0 of nothing."""
    return round(100 * part / whole, 2) if whole else 0.0
