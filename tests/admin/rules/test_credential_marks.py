"""What may be seen of a secret is little, and tells whose it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.rules.credential_marks import ID_NUMBERS, digest, masked, new_ids, provider


@pytest.mark.parametrize(
    ("secret", "shown"),
    [
        ("sk-ant-0123456789abcdefWXYZ", "sk-a...WXYZ"),
        ("0123456789ab", "01...ab"),
        ("012345", "0...5"),
        ("01234", "..."),
        ("", "..."),
    ],
)
def test_the_ends_are_shown(secret: str, shown: str) -> None:
    assert masked(secret) == shown


@given(st.text(min_size=1))
def test_two_thirds_stay_hidden(secret: str) -> None:
    assert len(masked(secret)) - 3 <= len(secret) / 3


@pytest.mark.parametrize(
    ("secret", "name"),
    [
        ("sk-ant-1", "anthropic"),
        ("sk-1", "openai"),
        ("AIza1", "gemini"),
        ("fk-1", "factory"),
        ("gsk_1", "groq"),
        ("xai-1", "xai"),
        ("1", "unknown"),
    ],
)
def test_a_prefix_tells_whose_it_is(secret: str, name: str) -> None:
    assert provider(secret) == name


def test_a_digest_is_the_same_for_the_same() -> None:
    assert digest("a") == digest("a") != digest("b")


@given(st.integers(0, ID_NUMBERS - 5), st.integers(0, 5))
def test_ids_of_a_batch_are_in_order_and_fit_their_column(first: int, count: int) -> None:
    ids = new_ids(1_763_700_000_000, first, count)
    assert ids == sorted(set(ids))
    assert {len(one) for one in ids} <= {29}
