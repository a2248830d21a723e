"""What open connections cost one worker: `python -m loadtests.idle_load`.

Measures requests with and without 10,000 idle connections beside them, what each idle connection weighs, what all of
them cost while nobody asks, and what streams weigh and cost. All on the loopback interface of this machine; needs nginx
and wrk. Memory is the proxy's PSS, and apart from it what the kernel holds: on one machine, that is both ends of each
connection. docs/scaling.md draws conclusions from it.
"""

import argparse
import contextlib
import math
import shutil
import ssl
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from loadtests.get_load import LoadError, get_load
from loadtests.idle_clients import IdleError, idle_clients
from loadtests.measure import KernelMemory, cpu_spent_ns, read_cpu, read_kernel_memory, read_pss
from loadtests.own_cases import echo_upstream
from loadtests.processes import Running, exit_on_signals, free_port, raise_open_files_limit, running
from loadtests.report import table
from loadtests.samples import percentile
from loadtests.servers import machine, relaygate_launch
from loadtests.sse_client import event_streams
from loadtests.streaming_upstream import EVENTS_PER_S
from loadtests.upstreams import MIB, Upstreams, upstreams
from loadtests.wrk import REQUEST_PATH, run_wrk, write_script

CONNECTIONS = 64
RATE = 8
"""Requests a second on each of CONNECTIONS, for latencies where nobody waits in line."""
WARM_UP_S = 1.0
WARMING = 64
"""So many connections come first, so that what is allocated once is not counted."""
SETTLE_S = 2.0
OPEN_FILES_BESIDE = 1000
FEWER_WITH_TLS = 5
"""One in so many, since a client in Python takes a millisecond for each."""
ENVIRONMENT = {"RELAYGATE_HEADER_TIMEOUT_S": "3600"}
"""It also ends idle connections."""


class Weight(NamedTuple):
    """Memory at one moment, in bytes."""

    pss: int
    kernel: KernelMemory


class Loaded(NamedTuple):
    """Requests on CONNECTIONS: as fast as they go, and CONNECTIONS * RATE a second."""

    per_s: float
    cpu_us: float
    full_p50_ms: float
    full_p99_ms: float
    steady_p50_ms: float
    steady_p99_ms: float


class Idle(NamedTuple):
    """What each of the idle connections weighs, in bytes, the CPU that making it and one request took, and the share of
    a CPU that all of them take.
    """

    pss: float
    tcp: float
    slab: float
    opened_cpu_us: float
    cpu_share: float


class Streamed(NamedTuple):
    """What each stream weighs, in bytes, and what an event costs."""

    pss: float
    tcp: float
    slab: float
    cpu_us: float
    p99_ms: float


class Found(NamedTuple):
    """All figures of a run."""

    connections: int
    streams: int
    alone: Loaded
    beside: Loaded
    idle: Idle
    with_tls: Idle
    streamed: Streamed


@contextlib.contextmanager
def relay(
    origins: Upstreams, directory: Path, connections: int, tls: Mapping[str, object] | None = None
) -> Iterator[Running]:
    """One worker that takes so many connections: POSTs to REQUEST_PATH, `/events`, and GETs of anything else. Where
    there is a section `tls`, it speaks that.
    """
    with echo_upstream("echo", directory) as echo:
        routes = {
            "/": echo.url,
            REQUEST_PATH: f"http://127.0.0.1:{origins.http.port}{REQUEST_PATH}",
            "/events": {
                "target": f"http://127.0.0.1:{origins.streaming.port}/events",
                "max_connections": connections,
            },
        }
        launch = relaygate_launch("proxy", free_port(), directory, {"routes": routes, "tls": tls})
        environment = {**launch.environment, **ENVIRONMENT, "RELAYGATE_MAX_CONNECTIONS": str(connections + CONNECTIONS)}
        with running(replace(launch, environment=environment), directory / "relaygate.log") as proxy:
            yield proxy


def weigh(proxy: Running) -> Weight:
    return Weight(sum(read_pss(proxy.session).values()), read_kernel_memory())


def each(before: Weight, after: Weight, count: int) -> tuple[float, float, float]:
    """PSS, queued data and kernel objects for each of `count` connections that were opened between two moments."""
    return (
        (after.pss - before.pss) / count,
        (after.kernel.tcp_bytes - before.kernel.tcp_bytes) / count,
        (after.kernel.slab_bytes - before.kernel.slab_bytes) / count,
    )


def loaded(proxy: Running, directory: Path, seconds: float) -> Loaded:
    # The steady load is the first, so that it warms the relay up for the other.
    with get_load(proxy.port, CONNECTIONS, RATE) as load:
        time.sleep(seconds)
        record = load.stop()
    if wrong := [asked.fault for asked in record if asked.fault]:
        raise LoadError(f"{len(wrong)} requests failed: {wrong[0]}")
    cpu = read_cpu(proxy.session)
    figures = run_wrk(write_script(directory), proxy.port, CONNECTIONS, seconds)
    cpu_ns = cpu_spent_ns(cpu, read_cpu(proxy.session))
    if figures.errors or not figures.requests:
        raise LoadError("; ".join(figures.errors) or "no request was answered")
    steady_ms = [1000 * asked.took_s for asked in record]
    return Loaded(
        figures.requests / figures.duration_s,
        cpu_ns / 1000 / figures.requests,
        figures.p50_us / 1000,
        figures.p99_us / 1000,
        percentile(steady_ms, 50),
        percentile(steady_ms, 99),
    )


def cpu_share(proxy: Running, seconds: float) -> float:
    """The share of a CPU that it takes while nobody asks it anything."""
    cpu = read_cpu(proxy.session)
    time.sleep(seconds)
    return cpu_spent_ns(cpu, read_cpu(proxy.session)) / 1e9 / seconds


