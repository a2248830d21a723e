"""Medians, ratios and verdicts, on plain numbers."""

import pytest

from loadtests.samples import (
    Against,
    Metric,
    Reading,
    Sample,
    Side,
    Spread,
    Target,
    Unit,
    Verdict,
    difference_spread,
    joined,
    judge,
    percentile,
    ratio_spread,
    value_spread,
)

CPU = Metric.CPU_US_PER_UNIT


def sample(server: str, number: int, cpu_us: float | None, case: str = "post") -> Sample:
    return Sample(case, server, number, {} if cpu_us is None else {CPU: cpu_us})


SAMPLES = [
    sample("relaygate", 1, 40),
    sample("nginx", 1, 10),
    sample("relaygate", 2, 90),
    sample("nginx", 2, 30),
    sample("relaygate", 3, 50),
    sample("nginx", 3, 10),
    sample("relaygate", 1, 1000, case="sse"),
]


def test_a_value_is_the_median_of_its_rounds_with_the_extremes() -> None:
    assert value_spread(SAMPLES, "post", "relaygate", CPU) == Spread(50, 40, 90)


def test_a_ratio_is_taken_within_rounds_and_not_of_medians() -> None:
    assert ratio_spread(SAMPLES, "post", CPU, "relaygate", "nginx") == Spread(4, 3, 5)


def test_rounds_that_failed_do_not_count() -> None:
    samples = [*SAMPLES, sample("relaygate", 4, None), sample("nginx", 4, 1), sample("relaygate", 5, 1)]
    assert ratio_spread(samples, "post", CPU, "relaygate", "nginx") == Spread(4, 3, 5)


def test_nothing_is_divided_by_zero() -> None:
    assert ratio_spread([sample("a", 1, 5), sample("b", 1, 0)], "post", CPU, "a", "b") is None


def test_a_difference_is_taken_within_rounds_and_may_be_of_nothing() -> None:
    samples = [*SAMPLES, sample("relaygate", 4, 0), sample("nginx", 4, 0), sample("relaygate", 5, 1)]
    assert difference_spread(samples, "post", CPU, "relaygate", "nginx") == Spread(35, 0, 60)
    target = Target("post", CPU, "nginx", 35, Against.DIFFERENCE)
    assert [verdict.word for verdict in judge(samples, [target])] == ["met"]


def test_what_was_not_measured_is_none() -> None:
    assert value_spread(SAMPLES, "post", "caddy", CPU) is None
    assert value_spread(SAMPLES, "post", "nginx", Metric.P50_US) is None


@pytest.mark.parametrize(
    ("target", "word"),
    [
        (Target("post", CPU, "nginx", 4.0), "met"),
        (Target("post", CPU, "nginx", 3.99), "**missed**"),
        (Target("post", CPU, None, 50), "met"),
        (Target("post", CPU, None, 49), "**missed**"),
        (Target("post", CPU, "caddy", 1), "not measured"),
    ],
)
def test_a_target_is_met_up_to_its_bound(target: Target, word: str) -> None:
    verdicts = judge(SAMPLES, [target])
    assert [verdict.word for verdict in verdicts] == [word]
    assert isinstance(verdicts[0], Verdict)


@pytest.mark.parametrize(("percent", "expected"), [(1, 1), (50, 50), (99, 99), (100, 100)])
def test_percentiles_are_of_the_nearest_rank(percent: float, expected: float) -> None:
    assert percentile([float(number) for number in range(100, 0, -1)], percent) == expected


def test_one_value_is_every_percentile_of_itself() -> None:
    assert percentile([7.0], 50) == percentile([7.0], 99) == 7.0


def test_ratios_are_a_median_between_quartiles() -> None:
    reading = Reading("statistics", "CPU", Unit.RATIO, [9.0, 1.01, 1.02, 0.1, 1.03], bound=1.02)
    assert reading.measured == Spread(1.02, 1.01, 1.03)
    assert reading.word == "met"


def test_other_readings_are_a_median_between_extremes() -> None:
    reading = Reading("cold-start", "relay", Unit.SECONDS, [3.0, 1.0, 2.5], bound=2.0)
    assert reading.measured == Spread(2.5, 1.0, 3.0)
    assert reading.word == "**missed**"


@pytest.mark.parametrize(("bound", "word"), [(20.0, "met"), (20.1, "**missed**")])
def test_a_target_may_be_the_least_that_will_do(bound: float, word: str) -> None:
    assert Reading("rate", "x", Unit.PER_SECOND, [10.0, 20.0, 90.0], bound, Side.AT_LEAST).word == word


def test_a_reading_without_a_target_has_no_verdict() -> None:
    assert Reading("serve-memory", "Redis", Unit.BYTES, [1e9]).word == ""


def test_rounds_are_joined_by_case_and_by_what_was_measured() -> None:
    first, second = Reading("a", "x", Unit.SECONDS, [1.0], 2.0), Reading("a", "y", Unit.BYTES, [7.0])
    other = Reading("b", "x", Unit.SECONDS, [9.0])
    again = Reading("a", "x", Unit.SECONDS, [3.0], 2.0)
    assert joined([first, second, other, again]) == [Reading("a", "x", Unit.SECONDS, [1.0, 3.0], 2.0), second, other]
