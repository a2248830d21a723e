"""What counts as an error."""

import pytest

from admin.rules import outcomes
from proxy.statistics import CLIENT_LEFT, STATUS_CLASSES, Counts, RouteCounts


@pytest.mark.parametrize("outcome", ["1xx", "2xx", "3xx", CLIENT_LEFT])
def test_what_was_served_is_no_error(outcome: str) -> None:
    row = RouteCounts("/a", "", {outcome: Counts(3)})
    assert (outcomes.requests(row), outcomes.errors(row)) == (3, 0)


@pytest.mark.parametrize("outcome", [*sorted(set(STATUS_CLASSES) - {"1xx", "2xx", "3xx"}), "closed", "no_route"])
def test_all_else_is(outcome: str) -> None:
    row = RouteCounts("/a", "", {outcome: Counts(3), "2xx": Counts(4)})
    assert (outcomes.requests(row), outcomes.errors(row)) == (7, 3)


def test_a_rate_has_two_decimals() -> None:
    assert [outcomes.percent(*pair) for pair in ((0, 0), (1, 3), (2, 3), (3, 3))] == [0.0, 33.33, 66.67, 100.0]
