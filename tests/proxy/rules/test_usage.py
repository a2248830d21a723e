"""Figures that add up, whatever stands in a document."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.rules.access_tokens import AMOUNT_MAX
from proxy.rules.usage import Usage, count, tokens_of_text


def test_the_total_is_each_token_once() -> None:
    assert Usage().total == 0
    assert Usage(1, 20, 300, 4000).total == 4321


@pytest.mark.parametrize(("length", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2)])
def test_text_is_rounded_up(length: int, tokens: int) -> None:
    assert tokens_of_text(length) == tokens


@pytest.mark.parametrize(
    ("value", "counted"),
    [
        (7, 7),
        (7.0, 7),
        ("7", 7),
        (0, 0),
        (-7, 0),
        (True, 0),
        (None, 0),
        (7.5, 0),
        (float("nan"), 0),
        (float("inf"), 0),
        ("", 0),
        ("-7", 0),
        ("7.5", 0),
        ("\u0667", 0),
        ("²", 0),
        ("1" * 10_000, 0),
        ([7], 0),
        ({}, 0),
        (10**40, AMOUNT_MAX),
        (1e300, AMOUNT_MAX),
        (AMOUNT_MAX, AMOUNT_MAX),
    ],
)
def test_what_is_no_count_is_none(value: object, counted: int) -> None:
    assert count(value) == counted


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()))
def test_any_value_is_a_count_in_bounds(value: Any) -> None:
    found = count(value)
    assert type(found) is int
    assert 0 <= found <= AMOUNT_MAX
