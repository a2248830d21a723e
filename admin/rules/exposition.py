"""Prometheus' text format, version 0.0.4. Pure."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from proxy.rules.histogram import BOUNDS_S, Histogram

CONTENT_TYPE = "text/plain; version=0.0.4"
"""To which Litestar adds the charset, as to every text."""


class Sample(NamedTuple):
    """`suffix` goes behind the family's name; `labels` are as `labels` returns them."""

    labels: str
    value: float
    suffix: str = ""


class Family(NamedTuple):
    """A metric: its name, its type, what it is, and its samples."""

    name: str
    type: str
    help: str
    samples: Iterable[Sample]


def text(families: Iterable[Family]) -> str:
    return "".join(line for family in families for line in _lines(family))


def labels(values: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in values.items())


def histogram(of: str, counted: Histogram) -> Iterator[Sample]:
    """Yields the samples of a histogram, in seconds, with the labels `of` of its own."""
    below = counted.cumulative()
    for bound_s, count in zip(_BOUNDS, below, strict=True):
        yield Sample(f'{of},le="{bound_s}"' if of else f'le="{bound_s}"', count, "_bucket")
    yield Sample(of, counted.sum_us / 1e6, "_sum")
    yield Sample(of, below[-1], "_count")


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.type}\n"
    for sample in family.samples:
        braces = f"{{{sample.labels}}}" if sample.labels else ""
        yield f"{family.name}{sample.suffix}{braces} {_number(sample.value)}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return "+Inf" if value == math.inf else repr(value)


_BOUNDS = tuple(map(_number, (*BOUNDS_S, math.inf)))
