"""The page says what was measured, and everything that went wrong."""

from dataclasses import replace

from loadtests.report import Page, Section, render
from loadtests.samples import Against, Metric, Reading, Sample, Side, Target, Unit, judge

SAMPLES = [
    Sample("post", "relaygate", 1, {Metric.UNITS_PER_S: 20000.4, Metric.CPU_US_PER_UNIT: 42.0}),
    Sample("post", "nginx", 1, {Metric.UNITS_PER_S: 50000, Metric.CPU_US_PER_UNIT: 10.5}),
    Sample("post", "relaygate", 2, {Metric.UNITS_PER_S: 20000, Metric.CPU_US_PER_UNIT: 44.0}),
    Sample("post", "nginx", 2, {}, ["3 read errors"]),
]
TARGETS = [Target("post", Metric.CPU_US_PER_UNIT, "nginx", 4.0), Target("post", Metric.CPU_US_PER_UNIT, None, 40)]
PAGE = Page(
    date="2026-01-02 03:04 UTC",
    machine="Linux 6.1, 2 x CPU",
    command="python -m loadtests.compare --rounds 2",
    rounds=2,
    versions={"relaygate": "abc", "nginx": "1.22.1"},
    absent={"caddy": "no `caddy` in PATH"},
    sections=[Section("post", "A POST", "request")],
    samples=SAMPLES,
    verdicts=judge(SAMPLES, TARGETS),
    notes=["fewer streams"],
)


def test_the_run_can_be_repeated_from_the_page() -> None:
    page = render(PAGE)
    for expected in (PAGE.date, PAGE.machine, f"`{PAGE.command}`", "- nginx: 1.22.1", "- Rounds: 2"):
        assert expected in page


def test_a_server_that_is_absent_is_named_with_the_reason_and_in_each_table() -> None:
    page = render(PAGE)
    assert "- caddy: **left out**, no `caddy` in PATH" in page
    assert "| caddy | absent | absent | - |" in page


def test_medians_stand_in_a_table_with_units() -> None:
    page = render(PAGE)
    assert "|  | requests/s | CPU µs/request | errors |" in page
    assert "| relaygate | 20,000 | 43.0 | none |" in page
    assert "| nginx | 50,000 | 10.5 | in 1 rounds |" in page


def test_ratios_and_verdicts_stand_beside_the_targets() -> None:
    page = render(PAGE)
    assert "| post: CPU/request | 4.00 (4.00 to 4.00) |" in page
    assert "| post: CPU µs/request | ≤ 4.00 x nginx | 4.00 (4.00 to 4.00) | met |" in page
    assert "| post: CPU µs/request | ≤ 40.0 | 43.0 (42.0 to 44.0) | **missed** |" in page


def test_a_target_may_be_a_difference() -> None:
    samples = [Sample("post", server, 1, {Metric.FAILED: count}) for server, count in (("relaygate", 3), ("nginx", 0))]
    verdicts = judge(samples, [Target("post", Metric.FAILED, "nginx", 0, Against.DIFFERENCE)])
    page = render(replace(PAGE, samples=samples, verdicts=verdicts))
    assert "| post: failed requests | ≤ 0 more than nginx | 3 (3 to 3) | **missed** |" in page
    assert "| relaygate | 3 | none |" in page


def test_a_server_that_does_not_take_part_has_no_line() -> None:
    page = render(replace(PAGE, versions={**PAGE.versions, "naive": "1"}))
    assert "- naive: 1" in page
    assert "| naive |" not in page


def test_errors_and_notes_are_never_hidden() -> None:
    page = render(PAGE)
    assert "- nginx, post, round 2: 3 read errors" in page
    assert "- fewer streams" in page


def test_a_page_without_targets_ratios_and_notes_has_no_empty_headings() -> None:
    page = render(replace(PAGE, verdicts=[], notes=[], samples=[], versions={"relaygate": "abc"}))
    for heading in ("## Targets", "## Ratios", "## Relaygate alone", "## Notes"):
        assert heading not in page


def test_mebibytes_have_no_plural() -> None:
    samples = [Sample("download", "relaygate", 1, {Metric.UNITS_PER_S: 900.0})]
    page = render(replace(PAGE, sections=[Section("download", "A file", "MiB")], samples=samples, verdicts=[]))
    assert "|  | MiB/s | errors |" in page


def test_what_relaygate_was_measured_at_alone_stands_in_a_table_of_its_own() -> None:
    readings = [
        Reading("statistics-cost", "CPU/request", Unit.RATIO, [1.0, 1.02], 1.03),
        Reading("edit-visible", "p99", Unit.MILLISECONDS, [1234.5], 100),
        Reading("cold-start", "relay", Unit.SECONDS, [0.5], 2.0),
        Reading("serve-memory", "Redis", Unit.BYTES, [4_000_000.0]),
        Reading("metering-rate", "admissions", Unit.PER_SECOND, [41_234.4], 15_000, Side.AT_LEAST),
        Reading("metering-lone", "p50", Unit.MILLISECONDS, [0.1914], 0.2),
        Reading("statistics-cost", "CPU/request", Unit.RATIO, [1.04, 1.02], 1.03),
    ]
    page = render(replace(PAGE, alone={"cold-start": "From its start"}, readings=readings))
    assert "- cold-start: From its start" in page
    assert "| statistics-cost: CPU/request | ≤ 1.030 | 1.020 (1.015 to 1.025) | met |" in page
    assert "| edit-visible: p99 | ≤ 100.0 ms | 1,234.5 ms (1,234.5 ms to 1,234.5 ms) | **missed** |" in page
    assert "| cold-start: relay | ≤ 2.00 s | 0.50 s (0.50 s to 0.50 s) | met |" in page
    assert "| metering-rate: admissions | ≥ 15,000/s | 41,234/s (41,234/s to 41,234/s) | met |" in page
    assert "| metering-lone: p50 | ≤ 0.200 ms | 0.191 ms (0.191 ms to 0.191 ms) | met |" in page
    assert "| serve-memory: Redis |  | 4.0 MB (4.0 MB to 4.0 MB) |  |" in page
