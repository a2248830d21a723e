"""Money to the billionth: what is written is what is counted, and only a request's whole cost is rounded."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import ModelPrice, Prices
from proxy.rules.access_tokens import AMOUNT_MAX, Unit
from proxy.rules.prices import Price, PriceTable, amount, compiled, cost, nano_usd, table
from proxy.rules.usage import Usage
from proxy.sources import values

FOUR_O = ModelPrice(input=2.5, output=10, cache_read=1.25)
counts = st.integers(0, 10**7)
figures = st.integers(0, 10**12)


def test_a_price_is_in_nano_usd_per_million_tokens() -> None:
    assert compiled(FOUR_O) == Price(*(1_000_000 * cents for cents in (2_500, 10_000, 1_250, 2_500, 2_500)))
    assert compiled(ModelPrice(input=0.01875, output=0, cache_read=0, cache_write=1e-9)) == Price(
        18_750_000, 0, 0, 1, 1
    )
    an_hour = ModelPrice(input=3, output=15, cache_read=0.3, cache_write=3.75, cache_write_1h=6)
    assert compiled(an_hour).cache_write_1h == 6_000_000_000


@pytest.mark.parametrize("text", ["0.1", "0.3", "0.07", "1.1", "2.675", "0.000000001", "99999.999999999", "1e-7", "15"])
def test_a_decimal_number_is_taken_as_it_was_written(text: str) -> None:
    assert nano_usd(float(text)) == Decimal(text) * 10**9


@given(st.integers(0, 10**14))
def test_each_price_that_is_allowed_is_exact(nano: int) -> None:
    usd = values.price(float(Decimal(nano) / 10**9))
    assert nano_usd(usd) == nano


@pytest.mark.parametrize(
    ("usage", "nano"),
    [
        (Usage(), 0),
        (Usage(1000), 2_500_000),
        (Usage(0, 1000), 10_000_000),
        (Usage(0, 0, 1000), 1_250_000),
        (Usage(0, 0, 0, 1000), 2_500_000),
        (Usage(0, 0, 0, 0, 1000), 2_500_000),
        (Usage(78, 651, 1408), 8_465_000),
    ],
)
def test_each_kind_of_tokens_has_its_price(usage: Usage, nano: int) -> None:
    assert cost(usage, compiled(FOUR_O)) == nano


def test_a_cost_is_rounded_up_and_once() -> None:
    price = compiled(ModelPrice(input=0.0004, output=0.0004))
    assert cost(Usage(1, 0), price) == 1
    assert cost(Usage(1, 1), price) == 1
    assert cost(Usage(5, 5), price) == 4


@given(st.builds(Usage, *[counts] * 5), st.builds(Price, *[figures] * 5))
def test_a_cost_is_the_exact_one_rounded_up(usage: Usage, price: Price) -> None:
    pairs = (
        (usage.input, price.input),
        (usage.output, price.output),
        (usage.cache_read, price.cache_read),
        (usage.cache_write, price.cache_write),
        (usage.cache_write_1h, price.cache_write_1h),
    )
    exact = sum(Fraction(tokens * nano, 1_000_000) for tokens, nano in pairs)
    found = cost(usage, price)
    assert found is not None
    assert found == min(AMOUNT_MAX, -(-exact.numerator // exact.denominator))


def test_the_very_name_goes_before_the_longest_beginning() -> None:
    one, two, three, four = (Price(n, n, n, n, n) for n in range(1, 5))
    prices = PriceTable("v", {"*": one, "gpt-4o*": two, "gpt-4o-mini*": three, "gpt-4o-mini": four})
    assert prices.version == "v"
    assert prices.price_of("gpt-4o-mini") is four
    assert prices.price_of("gpt-4o-mini-2024-07-18") is three
    assert prices.price_of("gpt-4o") is two
    assert prices.price_of("gpt-4") is one
    assert prices.price_of("") is one


def test_a_model_that_is_not_in_the_list_has_no_price() -> None:
    prices = table(Prices(models={"gpt-4o*": FOUR_O, "o1": FOUR_O}))
    assert prices.price_of("gpt-4o-2024-08-06") == compiled(FOUR_O)
    for model in ("", "gpt-4", "GPT-4o", "o1-mini", "x-gpt-4o"):
        assert prices.price_of(model) is None
    assert table(Prices()).price_of("gpt-4o") is None


def test_the_amount_is_in_the_unit_of_the_quota() -> None:
    usage, price = Usage(1, 20, 300, 4000), compiled(FOUR_O)
    assert amount(Unit.REQUESTS, usage, price) == 1
    assert amount(Unit.TOKENS, usage, None) == 4321
    assert amount(Unit.NANO_USD, usage, price) == cost(usage, price) == 10_577_500
    assert amount(Unit.NANO_USD, usage, None) is None


def test_no_amount_is_beyond_what_redis_can_count() -> None:
    usage = Usage(AMOUNT_MAX, AMOUNT_MAX)
    assert amount(Unit.TOKENS, usage, None) == AMOUNT_MAX
    assert amount(Unit.NANO_USD, usage, compiled(FOUR_O)) == AMOUNT_MAX
