"""What curl reports is read right."""

import pytest

from loadtests.transfers import Transfer, TransferError, parse_transfer


def test_a_report_follows_the_answer_on_a_line_of_its_own() -> None:
    printed = '{"bytes": 5}\n{"status":200,"down":12,"up":5,"seconds":0.25}'
    assert parse_transfer(printed) == Transfer('{"bytes": 5}', 200, 12, 5, 0.25)


def test_the_answer_may_be_elsewhere() -> None:
    assert parse_transfer('\n{"status":502,"down":12,"up":0,"seconds":1}').status == 502


@pytest.mark.parametrize("printed", ["", "curl: (7)", '{"status":200}', "\nnull"])
def test_anything_else_is_an_error(printed: str) -> None:
    with pytest.raises(TransferError):
        parse_transfer(printed)
