"""The benchmark runs, and says what it found in a table."""

import random

import pytest

from loadtests import balancing_cost
from loadtests.balancing_cost import RUNNING, Cost, Traffic, measure, members_of, table
from proxy.config import Balancer


@pytest.mark.parametrize("balancer", Balancer)
def test_each_balancer_is_measured(balancer: Balancer) -> None:
    cost = measure(balancer, count=5, choices=50, turns=1)
    assert (cost.balancer, cost.backends) == (balancer, 5)
    assert cost.choice_us > 0
    assert cost.first_us > 0


def test_as_many_requests_are_running_all_the_time_and_move() -> None:
    source = random.Random(1)
    members = members_of(5, source)
    traffic = Traffic(Balancer.LEAST_CONNECTIONS_WEIGHT, members, source)
    before = [member.running for member in members]
    traffic.send(100)
    after = [member.running for member in members]
    assert sum(before) == sum(after) == 5 * RUNNING
    assert before != after


def test_the_table_has_a_line_a_balancer_and_a_column_a_number() -> None:
    costs = [Cost(Balancer.WEIGHT, 3, 1.234, 1.5), Cost(Balancer.WEIGHT, 300, 20.0, 21.0)]
    assert table(costs).splitlines() == [
        "| balancer | choice µs, 3 | choice µs, 300 | first µs, 3 | first µs, 300 |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| weight | 1.23 | 20.00 | 1.50 | 21.00 |",
    ]


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balancing_cost, "COUNTS", (3, 30))
    balancing_cost.main(["--balancers", "ip_hash,least_latency", "--choices", "20", "--turns", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| ip_hash", "| least_latency"]
    assert "choice µs, 30" in lines[0]
