"""Reads Prometheus' text format 0.0.4, as strictly as `promtool check metrics`.

Written from the format's description (prometheus.io, "Exposition formats"), and not from what writes it here.
"""

import math
import re
from typing import NamedTuple

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|$)')
SAMPLE = re.compile(rf"({NAME})(?:\{{(.*)\}})? (\S+)", re.DOTALL)
ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}
SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


class Read(NamedTuple):
    """A family; `samples` are names, labels and values."""

    name: str
    type: str
    samples: list[tuple[str, dict[str, str], float]]


def parse(text: str) -> list[Read]:
    """Returns the families of a text. AssertionError for what Prometheus, or promtool's lint, refuses."""
    assert text.endswith("\n") or not text
    families: list[Read] = []
    helped = ""
    seen: set[tuple[str, frozenset[tuple[str, str]]]] = set()
    for line in text.split("\n")[:-1]:
        if line.startswith("# HELP "):
            helped, _, about = line.removeprefix("# HELP ").partition(" ")
            assert about, line
        elif line.startswith("# TYPE "):
            name, kind = line.removeprefix("# TYPE ").split(" ")
            assert helped == name, f"{name} has no help"
            assert re.fullmatch(NAME, name), name
            assert name not in {family.name for family in families}, f"{name} is there twice"
            assert name.endswith("_total") == (kind == "counter"), f"{name} is a {kind}"
            families.append(Read(name, kind, []))
        else:
            found = SAMPLE.fullmatch(line)
            assert found, line
            name, labels, value = found[1], read_labels(found[2] or ""), float(found[3].replace("Inf", "inf"))
            family = families[-1]
            assert name.removeprefix(family.name) in SUFFIXES[family.type], line
            assert (name, frozenset(labels.items())) not in seen, f"{line} is there twice"
            seen.add((name, frozenset(labels.items())))
            assert family.type == "gauge" or value >= 0, line
            family.samples.append((name, labels, value))
    for family in families:
        if family.type == "histogram":
            check_histogram(family)
    return families


def read_labels(text: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    while text:
        found = LABEL.match(text)
        assert found, text
        assert found[1] not in labels, text
        labels[found[1]] = re.sub(r"\\.", lambda escape: ESCAPES[escape[0]], found[2])
        text = text[found.end() :]
    return labels


def check_histogram(family: Read) -> None:
    """Buckets rise to +Inf, which is the count."""
    series: dict[frozenset[tuple[str, str]], list[tuple[float, float]]] = {}
    counts: dict[frozenset[tuple[str, str]], float] = {}
    for name, labels, value in family.samples:
        bound = labels.pop("le", None)
        key = frozenset(labels.items())
        if name.endswith("_bucket"):
            assert bound is not None
            series.setdefault(key, []).append((float(bound.replace("Inf", "inf")), value))
            labels["le"] = bound
        elif name.endswith("_count"):
            counts[key] = value
    assert series.keys() == counts.keys()
    for key, buckets in series.items():
        assert buckets == sorted(buckets)
        assert [value for _, value in buckets] == sorted(value for _, value in buckets)
        assert buckets[-1] == (math.inf, counts[key])
