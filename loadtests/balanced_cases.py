"""The cases of an upstream with three backends: what choosing among them costs, and what their failures cost clients.

`BalancedPost` and `BalancedFailures` have rivals; the backends of the first are three ports of one nginx, so that it
costs what a single one does, and those of the second are programs that fail (`failures.py`). `BalancedCost` and
`BalancedServe` are of relaygate alone.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from loadtests.cases import Outcome, PostCase, WrongAnswerError, exchange
from loadtests.failures import Backend, Damage, Fault, backends, damage, play
from loadtests.get_load import Asked, get_load
from loadtests.group_servers import (
    RELAYGATE_GROUP,
    RELAYGATE_LIMITS,
    GroupJob,
    relaygate_settings,
    relaygate_upstreams,
)
from loadtests.measure import cpu_spent_ns, read_cpu, read_pss
from loadtests.processes import START_TIMEOUT_S, Running, StartError, free_port, running
from loadtests.relay_pairs import Variant, compared, load, target
from loadtests.samples import Metric, Reading, Unit
from loadtests.servers import Server, relaygate_launch
from loadtests.serving import ADMIN_TOKEN
from loadtests.upstreams import BACKENDS, Upstreams
from loadtests.wrk import REQUEST_PATH

CONNECTIONS = 64
RATE = 20
"""Requests a second on each connection: 1,280 in all, well below what each proxy can do on one CPU."""
BALANCED_RATIO_MAX = 1.1
KINDS_TOLD = 3
LOOK_AGAIN_S = 0.05
PROBE_PATH = "/probe"


class GroupCase(Protocol):
    """A case for servers with several backends. `unit` is what throughput and CPU are counted in."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def unit(self) -> str: ...
    def measure(self, upstreams: Upstreams, server: Server, directory: Path) -> Outcome:
        """Raises `StartError`, `WrkError`, `LoadError` or `WrongAnswerError`."""


@dataclass(frozen=True)
class BalancedPost:
    """The POSTs of `post-http-64`, to an upstream of three backends."""

    seconds: float
    name: str = f"balanced-http-{CONNECTIONS}"
    unit: str = "request"

    @property
    def title(self) -> str:
        return f"{self.post.title} of {BACKENDS} backends, least connections"

    @property
    def post(self) -> PostCase:
        return PostCase("http", CONNECTIONS, self.seconds)

    def measure(self, upstreams: Upstreams, server: Server, directory: Path) -> Outcome:
        with started(server, upstreams.group, directory) as proxy:
            self.post.verify(upstreams, proxy.port)
            return self.post.measure(upstreams, proxy)


@dataclass(frozen=True)
class BalancedFailures:
    """Constant load while backends fail one after the other (`failures.play`)."""

    fault_s: float
    connections: int = CONNECTIONS
    name: str = "balanced-failures"
    unit: str = "request"

    @property
    def title(self) -> str:
        return script_title(self.connections, self.fault_s)

    def measure(self, upstreams: Upstreams, server: Server, directory: Path) -> Outcome:
        del upstreams
        with backends(directory) as group:
            ports = tuple(backend.port for backend in group)
            with started(server, ports, directory) as proxy:
                wait_for_answer(proxy.port)
                cpu = read_cpu(proxy.session)
                record, faults = under_load(proxy, group, self.fault_s, self.connections)
                cpu_ns = cpu_spent_ns(cpu, read_cpu(proxy.session))
                pss_bytes = sum(read_pss(proxy.session).values())
        found = damaged(record, faults)
        values = {
            Metric.UNITS_PER_S: len(record) / (record[-1].ended_s - record[0].began_s),
            Metric.CPU_US_PER_UNIT: cpu_ns / 1000 / len(record),
            Metric.P99_US: 1e6 * found.p99_s,
            Metric.FAILED: found.failed,
            Metric.RECOVERY_S: found.recovery_s,
            Metric.RETURN_S: found.return_s,
            Metric.PSS_BYTES: pss_bytes,
        }
        return Outcome(values, remarks=remarks(found))


