"""When a refresh is due, which token counts, and what an answer says."""

import base64
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.rules import oauth
from admin.rules.oauth import (
    ASSUMED_LIFE_MS,
    GAP_MS,
    INVALID_GRANT,
    MARGIN_MS_MAX,
    REFRESH_AT_AGE_MS,
    SKEW_MS,
    SPENT_MAX,
    Kept,
    Refusal,
    Renewed,
    State,
    digest,
)

NOW_MS = 1_763_700_000_000
HOUR_MS = 3_600_000
STATE = State("rt-1", "at-1", NOW_MS + 8 * HOUR_MS, NOW_MS, digest("rt-0"), (digest("rt-0"),))


def web_token(claims: object) -> str:
    return ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, claims, "signature")
    )


def kept(refresh_token: str | None, api_key: str | None = None, expires_at_ms: int | None = None) -> Kept:
    return Kept(refresh_token, api_key, expires_at_ms, NOW_MS)


def test_a_refresh_is_due_at_six_hours_of_age() -> None:
    due_ms = NOW_MS + REFRESH_AT_AGE_MS
    assert oauth.due_at_ms(STATE) == due_ms
    assert not oauth.is_due(STATE, due_ms - 1)
    assert oauth.is_due(STATE, due_ms)


@pytest.mark.parametrize(
    ("life_ms", "margin_ms"), [(HOUR_MS, MARGIN_MS_MAX), (300_000, 60_000), (60_000, 12_000), (1, 1 - GAP_MS)]
)
def test_or_shortly_before_the_end(life_ms: int, margin_ms: int) -> None:
    state = replace(STATE, expires_at_ms=NOW_MS + life_ms)
    assert oauth.due_at_ms(state) == NOW_MS + life_ms - margin_ms


def test_or_at_once_where_there_is_no_access_token() -> None:
    assert oauth.is_due(replace(STATE, access_token=None), NOW_MS)


def test_or_at_once_where_a_wrong_clock_noted_the_last_one() -> None:
    state = replace(STATE, refreshed_at_ms=NOW_MS + SKEW_MS, expires_at_ms=NOW_MS + 8 * HOUR_MS)
    assert not oauth.is_due(state, NOW_MS)
    assert oauth.is_due(state, NOW_MS - 1)


@given(st.integers(0, 10**15), st.integers(0, 10**15))
def test_no_refresh_is_due_right_after_another(refreshed_ms: int, expires_ms: int) -> None:
    state = replace(STATE, refreshed_at_ms=refreshed_ms, expires_at_ms=expires_ms)
    assert refreshed_ms + GAP_MS <= oauth.due_at_ms(state) <= max(refreshed_ms + GAP_MS, refreshed_ms + 6 * HOUR_MS)


def test_a_setting_that_began_the_stored_chain_is_overtaken_by_it() -> None:
    for token in ("rt-0", "rt-1"):
        assert oauth.chosen(token, kept("rt-other"), STATE) is STATE


def test_another_setting_begins_a_new_chain() -> None:
    begun = State("rt-new", None, 0, 0, digest("rt-new"))
    assert oauth.chosen("rt-new", kept("rt-1"), STATE) == begun
    assert oauth.chosen("rt-new", None, None) == begun


def test_the_file_comes_after_the_setting_and_nothing_after_it() -> None:
    assert oauth.chosen(None, kept("rt-1"), STATE) is STATE
    assert oauth.chosen(None, None, STATE) is None
    assert oauth.chosen(None, kept(None), STATE) is None


def test_a_file_of_another_program_is_used_as_it_is() -> None:
    begun = oauth.chosen(None, kept("rt-9", "at-9", NOW_MS + HOUR_MS), STATE)
    assert begun == State("rt-9", "at-9", NOW_MS + HOUR_MS, NOW_MS, digest("rt-9"))
    alone = oauth.chosen(None, kept(None, "at-9"), None)
    assert alone == State(None, "at-9", NOW_MS + ASSUMED_LIFE_MS, NOW_MS, digest("at-9"))
    told = web_token({"exp": 1_763_700_060})
    assert oauth.chosen(None, kept("rt-9", told), None) == State("rt-9", told, NOW_MS + 60_000, NOW_MS, digest("rt-9"))


def test_another_programs_newer_access_token_of_the_same_refresh_token() -> None:
    newer_ms = STATE.expires_at_ms + 1
    expected = replace(STATE, access_token="at-9", expires_at_ms=newer_ms)
    assert oauth.chosen(None, kept("rt-1", "at-9", newer_ms), STATE) == expected
    assert oauth.chosen(None, kept("rt-1", "at-9", STATE.expires_at_ms), STATE) is STATE
    assert oauth.chosen(None, kept("rt-1", "at-1", newer_ms), STATE) is STATE
    assert oauth.chosen(None, kept("rt-0", "at-9", newer_ms), STATE) is STATE


