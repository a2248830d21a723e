"""The page of a comparison, from samples to Markdown. Pure: no clock, no machine, no files."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from loadtests.samples import (
    Against,
    Metric,
    Reading,
    Sample,
    Spread,
    Unit,
    Verdict,
    joined,
    ratio_spread,
    select,
    value_spread,
)

MB = 1_000_000
MIB = 1 << 20
FEW_MS = 10
PLURALS = {"MiB": "MiB"}


@dataclass(frozen=True)
class Section:
    """A case as the page shows it."""

    case: str
    title: str
    unit: str

    def fill(self, text: str) -> str:
        """A column's title with the case's unit in it."""
        return text.format(unit=self.unit, units=PLURALS.get(self.unit, f"{self.unit}s"))


@dataclass(frozen=True)
class Page:
    """Everything the page says.

    `versions` by server, in the order of the columns; `absent` has reasons by server; `alone` has the titles of
    relaygate's own cases by name, and `readings` what they gave.
    """

    date: str
    machine: str
    command: str
    rounds: int
    versions: Mapping[str, str]
    absent: Mapping[str, str]
    sections: Sequence[Section]
    samples: Sequence[Sample]
    verdicts: Sequence[Verdict]
    notes: Sequence[str]
    alone: Mapping[str, str] = field(default_factory=dict)
    readings: Sequence[Reading] = ()
    subject: str = "relaygate"


def grouped(value: float) -> str:
    return f"{value:,.0f}"


def two_digits(value: float) -> str:
    return f"{value:.2f}"


def tenths(value: float) -> str:
    return f"{value:,.1f}"


def megabytes(value: float) -> str:
    return f"{value / MB:,.1f} MB"


def mebibytes(value: float) -> str:
    return f"{value / MIB:,.1f} MiB"


def kilobytes(value: float) -> str:
    return f"{value / 1000:,.1f} KB"


def thousandths(value: float) -> str:
    return f"{value:.3f}"


def seconds(value: float) -> str:
    return f"{value:.2f} s"


def milliseconds(value: float) -> str:
    """Where a tenth is much, to the microsecond."""
    return f"{value:,.1f} ms" if abs(value) >= FEW_MS else f"{value:.3f} ms"


def a_second(value: float) -> str:
    return f"{grouped(value)}/s"


# Title (with the case's unit filled in) and form of each column, in the order of the table.
COLUMNS: Mapping[Metric, tuple[str, Callable[[float], str]]] = {
    Metric.UNITS_PER_S: ("{units}/s", grouped),
    Metric.DELIVERED_PERCENT: ("delivered %", tenths),
    Metric.EVENTS_PER_READ: ("events/read", two_digits),
    Metric.CPU_US_PER_UNIT: ("CPU µs/{unit}", tenths),
    Metric.P50_US: ("p50 µs", grouped),
    Metric.P99_US: ("p99 µs", grouped),
    Metric.FAILED: ("failed {units}", grouped),
    Metric.RECOVERY_S: ("recovery", seconds),
    Metric.RETURN_S: ("return", seconds),
    Metric.PSS_BYTES: ("PSS", megabytes),
    Metric.CONNECTION_BYTES: ("PSS/connection", kilobytes),
    Metric.GROWTH_BYTES: ("peak PSS - idle PSS", mebibytes),
}
RATIO_METRICS = {
    Metric.CPU_US_PER_UNIT: "CPU/{unit}",
    Metric.P50_US: "p50",
    Metric.GROWTH_BYTES: "peak - idle",
    Metric.CONNECTION_BYTES: "PSS/connection",
}
UNITS: Mapping[Unit, Callable[[float], str]] = {
    Unit.RATIO: thousandths,
    Unit.SECONDS: seconds,
    Unit.MILLISECONDS: milliseconds,
    Unit.BYTES: megabytes,
    Unit.PER_SECOND: a_second,
    Unit.COUNT: grouped,
}


def render(page: Page) -> str:
    parts = [introduction(page), targets_table(page), ratios_table(page)]
    parts += [section_table(page, section) for section in page.sections]
    parts += [own_table(page), notes_list(page)]
    return "\n\n".join(part for part in parts if part) + "\n"


INTRODUCTION = """\
# Benchmarks

