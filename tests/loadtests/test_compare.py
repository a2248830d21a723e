"""Choosing cases and servers, and what the command does when it cannot run."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from loadtests.cases import Outcome, WrongAnswerError
from loadtests.compare import (
    TARGETS,
    Comparison,
    all_cases,
    arguments,
    chosen_cases,
    follows,
    main,
    own_cases,
    page,
    progress,
)
from loadtests.get_load import LoadError
from loadtests.samples import Metric, Reading, Sample, Unit
from loadtests.servers import SERVERS, Server
from loadtests.upstreams import Upstreams

EVERY_CASE = [
    "post-http-1",
    "post-http-64",
    "post-http-512",
    "post-https-1",
    "post-https-64",
    "post-https-512",
    "sse",
    "download",
    "upload",
    "idle",
    "slow",
]

GROUP_CASES = ["balanced-http-64", "balanced-failures"]

OWN_CASES = [
    "statistics-cost",
    "routes-10000",
    "key-pool",
    "metering",
    "usage-reading",
    "balanced-cost",
    "balanced-serve",
    "metering-rate",
    "metering-lone",
    "ledger-lag",
    "edit-visible",
    "cold-start",
    "serve-memory",
]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("*", EVERY_CASE),
        ("post", EVERY_CASE[:6]),
        ("post-https", EVERY_CASE[3:6]),
        ("idle,sse", ["sse", "idle"]),
        ("post-http-1", ["post-http-1"]),
        ("*-64", ["post-http-64", "post-https-64"]),
        ("nothing", []),
    ],
)
def test_cases_are_chosen_by_name_prefix_or_pattern(wanted: str, names: list[str]) -> None:
    assert [case.name for case in chosen_cases(all_cases(arguments([])), wanted)] == names


@pytest.mark.parametrize(
    ("wanted", "names"), [("*", OWN_CASES), ("routes,cold", ["routes-10000", "cold-start"]), ("post", [])]
)
def test_own_cases_are_chosen_likewise(wanted: str, names: list[str]) -> None:
    assert [case.name for case in chosen_cases(own_cases(arguments([])), wanted)] == names


def test_own_cases_are_listed_only_where_relaygate_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    printed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert printed == [*EVERY_CASE, *GROUP_CASES, *OWN_CASES]
    assert main(["--list", "--servers", "nginx"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [*EVERY_CASE, *GROUP_CASES]


@dataclass
class Fickle:
    """A case that fails in every other round."""

    rounds: int = 0
    name: str = "fickle"
    title: str = "Fickle"

    def measure(self, upstreams: Upstreams, directory: Path) -> list[Reading]:
        assert directory.is_dir()
        assert upstreams.directory in directory.parents
        self.rounds += 1
        if self.rounds % 2 == 0:
            raise WrongAnswerError(f"round {self.rounds} failed\nwith a log")
        return [Reading(self.name, "rounds", Unit.SECONDS, [float(self.rounds)])]


def test_a_round_that_failed_is_noted_and_the_others_count(origins: Upstreams) -> None:
    comparison = Comparison(origins, [])
    case = Fickle()
    comparison.run_alone(case, 3)
    assert [reading.values for reading in comparison.readings] == [[1.0], [3.0]]
    assert comparison.samples == [Sample("fickle", "relaygate", 2, {}, ["round 2 failed"])]
    written = page(comparison, [], [case], 3, "compare")
    assert (written.alone, list(written.readings)) == ({"fickle": "Fickle"}, comparison.readings)


def test_every_target_is_of_a_case_that_exists() -> None:
    assert {target.case for target in TARGETS} <= {*EVERY_CASE, *GROUP_CASES}


@dataclass
class Remarkable:
    """A case with backends that a server may be said to be bad at."""

    name: str = "remarkable"
    title: str = "Remarkable"
    unit: str = "request"

    def measure(self, upstreams: Upstreams, server: Server, directory: Path) -> Outcome:
        assert upstreams.directory in directory.parents
        if server.name == "caddy":
            raise LoadError("the load did not end")
        return Outcome({Metric.FAILED: 2}, remarks=["2 requests failed"])


def test_only_servers_with_several_backends_take_part(origins: Upstreams) -> None:
    comparison = Comparison(origins, [])
    comparison.servers = [SERVERS[name] for name in ("nginx", "caddy", "naive")]
    comparison.run_group(Remarkable(), 1)
    assert comparison.samples == [
        Sample("remarkable", "nginx", 1, {Metric.FAILED: 2}, []),
        Sample("remarkable", "caddy", 1, {}, ["the load did not end"]),
    ]
    assert comparison.notes == ["nginx, remarkable, round 1: 2 requests failed"]


def test_titles_say_what_is_sent() -> None:
    options = arguments(["--sse-streams", "1000", "--transfer-mib", "1024"])
    titles = {case.name: case.title for case in all_cases(options)}
    assert titles["post-http-1"] == "283-byte POST, 400-byte JSON answer, 1 connection, http upstream"
    assert titles["sse"].startswith("1,000 event streams of 50 events/s")
    assert titles["slow"] == "Download of 1,024 MiB to each of 8 clients at once that read 10 MB/s each"


def test_another_checkout_is_one_more_server() -> None:
    options = arguments(["--servers", "relaygate,nginx", "--checkout", "before=/nowhere"])
    assert [server.name for server in (*options.servers, *options.checkout)] == ["relaygate", "nginx", "before"]


def test_streams_that_come_several_events_at_once_are_too_many() -> None:
    single = {Metric.EVENTS_PER_READ: 1.05, Metric.DELIVERED_PERCENT: 99.0}
    assert follows(single)
    assert not follows({**single, Metric.EVENTS_PER_READ: 1.5})
    assert not follows({**single, Metric.DELIVERED_PERCENT: 80.0})


def test_progress_shows_errors() -> None:
    assert "ERROR 3 read errors" in progress(Sample("post", "nginx", 1, {}, ["3 read errors"]))


def test_an_unknown_case_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cases", "nothing"]) == 2
    assert "nothing" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--servers", "apache"], ["--checkout", "nameless"], ["--checkout", "nginx=."]])
def test_an_unknown_server_ends_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(argv)
    assert leaving.value.code == 2
    assert argv[1] in capsys.readouterr().err
