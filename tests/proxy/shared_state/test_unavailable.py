"""The error of a store that cannot be asked."""

from proxy.shared_state import breaker
from proxy.shared_state.unavailable import StoreUnavailable


def test_it_says_why_in_one_word() -> None:
    assert (StoreUnavailable("open").reason, str(StoreUnavailable("open"))) == ("open", "open")
    assert breaker.StoreUnavailable is StoreUnavailable
