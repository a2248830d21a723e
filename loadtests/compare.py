"""Relaygate beside its rivals: what each costs per request, per event and per byte, in one run on one machine.

Measured: CPU of the proxy's whole process tree, throughput, latency and memory. On: the loopback interface of one
machine, one worker each, one nginx upstream for all. Against: nginx, HAProxy, Caddy and the same proxy made of Granian
and aiohttp. The law: within a round every proxy takes its turn under the same load, and what counts is the ratio within
a round.
"""

import argparse
import contextlib
import datetime as dt
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from loadtests.balanced_cases import BalancedCost, BalancedFailures, BalancedPost, BalancedServe, GroupCase
from loadtests.cases import (
    Case,
    DownloadCase,
    IdleCase,
    Outcome,
    PostCase,
    SlowCase,
    SseCase,
    UploadCase,
    WrongAnswerError,
    exchange,
)
from loadtests.get_load import LoadError
from loadtests.idle_clients import IdleError
from loadtests.key_pool_cost import KeyPoolCost
from loadtests.ledger_lag import LedgerLag
from loadtests.metering_cost import MeteringCost, UsageCost
from loadtests.metering_lone import MeteringLone
from loadtests.metering_rate import MeteringRate
from loadtests.own_cases import ColdStart, EditVisible, OwnCase, RoutesCost, ServeMemory, StatisticsCost
from loadtests.processes import Running, StartError, exit_on_signals, free_port, raise_open_files_limit, running
from loadtests.report import UNITS, Page, Section, render
from loadtests.samples import Against, Metric, Reading, Sample, Target, judge
from loadtests.servers import SERVERS, Job, Server, machine, relaygate_server
from loadtests.sse_client import StreamError
from loadtests.transfers import TransferError
from loadtests.upstreams import Origin, Upstreams, upstreams
from loadtests.wrk import REQUEST_BODY, REQUEST_HEADERS, REQUEST_PATH, WrkError

MB = 1_000_000
MIB = 1 << 20
CONNECTION_COUNTS = (1, 64, 512)
STREAMS_MIN = 50
FITTING_S = 2.0
FITTING_TRIALS = 2
DELIVERED_PERCENT_MIN = 95
EVENTS_PER_READ_MAX = 1.1
# What a proxy can do wrong without ending the comparison.
RUN_ERRORS = (IdleError, LoadError, StartError, StreamError, TransferError, WrongAnswerError, WrkError)
SUBJECT = "relaygate"
REFUSED_STATUSES = range(500, 600)

