"""The arithmetic of a comparison: samples in, medians, ratios and verdicts out. Pure.

A ratio is taken within one round, where both servers met the same machine, and only then is the median over rounds
taken.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import median, quantiles


class Metric(StrEnum):
    """What can be read off a run. A unit of work is the case's own: a request, an event, a MiB."""

    UNITS_PER_S = "units_per_s"
    CPU_US_PER_UNIT = "cpu_us_per_unit"
    P50_US = "p50_us"
    P99_US = "p99_us"
    FAILED = "failed"
    RECOVERY_S = "recovery_s"
    RETURN_S = "return_s"
    DELIVERED_PERCENT = "delivered_percent"
    EVENTS_PER_READ = "events_per_read"
    PSS_BYTES = "pss_bytes"
    CONNECTION_BYTES = "connection_bytes"
    GROWTH_BYTES = "growth_bytes"


@dataclass(frozen=True)
class Sample:
    """One server's run of one case in one round. `errors` are sentences: anything that was not a right answer."""

    case: str
    server: str
    round: int
    values: Mapping[Metric, float]
    errors: Sequence[str] = ()


@dataclass(frozen=True)
class Spread:
    """A median and what it was taken from: the extremes, or the quartiles."""

    median: float
    low: float
    high: float


class Unit(StrEnum):
    """What a reading is in. A ratio is of two variants that were measured by turns, many times."""

    RATIO = "ratio"
    SECONDS = "s"
    MILLISECONDS = "ms"
    BYTES = "bytes"
    PER_SECOND = "1/s"
    COUNT = "count"


class Side(StrEnum):
    """On which side of its bound a target is met."""

    AT_MOST = "≤"
    AT_LEAST = "≥"


@dataclass(frozen=True)
class Reading:
    """What relaygate alone was measured at: `what` names it within the case, `bound` is the target if there is one."""

    case: str
    what: str
    unit: Unit
    values: Sequence[float]
    bound: float | None = None
    side: Side = Side.AT_MOST

    @property
    def measured(self) -> Spread:
        """Of ratios, which are many and noisy, the median and the quartiles; else the median and the extremes."""
        if self.unit is Unit.RATIO:
            low, middle, high = quantiles(self.values, n=4, method="inclusive")
            return Spread(middle, low, high)
        return Spread(median(self.values), min(self.values), max(self.values))

    @property
    def word(self) -> str:
        """Whether the target is met; nothing where there is none."""
        return "" if self.bound is None else met(self.measured, self.bound, self.side)


class Against(StrEnum):
    """How a value is held against a rival's."""

    RATIO = "ratio"
    DIFFERENCE = "difference"


@dataclass(frozen=True)
class Target:
    """A bound on a metric of `server` in a case: on its ratio to `rival`'s, or on what it has more than `rival` where
    that may have nothing, or on its own value where there is no rival.
    """

    case: str
    metric: Metric
    rival: str | None
    bound: float
    against: Against = Against.RATIO
    server: str = "relaygate"


@dataclass(frozen=True)
class Verdict:
    """A target and what was measured; `measured` is None when the case or the rival did not run."""

    target: Target
    measured: Spread | None

    @property
    def word(self) -> str:
        return "not measured" if self.measured is None else met(self.measured, self.target.bound)


def met(measured: Spread, bound: float, side: Side = Side.AT_MOST) -> str:
    within = measured.median <= bound if side is Side.AT_MOST else measured.median >= bound
    return "met" if within else "**missed**"


def select(samples: Iterable[Sample], case: str, server: str) -> list[Sample]:
    return [sample for sample in samples if sample.case == case and sample.server == server]


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of them do not exceed (nearest rank). `values` must not be empty."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def spread(values: Sequence[float]) -> Spread | None:
    return Spread(median(values), min(values), max(values)) if values else None


def value_spread(samples: Sequence[Sample], case: str, server: str, metric: Metric) -> Spread | None:
    """A metric over the rounds of a case, None where it was not measured."""
    return spread([sample.values[metric] for sample in select(samples, case, server) if metric in sample.values])


def ratio_spread(samples: Sequence[Sample], case: str, metric: Metric, server: str, rival: str) -> Spread | None:
    """`server` divided by `rival`, round by round; rounds where one of them is missing or zero do not count."""
    pairs = round_by_round(samples, case, metric, server, rival)
    return spread([ours / theirs for ours, theirs in pairs if theirs])


def difference_spread(samples: Sequence[Sample], case: str, metric: Metric, server: str, rival: str) -> Spread | None:
    """`server` less `rival`, round by round; rounds where one of them is missing do not count."""
    return spread([ours - theirs for ours, theirs in round_by_round(samples, case, metric, server, rival)])


def round_by_round(
    samples: Sequence[Sample], case: str, metric: Metric, server: str, rival: str
) -> list[tuple[float, float]]:
    """The values of both in each round that has them."""
    theirs = {sample.round: sample.values[metric] for sample in select(samples, case, rival) if metric in sample.values}
    ours = [sample for sample in select(samples, case, server) if metric in sample.values]
    return [(sample.values[metric], theirs[sample.round]) for sample in ours if sample.round in theirs]


def judge(samples: Sequence[Sample], targets: Iterable[Target]) -> list[Verdict]:
    return [Verdict(target, measured(samples, target)) for target in targets]


def measured(samples: Sequence[Sample], target: Target) -> Spread | None:
    if target.rival is None:
        return value_spread(samples, target.case, target.server, target.metric)
    compared = ratio_spread if target.against is Against.RATIO else difference_spread
    return compared(samples, target.case, target.metric, target.server, target.rival)


def joined(readings: Iterable[Reading]) -> list[Reading]:
    """One reading for each case and what was measured in it, with the values of all rounds."""
    found: dict[tuple[str, str], Reading] = {}
    for reading in readings:
        line = (reading.case, reading.what)
        before = found[line].values if line in found else []
        found[line] = replace(reading, values=[*before, *reading.values])
    return list(found.values())
