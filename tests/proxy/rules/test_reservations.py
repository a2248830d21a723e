"""What is taken of a quota before a request, and what after it."""

import pytest

from proxy.rules.access_tokens import Unit
from proxy.rules.prices import Price
from proxy.rules.reservations import Reservation
from proxy.rules.usage import Basis, Usage, Used

PRICE = Price(1_000_000_000, 2_000_000_000, 0, 0, 0)
EXPECTED = Usage(input=10, output=100)
READ = Used(Usage(input=8, output=3), Basis.EXACT)


def test_tokens() -> None:
    reservation = Reservation(Unit.TOKENS, None, EXPECTED)
    assert reservation.cost == 110
    assert reservation.settled(200, READ) == (11, "exact")


def test_money() -> None:
    reservation = Reservation(Unit.NANO_USD, PRICE, EXPECTED)
    assert reservation.cost == 210_000
    assert reservation.settled(200, READ) == (14_000, "exact")


def test_without_a_price_there_is_no_cost() -> None:
    assert Reservation(Unit.NANO_USD, None, EXPECTED).cost is None


@pytest.mark.parametrize("used", [None, READ])
@pytest.mark.parametrize("status", [400, 429, 500, 502])
def test_an_error_costs_nothing(status: int, used: Used | None) -> None:
    assert Reservation(Unit.TOKENS, None, EXPECTED).settled(status, used) == (0, "")


@pytest.mark.parametrize("status", [0, 101, 200])
def test_what_cannot_be_read_costs_what_was_expected(status: int) -> None:
    assert Reservation(Unit.TOKENS, None, EXPECTED).settled(status, None) == (110, "unknown")


def test_more_than_expected_is_taken_too() -> None:
    used = Used(Usage(output=500), Basis.ESTIMATED)
    assert Reservation(Unit.TOKENS, None, EXPECTED).settled(200, used) == (500, "estimated")
