"""What adds up, and what is said of what does not."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.rules.ledger_chain import BEGINNING, Chain, Link, Point

ROWS = [Link(1, 0, 100, 100), Link(2, 100, 99, -1), Link(3, 99, 92, -7), Link(4, 92, 93, 1)]


def problem(rows: Sequence[Link], said: Point, begin: Point | None = BEGINNING) -> str:
    chain = Chain(begin)
    for row in rows:
        chain.add(row)
    return chain.conclude(said)


def test_what_adds_up() -> None:
    assert not problem(ROWS, Point(4, 93))
    assert not problem([], BEGINNING)
    assert not problem([], Point(7, 50), Point(7, 50)), "all rows are carried"
    assert not problem(ROWS[2:], Point(4, 93), Point(2, 99))
    assert not problem(ROWS[2:], Point(4, 93), None)


@pytest.mark.parametrize(
    ("rows", "said", "text"),
    [
        ([*ROWS[:2], ROWS[3]], Point(4, 93), "row 3 is missing, 4 is there"),
        (ROWS[1:], Point(4, 93), "row 1 is missing, 2 is there"),
        (ROWS[:3], Point(4, 93), "its rows end with number 3, and 4 are counted"),
        (ROWS, Point(3, 92), "its rows end with number 4, and 3 are counted"),
        (ROWS, Point(4, 94), "its rows amount to 93, and 94 remains"),
        ([], Point(1, 100), "its rows end with number 0, and 1 are counted"),
        ([ROWS[0], Link(2, 99, 98, -1)], Point(2, 98), "row 2 begins with 99, and 100 was left"),
        ([ROWS[0], Link(2, 100, 98, -1)], Point(2, 98), "row 2 makes 98 of 100 by a change of -1"),
        ([ROWS[0], ROWS[0]], Point(1, 100), "row 2 is missing, 1 is there"),
    ],
)
def test_what_does_not(rows: list[Link], said: Point, text: str) -> None:
    assert problem(rows, said) == text


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=20), st.data())
def test_whatever_is_taken_away_or_changed_is_seen(changes: list[int], data: st.DataObject) -> None:
    rows, balance = [], 0
    for sequence, change in enumerate(changes, 1):
        rows.append(Link(sequence, balance, balance + change, change))
        balance += change
    said = Point(len(rows), balance)
    assert not problem(rows, said)
    at = data.draw(st.integers(0, len(rows) - 1))
    assert problem(rows[:at] + rows[at + 1 :], said)
    rows[at] = rows[at]._replace(change=rows[at].change + 1)
    assert problem(rows, said)