@dataclass(frozen=True)
class BalancedCost:
    """Requests through a route to an upstream of three backends, and through one to a single target."""

    pairs: int
    bursts: int = 4
    name: str = "balanced-cost"

    @property
    def title(self) -> str:
        return f"{BACKENDS} backends against one target, both with a Redis; {load(self.pairs, self.bursts)}"

    def measure(self, upstreams: Upstreams, directory: Path) -> list[Reading]:
        to_group = {"/": {"upstream": RELAYGATE_GROUP, **RELAYGATE_LIMITS}}
        several = Variant(to_group, {}, relaygate_upstreams(upstreams.group))
        single = Variant({"/": {"target": target(upstreams), **RELAYGATE_LIMITS}}, {})
        values = compared(directory, several, single, REQUEST_PATH, self.pairs, self.bursts)
        what = f"CPU/request, {BACKENDS} backends / 1 target"
        return [Reading(self.name, what, Unit.RATIO, values, BALANCED_RATIO_MAX)]


@dataclass(frozen=True)
class BalancedServe:
    """`balanced-failures` with a control plane, which checks the backends."""

    fault_s: float
    connections: int = CONNECTIONS
    name: str = "balanced-serve"

    @property
    def title(self) -> str:
        return f"`relaygate serve` with one worker; {script_title(self.connections, self.fault_s)}"

    def measure(self, upstreams: Upstreams, directory: Path) -> list[Reading]:
        del upstreams
        with backends(directory) as group:
            settings = relaygate_settings(tuple(backend.port for backend in group)) | {
                "admin": {"port": free_port(), "token": ADMIN_TOKEN},
                "data_dir": str(directory / "data"),
            }
            launch = relaygate_launch("serve", free_port(), directory, settings)
            with running(launch, directory / "serve.log") as system:
                wait_for_answer(system.port)
                found = damaged(*under_load(system, group, self.fault_s, self.connections))
        for remark in remarks(found):
            print(f"{self.name}: {remark}", flush=True)
        return [
            Reading(self.name, "failed requests", Unit.COUNT, [found.failed], 0),
            Reading(self.name, "p99 during failures", Unit.MILLISECONDS, [1000 * found.p99_s]),
            Reading(self.name, "recovery", Unit.SECONDS, [found.recovery_s]),
            Reading(self.name, "return", Unit.SECONDS, [found.return_s]),
        ]


def script_title(connections: int, fault_s: float) -> str:
    return (
        f"{connections * RATE:,} GETs/s on {connections} connections to {BACKENDS} backends: one is killed, one hangs, "
        f"one answers 503, for {fault_s:g} s each, and one flaps; p99 is of what was sent meanwhile"
    )


@contextlib.contextmanager
def started(server: Server, ports: tuple[int, ...], directory: Path) -> Iterator[Running]:
    """A server in front of these backends. Raises `StartError`."""
    if server.launch_group is None:
        raise StartError(f"{server.name} has no upstreams of several backends")
    launch = server.launch_group(GroupJob(ports, free_port(), directory))
    with running(launch, directory / f"{server.name}.log") as proxy:
        yield proxy


def wait_for_answer(port: int) -> None:
    """Until the proxy has found a backend that is well, which a check may have to tell it. Raises `StartError`."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        with contextlib.suppress(WrongAnswerError):
            status, body = exchange(port, "GET", PROBE_PATH, None, {})
            if status == 200 and body.endswith(f" GET {PROBE_PATH}\n".encode()):
                return
        if time.monotonic() > deadline_s:
            raise StartError(f"no right answer after {START_TIMEOUT_S:g} s")
        time.sleep(LOOK_AGAIN_S)


def under_load(
    proxy: Running, group: Sequence[Backend], fault_s: float, connections: int
) -> tuple[list[Asked], list[Fault]]:
    """What became of the requests while the backends failed. Raises `LoadError`, and `WrongAnswerError` if a backend
    answered none of them.
    """
    with get_load(proxy.port, connections, RATE) as clients:
        faults = play(group, fault_s)
        record = clients.stop()
    if unused := {backend.name for backend in group} - {asked.backend for asked in record}:
        raise WrongAnswerError(f"no request came to {', '.join(sorted(unused))}")
    return record, faults


def damaged(record: Sequence[Asked], faults: Sequence[Fault]) -> Damage:
    """Raises `WrongAnswerError` where nothing was answered right."""
    try:
        return damage(record, faults)
    except ValueError as error:
        raise WrongAnswerError(str(error)) from error


def remarks(found: Damage) -> list[str]:
    """Which failures there were, the commonest first."""
    if not found.failed:
        return []
    kinds = sorted(found.kinds.items(), key=lambda kind: -kind[1])
    told = "; ".join(f"{count} x {kind}" for kind, count in kinds[:KINDS_TOLD])
    return [f"{found.failed} requests failed: {told}{'; …' if len(kinds) > KINDS_TOLD else ''}"]
