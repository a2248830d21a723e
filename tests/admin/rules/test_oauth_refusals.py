"""An access token that is refused is replaced soon, but not again and again."""

import itertools
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from admin.rules.oauth import REFRESH_AT_AGE_MS, State
from admin.rules.oauth_refusals import FIRST_PAUSE_MS, PAUSE_MS_MAX, Refusals

NOW_MS = 1_763_700_000_000
HOUR_MS = 3_600_000
OLD = State("rt-1", "at-1", NOW_MS + HOUR_MS, NOW_MS - HOUR_MS, "chain")


def renewed(state: State, now_ms: int) -> State:
    return replace(state, access_token=f"at-{now_ms}", refreshed_at_ms=now_ms, expires_at_ms=now_ms + 8 * HOUR_MS)


def test_what_was_refused_before_is_not_news() -> None:
    refusals = Refusals()
    assert not refusals.hold_of(OLD)
    refusals.note(OLD, 7, NOW_MS)
    refusals.note(OLD, 7, NOW_MS)
    assert not refusals.hold_of(OLD)
    refusals.note(OLD, 8, NOW_MS)
    assert refusals.hold_of(OLD)
    refusals.note(OLD, 8, NOW_MS + 1)
    assert refusals.hold_of(OLD), "until there is another one"


def test_it_holds_of_the_token_that_was_refused() -> None:
    refusals = Refusals()
    refusals.note(OLD, 0, NOW_MS)
    refusals.note(OLD, 1, NOW_MS)
    new = renewed(OLD, NOW_MS)
    assert not refusals.hold_of(new), "another control plane was faster"
    refusals.note(new, 1, NOW_MS)
    assert not refusals.hold_of(new)
    assert not refusals.hold_of(OLD)


def test_what_is_told_within_a_minute_may_be_of_the_last_one() -> None:
    refusals = Refusals()
    refusals.note(OLD, 0, NOW_MS)
    new = renewed(OLD, NOW_MS)
    refusals.note(new, 1, NOW_MS)
    refusals.note(new, 5, NOW_MS + FIRST_PAUSE_MS - 1)
    refusals.note(new, 5, NOW_MS + 10 * FIRST_PAUSE_MS)
    assert not refusals.hold_of(new)
    refusals.note(new, 6, NOW_MS + 10 * FIRST_PAUSE_MS)
    assert refusals.hold_of(new)


def test_counts_that_began_anew_are_no_refusals() -> None:
    refusals = Refusals()
    refusals.note(OLD, 9, NOW_MS)
    refusals.note(OLD, 0, NOW_MS)
    assert not refusals.hold_of(OLD)


def replacements_ms(hours: float, look_ms: int) -> list[int]:
    """When a token is replaced where each of them is refused all the time."""
    refusals, state, found = Refusals(), OLD, []
    for count, now_ms in enumerate(range(NOW_MS, NOW_MS + int(hours * HOUR_MS), look_ms)):
        refusals.note(state, count, now_ms)
        if refusals.hold_of(state):
            state = renewed(state, now_ms)
            found.append(now_ms)
    return found


@given(st.integers(3, 12), st.integers(3_000, 30_000))
def test_where_no_token_helps_pauses_double_up_to_an_hour(hours: int, look_ms: int) -> None:
    found = replacements_ms(hours, look_ms)
    pauses = [after - before for before, after in itertools.pairwise(found)]
    assert all(pause >= FIRST_PAUSE_MS for pause in pauses)
    assert all(pause >= min(2**number * FIRST_PAUSE_MS, PAUSE_MS_MAX) for number, pause in enumerate(pauses, 1))
    assert len(found) <= hours + 7


def test_a_token_that_lived_its_time_ends_the_row() -> None:
    refusals, state = Refusals(), OLD
    for early in (NOW_MS, NOW_MS + HOUR_MS, NOW_MS + 2 * HOUR_MS, NOW_MS + 2 * HOUR_MS + REFRESH_AT_AGE_MS):
        refusals.note(state, 0, early)
        state = renewed(state, early)
    at_ms = state.refreshed_at_ms
    refusals.note(state, 0, at_ms)
    refusals.note(state, 0, at_ms + FIRST_PAUSE_MS)
    refusals.note(state, 1, at_ms + FIRST_PAUSE_MS)
    assert refusals.hold_of(state)