Made by a script, not by hand. What a request through each proxy costs, side by side in one run on one machine: one
worker each, the same upstream on the loopback interface, the proxies taking turns in rounds, each freshly started for
every sample and checked to relay the exact bytes. Figures are medians of the rounds; **the ratios are what counts**:
they are taken within a round, so that a noisy machine weighs on both sides. CPU is that of the proxy's whole process
tree, and so is PSS (memory with shared pages counted in parts), both read from `/proc`. The load generator and the
upstream share the machine, so throughput and latency say less than CPU does.
"""


def introduction(page: Page) -> str:
    lines = [
        INTRODUCTION,
        f"- Date: {page.date}",
        f"- Machine: {page.machine}",
        f"- Rounds: {page.rounds}",
        f"- Command: `{page.command}`",
        *(f"- {server}: {version}" for server, version in page.versions.items()),
        *(f"- {server}: **left out**, {reason}" for server, reason in page.absent.items()),
    ]
    return "\n".join(lines)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left and the others to the right."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def targets_table(page: Page) -> str:
    if not page.verdicts:
        return ""
    rows = []
    titles = {section.case: section for section in page.sections}
    for verdict in page.verdicts:
        target = verdict.target
        section = titles.get(target.case, Section(target.case, target.case, "unit"))
        title, form = COLUMNS[target.metric]
        if target.rival is None:
            show, against = form, ""
        elif target.against is Against.DIFFERENCE:
            show, against = form, f" more than {target.rival}"
        else:
            show, against = two_digits, f" x {target.rival}"
        measured = "-" if verdict.measured is None else with_range(verdict.measured, show)
        bound = f"≤ {show(target.bound)}{against}"
        rows.append([f"{target.case}: {section.fill(title)}", bound, measured, verdict.word])
    return "## Targets\n\n" + table([page.subject, "target", "measured (lowest to highest round)", ""], rows)


def ratios_table(page: Page) -> str:
    """The subject divided by every other server, for each case: below 1 the subject is the cheaper one."""
    rivals = [server for server in page.versions if server != page.subject]
    rows = []
    for section in page.sections:
        for metric, title in RATIO_METRICS.items():
            ratios = [ratio_spread(page.samples, section.case, metric, page.subject, rival) for rival in rivals]
            if any(ratios):
                cells = [with_range(ratio, two_digits) if ratio else "-" for ratio in ratios]
                rows.append([f"{section.case}: {section.fill(title)}", *cells])
    if not rows:
        return ""
    header = ["", *(f"{page.subject} / {rival}" for rival in rivals)]
    return "## Ratios\n\nBelow 1, relaygate is cheaper or faster.\n\n" + table(header, rows)


def section_table(page: Page, section: Section) -> str:
    medians = {
        (server, metric): value_spread(page.samples, section.case, server, metric)
        for server in page.versions
        for metric in COLUMNS
    }
    metrics = [metric for metric in COLUMNS if any(medians[server, metric] for server in page.versions)]
    header = ["", *(section.fill(COLUMNS[metric][0]) for metric in metrics), "errors"]
    rows = []
    for server in page.versions:
        ran = select(page.samples, section.case, server)
        if not ran:
            continue
        wrong = [sample for sample in ran if sample.errors]
        cells = [cell(medians[server, metric], COLUMNS[metric][1]) for metric in metrics]
        rows.append([server, *cells, f"in {len(wrong)} rounds" if wrong else "none"])
    rows += [[server, *("absent" for _ in metrics), "-"] for server in page.absent]
    return f"## {section.case}\n\n{section.title}\n\n{table(header, rows)}"


OWN_CASES = """\
What the parts of relaygate cost it, without rivals. A ratio is of two relays that run on one CPU and are loaded at the
same time: the median over all bursts of all rounds, the quartiles in parentheses. Of everything else, the median of the
rounds, the lowest and highest in parentheses.
"""


def own_table(page: Page) -> str:
    if not page.alone:
        return ""
    titles = "\n".join(f"- {case}: {title}" for case, title in page.alone.items())
    rows = []
    for reading in joined(page.readings):
        form = UNITS[reading.unit]
        bound = "" if reading.bound is None else f"{reading.side} {form(reading.bound)}"
        rows.append([f"{reading.case}: {reading.what}", bound, with_range(reading.measured, form), reading.word])
    return f"## Relaygate alone\n\n{OWN_CASES}\n{titles}\n\n{table(['', 'target', 'measured', ''], rows)}"


def cell(value: Spread | None, form: Callable[[float], str]) -> str:
    return form(value.median) if value else "-"


def with_range(value: Spread, form: Callable[[float], str]) -> str:
    return f"{form(value.median)} ({form(value.low)} to {form(value.high)})"


def notes_list(page: Page) -> str:
    """Everything that went wrong or was changed on the way; nothing is hidden here."""
    errors = [f"{s.server}, {s.case}, round {s.round}: {error}" for s in page.samples for error in s.errors]
    lines = [*page.notes, *errors]
    return "## Notes\n\n" + "\n".join(f"- {line}" for line in lines) if lines else ""
