"""A `.env` file as people write it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.sources import dotenv
from proxy.sources.dotenv import Variable


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("  A = b  ", "b"),
        ("export A=b", "b"),
        ("A=", ""),
        ("A=b # comment", "b"),
        ("A=b#c", "b#c"),
        ("A=# comment", ""),
        ("A= # comment", ""),
        ("A=b c", "b c"),
        ("A=b=c", "b=c"),
        ("A='b # c'", "b # c"),
        (r"A='b\n'", r"b\n"),
        ('A="b # c" # d', "b # c"),
        (r'A="b\n\t\"\\\$\x"', 'b\n\t"\\$\\x'),
        ("A=''", ""),
        ("A=redis://:p'w\"d@host/0", "redis://:p'w\"d@host/0"),
    ],
)
def test_line(line: str, value: str) -> None:
    assert dotenv.parse(line) == {"A": Variable(value, 1)}


@pytest.mark.parametrize("line", ["A", "A B=c", "=b", "1A=b", "A='b", 'A="b', "A='b'c", 'A="b" c', "- A=b"])
def test_a_line_that_is_none_is_named_by_its_number(line: str) -> None:
    with pytest.raises(ValueError, match=r"^3$"):
        dotenv.parse(f"B=1\n# {line}\n{line}\n")


def test_the_last_of_two_wins() -> None:
    assert dotenv.parse("\ufeffA=1\r\n\r\n  # A=2\r\nA=3") == {"A": Variable("3", 4)}


@given(value=st.text(st.characters(exclude_categories=["C", "Zl", "Zp"], exclude_characters="'")))
def test_single_quotes_keep_everything(value: str) -> None:
    assert dotenv.parse(f"A='{value}'")["A"].value == value


@given(text=st.text())
def test_any_text_gives_variables_or_a_line_number(text: str) -> None:
    lines = len(text.splitlines())
    try:
        last = max((variable.line for variable in dotenv.parse(text).values()), default=0)
    except ValueError as error:
        last = int(str(error))
    assert last <= lines