TARGETS = (
    Target("post-http-64", Metric.CPU_US_PER_UNIT, "caddy", 0.55),
    Target("post-http-64", Metric.CPU_US_PER_UNIT, "nginx", 4.0),
    Target("post-http-64", Metric.CPU_US_PER_UNIT, "naive", 0.25),
    Target("post-https-64", Metric.CPU_US_PER_UNIT, "caddy", 0.6),
    Target("post-https-64", Metric.CPU_US_PER_UNIT, "nginx", 4.0),
    Target("post-http-1", Metric.P50_US, "caddy", 1.0),
    Target("sse", Metric.CPU_US_PER_UNIT, "caddy", 0.9),
    Target("sse", Metric.CPU_US_PER_UNIT, "nginx", 2.0),
    Target("slow", Metric.GROWTH_BYTES, None, 16 * MIB),
    Target("idle", Metric.PSS_BYTES, None, 45_000_000),
    Target("idle", Metric.CONNECTION_BYTES, None, 20_000),
    Target("balanced-failures", Metric.FAILED, "haproxy", 0, Against.DIFFERENCE),
)


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.compare", description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", default="*", help="names, prefixes or patterns, by comma (default: all); see --list")
    parser.add_argument(
        "--servers", type=servers_named, default=",".join(SERVERS), help="names, by comma (default: %(default)s)"
    )
    parser.add_argument(
        "--checkout",
        action="append",
        type=checkout_named,
        default=[],
        metavar="NAME=DIRECTORY",
        help="measure the relaygate of another checkout too, as NAME",
    )
    parser.add_argument("--seconds", type=float, default=5, help="length of a timed run (default: %(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="turns of each server in each case (default: %(default)s)"
    )
    parser.add_argument("--sse-streams", type=int, default=1000, help="streams to try first (default: %(default)s)")
    parser.add_argument("--transfer-mib", type=int, default=1024, help="size of a body (default: %(default)s)")
    parser.add_argument("--slow-clients", type=int, default=8, help="clients reading slowly (default: %(default)s)")
    parser.add_argument("--slow-mb-per-s", type=int, default=10, help="pace of each, MB/s (default: %(default)s)")
    parser.add_argument("--idle-connections", type=int, default=2000, help="idle clients (default: %(default)s)")
    parser.add_argument(
        "--pairs", type=int, default=4, help="pairs of relays a round, where two are compared (default: %(default)s)"
    )
    parser.add_argument(
        "--fault-seconds", type=float, default=3, help="how long each failure of a backend lasts (default: %(default)s)"
    )
    parser.add_argument("--edits", type=int, default=200, help="edits a round (default: %(default)s)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="also write the page there")
    parser.add_argument("--list", action="store_true", help="print the cases and end")
    return parser.parse_args(argv)


def servers_named(names: str) -> list[Server]:
    unknown = [name for name in names.split(",") if name not in SERVERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no such server: {', '.join(unknown)}; known are {', '.join(SERVERS)}")
    return [SERVERS[name] for name in names.split(",")]


def checkout_named(entry: str) -> Server:
    name, equals, directory = entry.partition("=")
    if not equals or not name or name in SERVERS:
        raise argparse.ArgumentTypeError(f"{entry} is not NAME=DIRECTORY with a new name")
    return relaygate_server(name, Path(directory).resolve())


def all_cases(options: argparse.Namespace) -> list[Case]:
    return [
        *(PostCase(scheme, count, options.seconds) for scheme in ("http", "https") for count in CONNECTION_COUNTS),
        SseCase(options.sse_streams, options.seconds),
        DownloadCase(options.transfer_mib * MIB),
        UploadCase(options.transfer_mib * MIB),
        IdleCase(options.idle_connections),
        SlowCase(options.slow_clients, options.slow_mb_per_s * MB, options.transfer_mib * MIB),
    ]


def group_cases(options: argparse.Namespace) -> list[GroupCase]:
    return [BalancedPost(options.seconds), BalancedFailures(options.fault_seconds)]


def own_cases(options: argparse.Namespace) -> list[OwnCase]:
    return [
        StatisticsCost(options.pairs),
        RoutesCost(options.pairs),
        KeyPoolCost(options.pairs),
        MeteringCost(options.pairs),
        UsageCost(options.pairs),
        BalancedCost(options.pairs),
        BalancedServe(options.fault_seconds),
        MeteringRate(),
        MeteringLone(),
        LedgerLag(),
        EditVisible(options.edits),
        ColdStart(),
        ServeMemory(),
    ]


class Named(Protocol):
    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=Named)


def chosen_cases(cases: Sequence[N], wanted: str) -> list[N]:
    patterns = [pattern for word in wanted.split(",") for pattern in (word, f"{word}-*")]
    return [case for case in cases if any(fnmatchcase(case.name, pattern) for pattern in patterns)]


class Comparison:
    """One run: the upstreams it goes to, and what has been found so far."""

    def __init__(self, origins: Upstreams, servers: Sequence[Server]) -> None:
        self.upstreams = origins
        self.absent = {server.name: why for server in servers if (why := server.missing())}
        self.servers = [server for server in servers if server.name not in self.absent]
        # Now, since a checkout may have moved on when the run is over.
        self.versions = {server.name: server.version() for server in self.servers}
        self.samples: list[Sample] = []
        self.readings: list[Reading] = []
        self.notes: list[str] = []

    def fit(self, case: Case) -> Case:
        """Halve the streams until every proxy relays events one by one, so that all are measured at the same work.

        A proxy that cannot follow, for want of CPU, relays several events at once and seems cheap. The naive one would
        pull the load down for all: it gets what the others can follow, and the table says how it coped.
        """
        if not isinstance(case, SseCase):
            return case
        for server in self.servers:
            while server.name != "naive" and case.streams > STREAMS_MIN and (fault := self.overload(case, server)):
                case = replace(case, streams=case.streams // 2)
                self.note(f"{fault}; trying {case.streams:,} streams")
        return case

    def overload(self, case: SseCase, server: Server) -> str | None:
        """How a server fails to follow so many streams, None if it follows."""
        fault = None
        # More than once, since one bad moment of the machine must not halve the load for all.
        for _ in range(FITTING_TRIALS):
            values = self.attempt(replace(case, seconds=FITTING_S), server).values
            if not values or follows(values):
                return None
            fault = (
                f"sse: of {case.streams:,} streams, {server.name} relayed {values[Metric.EVENTS_PER_READ]:.2f} "
                f"events at once and {values[Metric.DELIVERED_PERCENT]:.0f} % in time on this machine"
            )
        return fault

    def note(self, text: str) -> None:
        self.notes.append(text)
        print(text, flush=True)

    def run(self, case: Case, rounds: int) -> None:
        self.take_turns(
            case.name, rounds, {server.name: partial(self.attempt, case, server) for server in self.servers}
        )

    def run_group(self, case: GroupCase, rounds: int) -> None:
        """Only those that can have several backends take part."""
        turns = {
            server.name: partial(self.attempt_group, case, server) for server in self.servers if server.launch_group
        }
        self.take_turns(case.name, rounds, turns)

    def take_turns(self, case: str, rounds: int, turns: Mapping[str, Callable[[], Outcome]]) -> None:
        """Let the servers take turns, so that whatever else the machine does hits all of them alike."""
        for number in range(1, rounds + 1):
            for server, turn in turns.items():
                outcome = turn()
                sample = Sample(case, server, number, outcome.values, outcome.errors)
                self.samples.append(sample)
                print(progress(sample), flush=True)
                for remark in outcome.remarks:
                    self.note(f"{server}, {case}, round {number}: {remark}")

    def run_alone(self, case: OwnCase, rounds: int) -> None:
        """Measure what relaygate has no rival in. What goes wrong is kept as a sample without values."""
        for number in range(1, rounds + 1):
            try:
                with tempfile.TemporaryDirectory(dir=self.upstreams.directory) as name:
                    readings = case.measure(self.upstreams, Path(name))
            except RUN_ERRORS as error:
                print(f"{case.name}: {error}", file=sys.stderr, flush=True)
                self.samples.append(Sample(case.name, SUBJECT, number, {}, str(error).splitlines()[:1]))
                continue
            self.readings += readings
            for reading in readings:
                values = "  ".join(map(UNITS[reading.unit], reading.values))
                print(f"{case.name} round {number} {reading.what}: {values}", flush=True)

    def attempt(self, case: Case, server: Server) -> Outcome:
        def measure(directory: Path) -> Outcome:
            origin = case.origin(self.upstreams)
            if origin.scheme == "https":
                self.check_verification(case, server, directory)
            with started(server, case, origin, directory) as proxy:
                case.verify(self.upstreams, proxy.port)
                return case.measure(self.upstreams, proxy)

        return self.tried(case.name, server.name, measure)

    def attempt_group(self, case: GroupCase, server: Server) -> Outcome:
        def measure(directory: Path) -> Outcome:
            return case.measure(self.upstreams, server, directory)

        return self.tried(case.name, server.name, measure)

    def tried(self, case: str, server: str, measure: Callable[[Path], Outcome]) -> Outcome:
        """What was measured in a directory of its own, or why nothing was."""
        try:
            with tempfile.TemporaryDirectory(dir=self.upstreams.directory) as name:
                return measure(Path(name))
        except RUN_ERRORS as error:
            # What a program printed has paths of this machine in it, so it goes to the terminal and not to the page.
            print(f"{case} {server}: {error}", file=sys.stderr, flush=True)
            return Outcome({}, str(error).splitlines()[:1])

    def check_verification(self, case: Case, server: Server, directory: Path) -> None:
        """Raise `WrongAnswerError` if the proxy takes an answer from an upstream whose certificate it cannot trust."""
        with started(server, case, self.upstreams.stranger, directory) as proxy:
            status, _ = exchange(proxy.port, "POST", REQUEST_PATH, REQUEST_BODY, REQUEST_HEADERS)
            if status not in REFUSED_STATUSES:
                raise WrongAnswerError(f"status {status} from an upstream with a stranger's certificate")


def follows(values: Mapping[Metric, float]) -> bool:
    single = values[Metric.EVENTS_PER_READ] <= EVENTS_PER_READ_MAX
    return single and values[Metric.DELIVERED_PERCENT] >= DELIVERED_PERCENT_MIN


def started(server: Server, case: Case, origin: Origin, directory: Path) -> contextlib.AbstractContextManager[Running]:
    job = Job(origin, case.traffic, free_port(), directory)
    return running(server.launch(job), directory / f"{server.name}.log")


def progress(sample: Sample) -> str:
    figures = "  ".join(f"{metric} {value:,.1f}" for metric, value in sample.values.items())
    errors = "".join(f"\n    ERROR {error}" for error in sample.errors)
    return f"{sample.case} round {sample.round} {sample.server}: {figures}{errors}"


def page(
    comparison: Comparison, cases: Sequence[Case | GroupCase], alone: Sequence[OwnCase], rounds: int, command: str
) -> Page:
    ran = {case.name for case in cases}
    return Page(
        date=dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine=machine(),
        command=command,
        rounds=rounds,
        versions=comparison.versions,
        absent=comparison.absent,
        sections=[Section(case.name, case.title, case.unit) for case in cases],
        samples=comparison.samples,
        verdicts=judge(comparison.samples, [target for target in TARGETS if target.case in ran]),
        notes=comparison.notes,
        alone={case.name: case.title for case in alone},
        readings=comparison.readings,
    )


def main(argv: Sequence[str]) -> int:
    """Run the comparison; 0 when every answer of every proxy was right, 1 when not, 2 when it cannot run."""
    options = arguments(argv)
    cases = chosen_cases(all_cases(options), options.cases)
    balanced = chosen_cases(group_cases(options), options.cases)
    alone = chosen_cases(own_cases(options), options.cases)
    if SUBJECT not in {server.name for server in options.servers}:
        alone = []
    if options.list:
        named: list[Case | GroupCase | OwnCase] = [*cases, *balanced, *alone]
        print("\n".join(f"{case.name:16} {case.title}" for case in named))
        return 0
    if not (cases or balanced or alone):
        print(f"no such case: {options.cases}", file=sys.stderr)
        return 2
    missing = [program for program in ("nginx", "wrk", "curl", "taskset") if not shutil.which(program)]
    if missing:
        print(f"not in PATH: {', '.join(missing)}", file=sys.stderr)
        return 2
    exit_on_signals()
    raise_open_files_limit()
    with (
        tempfile.TemporaryDirectory(prefix="relaygate-compare-") as name,
        upstreams(Path(name), options.transfer_mib * MIB) as origins,
    ):
        comparison = Comparison(origins, [*options.servers, *options.checkout])
        for server, why in comparison.absent.items():
            print(f"{server} is left out: {why}", flush=True)
        for position, case in enumerate(cases):
            cases[position] = comparison.fit(case)
            comparison.run(cases[position], options.rounds)
        for group_case in balanced:
            comparison.run_group(group_case, options.rounds)
        for own_case in alone:
            comparison.run_alone(own_case, options.rounds)
    command = shlex.join(["python", "-m", "loadtests.compare", *argv])
    text = render(page(comparison, [*cases, *balanced], alone, options.rounds, command))
    print("\n" + text)
    if options.write:
        options.write.write_text(text)
    return 1 if any(sample.errors for sample in comparison.samples) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
