"""Figures of keys."""

from admin.rules.key_records import percent, weight_score
from proxy.config import KeyPool
from proxy.rules.credentials import Credential
from proxy.rules.selection import Candidate
from proxy.rules.selectors_weighted import WeightedScore

HOUR_MS = 3_600_000


def test_a_rate_is_in_percent_and_none_of_nothing() -> None:
    assert percent(1, 3) == 33.33
    assert percent(0, 0) == 0.0


def test_the_score_is_the_references() -> None:
    now_ms = 100 * HOUR_MS
    assert weight_score(1000, 1000, now_ms, now_ms) == 0.6 * 100 + 0.3 * 100 + 0.1 * 100
    assert weight_score(10_000, 5000, now_ms - 5 * HOUR_MS, now_ms) == 30 + 0.3 * 80 + 10
    assert weight_score(10, 0, HOUR_MS, now_ms) == 0.1
    assert weight_score(1, 1, now_ms + HOUR_MS, now_ms) == 60 + 30 + 0.01


def test_a_key_that_was_never_used_has_the_score_that_it_is_chosen_by() -> None:
    now_ms = 100 * HOUR_MS
    never = Candidate(Credential("a", "secret"))
    assert weight_score(0, 0, None, now_ms) == WeightedScore(KeyPool()).weight(never, now_ms / 1000) == 90.0