def streamed(proxy: Running, count: int, seconds: float) -> Streamed:
    before = weigh(proxy)
    with event_streams(proxy.port, count) as streams:
        streams.receive(WARM_UP_S)
        cpu = read_cpu(proxy.session)
        tally = streams.receive(seconds)
        cpu_us = cpu_spent_ns(cpu, read_cpu(proxy.session)) / 1000 / max(1, tally.events)
        after = weigh(proxy)
    if tally.ended or not tally.delays_us:
        raise LoadError(f"{tally.ended} streams ended, {tally.events} events came")
    return Streamed(*each(before, after, count), cpu_us, percentile(tally.delays_us, 99) / 1000)


@contextlib.contextmanager
def idle(proxy: Running, connections: int, seconds: float, tls: ssl.SSLContext | None = None) -> Iterator[Idle]:
    """What connections weigh, while they are open. Raises `IdleError`, on leaving too where they were closed."""
    with idle_clients(proxy.port, WARMING, tls):
        time.sleep(SETTLE_S)
    at_rest_share = cpu_share(proxy, seconds)
    before, cpu = weigh(proxy), read_cpu(proxy.session)
    with idle_clients(proxy.port, connections, tls) as clients:
        opened_us = cpu_spent_ns(cpu, read_cpu(proxy.session)) / 1000 / connections
        time.sleep(SETTLE_S)
        weights = each(before, weigh(proxy), connections)
        yield Idle(*weights, opened_us, cpu_share(proxy, seconds) - at_rest_share)
        if closed := clients.closed():
            raise IdleError(f"{closed} idle connections were closed")


def measure(origins: Upstreams, directory: Path, connections: int, streams: int, seconds: float) -> Found:
    """Raises `StartError`, `WrkError`, `LoadError`, `IdleError` or `StreamError`."""
    with relay(origins, directory, connections) as proxy:
        alone = loaded(proxy, directory, seconds)
        time.sleep(SETTLE_S)
        with idle(proxy, connections, seconds) as in_clear_text:
            beside = loaded(proxy, directory, seconds)
    # Each afresh, since what the ones have left would be used for the others.
    certificate = {"certificate": f"{origins.directory}/known.pem", "key": f"{origins.directory}/known.key"}
    trusting = ssl.create_default_context(cafile=str(origins.https.authority))
    few = math.ceil(connections / FEWER_WITH_TLS)
    with relay(origins, directory, few, certificate) as proxy, idle(proxy, few, seconds, trusting) as with_tls:
        pass
    with relay(origins, directory, streams) as proxy:
        time.sleep(SETTLE_S)
        return Found(connections, streams, alone, beside, in_clear_text, with_tls, streamed(proxy, streams, seconds))


def render(found: Found) -> str:
    """The figures as Markdown."""
    lines: list[tuple[str, str, str]] = [
        (name, form.format(alone), form.format(beside))
        for name, form, alone, beside in zip(
            (
                f"requests/s on {CONNECTIONS} connections",
                "CPU µs/request",
                "p50 of these",
                "p99 of these",
                f"p50 at {CONNECTIONS * RATE}/s",
                f"p99 at {CONNECTIONS * RATE}/s",
            ),
            ("{:,.0f}", "{:.1f}", *["{:.2f} ms"] * 4),
            found.alone,
            found.beside,
            strict=True,
        )
    ]
    columns = (found.idle, found.with_tls, found.streamed)
    weights = [
        [name, *(kilobytes(figure) for figure in figures)]
        for name, figures in (
            ("PSS", [column.pss for column in columns]),
            ("data in TCP's queues, all ends", [column.tcp for column in columns]),
            ("kernel objects, all ends", [column.slab for column in columns]),
        )
    ]
    return "\n\n".join(
        (
            table(["", "0 idle connections", f"{found.connections:,} idle connections"], lines),
            table(["for each", "idle connection", "idle connection with TLS", f"stream of {found.streams:,}"], weights),
            f"A connection and its first request take {found.idle.opened_cpu_us:.0f} µs of CPU, with TLS "
            f"{found.with_tls.opened_cpu_us:.0f} µs. All idle connections take {100 * found.idle.cpu_share:.2f} % of a "
            "CPU while nobody asks.",
            f"An event takes {found.streamed.cpu_us:.1f} µs of CPU ({EVENTS_PER_S}/s on each stream), p99 of its delay "
            f"is {found.streamed.p99_ms:.2f} ms.",
        )
    )


def kilobytes(value: float) -> str:
    return f"{value / 1000:.1f} KB"


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests.idle_load", description=__doc__.partition("\n")[0])
    parser.add_argument("--connections", type=int, default=10_000, help="idle ones (default: %(default)s)")
    parser.add_argument("--streams", type=int, default=500, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5, help="length of a timed run (default: %(default)s)")
    options = parser.parse_args(argv)
    if missing := [program for program in ("nginx", "wrk") if not shutil.which(program)]:
        print(f"not in PATH: {', '.join(missing)}", file=sys.stderr)
        return 2
    wanted = options.connections + OPEN_FILES_BESIDE
    if (limit := raise_open_files_limit(wanted)) < wanted:
        print(
            f"{options.connections} connections need {wanted} open files (ulimit -n), {limit} may be", file=sys.stderr
        )
        return 2
    exit_on_signals()
    with tempfile.TemporaryDirectory(prefix="relaygate-idle-") as name, upstreams(Path(name), MIB) as origins:
        found = measure(origins, Path(name), options.connections, options.streams, options.seconds)
    print(f"{machine()}\n\n{render(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