def test_a_chain_remembers_what_it_has_spent() -> None:
    state = STATE
    for number in range(2, SPENT_MAX + 10):
        state = oauth.after(state, Renewed(f"at-{number}", f"rt-{number}", NOW_MS), NOW_MS)
    assert len(state.spent) == SPENT_MAX
    assert oauth.belongs(state, f"rt-{number}")
    assert oauth.belongs(state, f"rt-{number - 1}")
    assert oauth.belongs(state, "rt-0"), "which began it"
    assert not oauth.belongs(state, "rt-2"), "too long ago"


def test_a_refresh_token_that_stays_good_is_not_spent() -> None:
    for again in (None, "rt-1"):
        assert oauth.after(STATE, Renewed("at-2", again, 5), 4) == State("rt-1", "at-2", 5, 4, STATE.chain, STATE.spent)


def test_a_chain_goes_on_with_the_files_token_if_that_is_news() -> None:
    goes_on = oauth.overtaken(STATE, kept("rt-2"))
    assert goes_on == replace(STATE, refresh_token="rt-2", spent=(digest("rt-0"), digest("rt-1")))
    for known in (None, kept("rt-0"), kept("rt-1"), kept(None, "at-7")):
        assert oauth.overtaken(STATE, known) is None


def test_the_form() -> None:
    asked = {"grant_type": "refresh_token", "refresh_token": "rt-1", "client_id": "client"}
    assert oauth.form("rt-1", "client", None) == asked
    assert oauth.form("rt-1", "client", "org") == {**asked, "organization_id": "org"}


@pytest.mark.parametrize(
    ("more", "end_ms"),
    [
        ({"expires_in": 60}, NOW_MS + 60_000),
        ({"expires_in": "60"}, NOW_MS + 60_000),
        ({}, NOW_MS + ASSUMED_LIFE_MS),
        ({"expires_in": 0}, NOW_MS + ASSUMED_LIFE_MS),
        ({"expires_in": 1e300}, NOW_MS + ASSUMED_LIFE_MS),
        ({"expires_in": [1]}, NOW_MS + ASSUMED_LIFE_MS),
        ({"access_token": web_token({"exp": 1_763_700_060})}, NOW_MS + 60_000),
        ({"access_token": web_token({"exp": "never"})}, NOW_MS + ASSUMED_LIFE_MS),
        ({"access_token": web_token([])}, NOW_MS + ASSUMED_LIFE_MS),
        ({"access_token": "a.b.c"}, NOW_MS + ASSUMED_LIFE_MS),
    ],
)
def test_when_an_access_token_ends(more: dict[str, object], end_ms: int) -> None:
    document = {"access_token": "at-2", "refresh_token": "rt-2", **more}
    renewed = oauth.meaning(200, json.dumps(document).encode(), NOW_MS)
    assert renewed == Renewed(str(document["access_token"]), "rt-2", end_ms)


@pytest.mark.parametrize(
    ("status", "body", "refusal"),
    [
        (400, b'{"error":"invalid_grant","error_description":"canary"}', Refusal(INVALID_GRANT, True, True)),
        (401, b'{"error":"invalid_client"}', Refusal("invalid_client", True)),
        (400, b'{"error":"canary"}', Refusal("HTTP 400")),
        (400, b'{"error":["invalid_grant"]}', Refusal("HTTP 400")),
        (429, b"canary", Refusal("HTTP 429")),
        (500, b"\xff", Refusal("HTTP 500")),
        (200, b"<html>canary", Refusal("an answer without a usable access token")),
        (200, b"[]", Refusal("an answer without a usable access token")),
        (200, b'{"access_token":""}', Refusal("an answer without a usable access token")),
        (200, b'{"access_token":"a\\nb"}', Refusal("an answer without a usable access token")),
        (204, b"", Refusal("HTTP 204")),
    ],
)
def test_answers_that_bring_none(status: int, body: bytes, refusal: Refusal) -> None:
    assert oauth.meaning(status, body, NOW_MS) == refusal


@given(st.integers(100, 599), st.binary(max_size=100))
def test_no_answer_is_too_strange(status: int, body: bytes) -> None:
    assert isinstance(oauth.meaning(status, body, NOW_MS), Refusal)


def test_nothing_shows_a_token() -> None:
    shown = repr([STATE, kept("rt-1", "at-1"), Renewed("at-1", "rt-1", 1)])
    assert "rt-" not in shown
    assert "at-" not in shown
