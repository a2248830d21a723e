"""What a request takes of a quota that counts tokens or money: first as much as it may use, then what it has used."""

from typing import NamedTuple

from proxy.rules.access_tokens import Unit
from proxy.rules.prices import Price, amount
from proxy.rules.usage import Basis, Usage, Used


class Reservation(NamedTuple):
    """What a request is expected to use, in a unit, at a price (of money alone)."""

    unit: Unit
    price: Price | None
    usage: Usage

    @property
    def cost(self) -> int | None:
        """What is taken at admission; None where money is counted and there is no price."""
        return amount(self.unit, self.usage, self.price)

    def settled(self, status: int, used: Used | None) -> tuple[int, str]:
        """Returns what is taken in the end, and what that rests on (nothing: there is nothing to rest on).

        `used` is what was read beside an answer with this status; None where nothing could be read. Of an error,
        providers charge nothing.
        """
        if status >= 400:
            return 0, ""
        usage, basis = used or Used(self.usage, Basis.UNKNOWN)
        return amount(self.unit, usage, self.price) or 0, basis.value
