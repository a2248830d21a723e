"""Words before statuses, and only where a provider has put them."""

from proxy.dialects.by_status import from_words
from proxy.dialects.error_bodies import Told
from proxy.rules.credentials import Says

WORDS = {"code": Says.DEAD, "type": Says.FORBIDDEN}
BEGINNINGS = (("no money", Says.OUT_OF_QUOTA),)


def test_a_message_counts_by_how_it_begins_then_the_narrowest_word() -> None:
    assert from_words(Told(("code", "type"), "No money left"), BEGINNINGS, WORDS) is Says.OUT_OF_QUOTA
    assert from_words(Told(("code", "type"), "There is no money"), BEGINNINGS, WORDS) is Says.DEAD
    assert from_words(Told(("other", "type"), ""), BEGINNINGS, WORDS) is Says.FORBIDDEN
    assert from_words(Told(), BEGINNINGS, WORDS) is None
