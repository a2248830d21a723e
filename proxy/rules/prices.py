"""What tokens cost, in integers: nano-USD (billionths of a US dollar) for a request, per million tokens for a price.

A price has up to nine decimals in US dollars per million tokens, so it is a whole number of nano-USD per million. Cents
of a cent occur: 0.01875 USD per million is 18.75 nano-USD a token. Only a request's whole cost is rounded, up.
"""

from collections.abc import Mapping
from decimal import Decimal

import msgspec

from proxy.config import ModelPrice, Prices
from proxy.rules.access_tokens import AMOUNT_MAX, Unit
from proxy.rules.usage import Usage

NANO = 1_000_000_000
MILLION = 1_000_000


class Price(msgspec.Struct, frozen=True, gc=False):
    """What tokens of a model cost, in nano-USD per million."""

    input: int
    output: int
    cache_read: int
    cache_write: int
    cache_write_1h: int


class PriceTable:
    """The prices of models, by exact name or by how a name begins. Immutable."""

    __slots__ = ("_by_name", "_by_prefix", "_lengths", "of_untold", "version")

    def __init__(self, version: str, prices: Mapping[str, Price]) -> None:
        """Takes prices by pattern: a name, or `prefix*`."""
        self.version = version
        self._by_name = {name: price for name, price in prices.items() if not name.endswith("*")}
        self._by_prefix = {name[:-1]: price for name, price in prices.items() if name.endswith("*")}
        self.of_untold = prices.get("*") if len(prices) == 1 else None
        """What a model costs whose name cannot be told, so that it may be any: None unless all cost the same."""
        self._lengths = sorted({len(prefix) for prefix in self._by_prefix}, reverse=True)

    def price_of(self, model: str) -> Price | None:
        """Returns the price of a model: of its very name, else of the longest prefix; None if there is none."""
        price = self._by_name.get(model)
        if price is not None:
            return price
        return next((self._by_prefix[model[:n]] for n in self._lengths if model[:n] in self._by_prefix), None)


def table(prices: Prices) -> PriceTable:
    """Returns the prices of a configuration in the form that requests use."""
    return PriceTable(prices.version, {name: compiled(price) for name, price in prices.models.items()})


def compiled(price: ModelPrice) -> Price:
    """Returns a price in nano-USD per million. What caches cost is what input does, where it is not said; what an
    hour of one does, what others do."""
    plain = nano_usd(price.input)
    write = plain if price.cache_write is None else nano_usd(price.cache_write)
    return Price(
        plain,
        nano_usd(price.output),
        plain if price.cache_read is None else nano_usd(price.cache_read),
        write,
        write if price.cache_write_1h is None else nano_usd(price.cache_write_1h),
    )


def nano_usd(usd: float) -> int:
    """Returns an amount of dollars, of nine decimals at most, in nano-USD: of the decimal number that was written."""
    return int(Decimal(repr(usd)) * NANO)


def cost(usage: Usage, price: Price | None) -> int | None:
    """Returns what a usage costs in nano-USD, rounded up; None where there is no price."""
    if price is None:
        return None
    parts = (
        usage.input * price.input,
        usage.output * price.output,
        usage.cache_read * price.cache_read,
        usage.cache_write * price.cache_write,
        usage.cache_write_1h * price.cache_write_1h,
    )
    return min(-(-sum(parts) // MILLION), AMOUNT_MAX)


def amount(unit: Unit, usage: Usage, price: Price | None) -> int | None:
    """Returns what a request takes of a quota, by what it is expected to use, or has used.

    None where the quota counts money and the model has no price.
    """
    if unit is Unit.REQUESTS:
        return 1
    if unit is Unit.TOKENS:
        return min(usage.total, AMOUNT_MAX)
    return cost(usage, price)
