"""The benchmark runs, and says what it found in a table."""

import pytest

from loadtests import choice_cost
from loadtests.choice_cost import Cost, measure, table
from proxy.config import Algorithm


@pytest.mark.parametrize("algorithm", Algorithm)
def test_each_algorithm_is_measured(algorithm: Algorithm) -> None:
    cost = measure(algorithm, count=20, choices=50, turns=1)
    assert (cost.algorithm, cost.credentials) == (algorithm, 20)
    assert cost.choice_us > 0


def test_the_table_has_a_line_an_algorithm_and_a_column_a_number() -> None:
    costs = [Cost(Algorithm.RANDOM, 10, 1.234, 0.5, 9.0), Cost(Algorithm.RANDOM, 300, 2.0, 0.75, 61_400.0)]
    assert table(costs).splitlines() == [
        "| algorithm | choice µs, 10 | choice µs, 300 | remove + add µs, 10 | remove + add µs, 300 | add 300, ms |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| random | 1.23 | 2.00 | 0.50 | 0.75 | 61 |",
    ]


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice_cost, "COUNTS", (3, 30))
    choice_cost.main(["--algorithms", "random,least-used", "--choices", "20", "--turns", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| random", "| least-used"]
    assert "choice µs, 30" in lines[0]
