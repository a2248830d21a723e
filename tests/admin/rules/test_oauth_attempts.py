"""Pauses grow, end, and hold of what was tried only."""

from admin.rules.oauth import Refusal
from admin.rules.oauth_attempts import Attempts

NOW_MS = 1_763_700_000_000
LATER = Refusal("HTTP 500")
NEVER = Refusal("invalid_client", is_final=True)
TOKENS = ("rt-1", None)


def pauses(*refusals: Refusal) -> list[int]:
    attempts = Attempts()
    found = []
    for refusal in refusals:
        attempts.failed(TOKENS, refusal, NOW_MS)
        found.append((attempts.next_ms - NOW_MS) // 1000)
    return found


def test_pauses_double_up_to_five_minutes() -> None:
    assert pauses(*[LATER] * 9) == [5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_what_will_not_change_is_asked_once_an_hour() -> None:
    assert pauses(LATER, LATER, NEVER, NEVER, LATER, LATER) == [5, 10, 3600, 3600, 5, 10]


def test_a_pause_holds_of_the_tokens_that_were_tried() -> None:
    attempts = Attempts()
    assert attempts.may(TOKENS, NOW_MS)
    attempts.failed(TOKENS, LATER, NOW_MS)
    assert not attempts.may(TOKENS, NOW_MS)
    assert not attempts.may(TOKENS, NOW_MS + 4_999)
    assert attempts.may(TOKENS, NOW_MS + 5_000)
    assert attempts.may(("rt-1", "rt-2"), NOW_MS)
    attempts.failed(("rt-2", None), LATER, NOW_MS)
    assert attempts.next_ms == NOW_MS + 5_000


def test_a_clock_that_was_set_back_does_not_stop_it() -> None:
    attempts = Attempts()
    attempts.failed(TOKENS, NEVER, NOW_MS)
    assert attempts.may(TOKENS, NOW_MS - 1)
