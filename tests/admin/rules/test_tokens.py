"""The admin token's digest."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from admin.rules import tokens

SALT = b"\x01" * tokens.SALT_BYTES


@given(random=st.binary(min_size=32, max_size=32))
def test_a_token_that_was_made_has_a_fast_digest(random: bytes) -> None:
    token = tokens.made(random)
    kept = tokens.digest(token, SALT)
    assert not tokens.is_slow(kept)
    assert tokens.matches(token, kept)
    assert not tokens.matches(token[:-1] + ("A" if token[-1] != "A" else "B"), kept)
    assert token not in kept


# What people choose, or make by other means: nobody can see whether it is random.
CHOSEN = ["hunter2", "rga_short", "rga_" + "a" * 44, "0" * 64, "pässwort", " ", "rga_" + "a" * 42 + "!"]


@pytest.mark.parametrize("token", CHOSEN)
def test_any_other_token_has_a_slow_one(token: str) -> None:
    kept = tokens.digest(token, SALT)
    assert tokens.is_slow(kept)
    assert tokens.matches(token, kept)
    assert not tokens.matches(token + "x", kept)
    assert token not in kept.split("$")[2]


def test_a_slow_digest_depends_on_the_salt() -> None:
    one, other = tokens.digest("hunter2", SALT), tokens.digest("hunter2", b"\x02" * 16)
    assert one.split("$")[2] != other.split("$")[2]


@settings(max_examples=50)
@given(token=st.text(st.characters(exclude_categories=["Cs"]), max_size=100))
def test_no_text_is_too_odd_to_be_wrong(token: str) -> None:
    assert not tokens.matches(token, tokens.digest(tokens.made(b"\x00" * 32), SALT))
