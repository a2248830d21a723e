"""The cases of relaygate alone: what its parts cost it, and how long it takes to do what no rival does.

Each is measured once a round, with processes started afresh, and gives readings instead of a sample: ratios between two
variants of the relay (`paired.py`), seconds, bytes.
"""

import asyncio
import contextlib
import itertools
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

from loadtests import keep_alive
from loadtests.cases import WrongAnswerError, exchange, expect
from loadtests.edit_visibility import MOVING, EditVisibility, RefusedError, Target, edits
from loadtests.paired import cpu_ratios, on_one_cpu
from loadtests.processes import Launch, Running, StartError, free_port, running
from loadtests.samples import Reading, Unit, percentile
from loadtests.servers import relaygate_launch
from loadtests.serving import ADMIN_TOKEN, Serving, memory_by_part, serving
from loadtests.upstreams import ANSWER, REPOSITORY, Upstreams
from loadtests.wrk import REQUEST_BODY, REQUEST_HEADERS, REQUEST_PATH, WrkFigures, run_wrk, write_script
from proxy.config import ConfigError
from proxy.shared_state.embedded import EmbeddedRedis

CONNECTIONS = 64
BURST_S = 1.0
REST_S = 3.0
"""How long `relaygate serve` is left alone before its memory counts."""

EDITED_WORKERS = 2

STATISTICS_RATIO_MAX = 1.03
ROUTES_RATIO_MAX = 1.05
VISIBLE_P99_MS_MAX = 100.0
COLD_START_S_MAX = 2.0

TEAMS = [f"/team-{number:03}" for number in range(250)]
PROVIDERS = ["/anthropic", "/cohere", "/deepseek", "/google", "/groq", "/mistral", "/openai", "/together", "/xai", "/z"]
VARIANTS = ["", "/batch", "/eu", "/us"]
DEEP_PREFIX = "/team-180/mistral/eu"


class OwnCase(Protocol):
    """A case that has relaygate alone in it."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    def measure(self, upstreams: Upstreams, directory: Path) -> list[Reading]:
        """One round, in a directory of its own. Raises `StartError`, `WrkError` or `WrongAnswerError`."""


class Variant(NamedTuple):
    """What one of two relays gets that are compared."""

    routes: Mapping[str, object]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class StatisticsCost:
    """Requests through a relay that counts them, and through one that does not."""

    pairs: int
    bursts: int = 4
    name: str = "statistics-cost"

    @property
    def title(self) -> str:
        return f"Statistics on against `ENABLE_STATS=false`, both with a Redis; {load(self.pairs, self.bursts)}"

    def measure(self, upstreams: Upstreams, directory: Path) -> list[Reading]:
        routes = {"/": target(upstreams)}
        counting, silent = (Variant(routes, {"ENABLE_STATS": switch}) for switch in ("true", "false"))
        values = compared(directory, counting, silent, REQUEST_PATH, self.pairs, self.bursts)
        return [Reading(self.name, "CPU/request, counting / not counting", Unit.RATIO, values, STATISTICS_RATIO_MAX)]


@dataclass(frozen=True)
class RoutesCost:
    """Requests through a relay with very many routes, each to an origin of its own, and through one with one route."""

    pairs: int
    bursts: int = 4
    name: str = "routes-10000"

    @property
    def title(self) -> str:
        prefixes = f"10,000 prefixes, each to an origin of its own, against `{DEEP_PREFIX}` alone"
        return f"{prefixes}, which is asked; both with a Redis; {load(self.pairs, self.bursts)}"

    def measure(self, upstreams: Upstreams, directory: Path) -> list[Reading]:
        one = {DEEP_PREFIX: target(upstreams)}
        many = many_routes(upstreams.http.port) | one
        path = DEEP_PREFIX + REQUEST_PATH
        values = compared(directory, Variant(many, {}), Variant(one, {}), path, self.pairs, self.bursts)
        return [Reading(self.name, f"CPU/request, {len(many):,} prefixes / 1", Unit.RATIO, values, ROUTES_RATIO_MAX)]


@dataclass(frozen=True)
class EditVisible:
    """Edits of every kind through the admin API: from when one is sent until each worker relays by it."""

    edits: int
    name: str = "edit-visible"

    @property
    def title(self) -> str:
        return (
            f"{self.edits} edits a round through the admin API, until both workers of `relaygate serve` relay by each"
        )

    def measure(self, upstreams: Upstreams, directory: Path) -> list[Reading]:
        with contextlib.ExitStack() as stack:
            targets = [stack.enter_context(echo_upstream(name, directory)) for name in ("one", "other")]
            routes = {MOVING: targets[0].url}
            system = stack.enter_context(serving(upstreams, directory, EDITED_WORKERS, routes))
            visible_ms = asyncio.run(self.visible_ms(system, targets))
        lines = [("p50", 50, None), ("p99", 99, VISIBLE_P99_MS_MAX), ("longest", 100, None)]
        return [
            Reading(self.name, line, Unit.MILLISECONDS, [percentile(visible_ms, percent)], bound)
            for line, percent, bound in lines
        ]

    async def visible_ms(self, system: Serving, targets: Sequence[Target]) -> list[float]:
        visibility = EditVisibility(system.port, system.admin_port, ADMIN_TOKEN, EDITED_WORKERS)
        try:
            await visibility.watch_all()
            return [1000 * (await visibility.time_s(edit)).everywhere_s for edit in edits(0, self.edits, targets)]
        except (OSError, EOFError, RefusedError, keep_alive.WrongAnswerError) as error:
            raise WrongAnswerError(f"an edit failed: {error!r}") from error
        finally:
            await visibility.close()


@dataclass(frozen=True)
class ColdStart:
    """`relaygate serve` from its start to its first answers: on an empty data directory, then on what that left."""

    name: str = "cold-start"
    title: str = (
        "`relaygate serve` with one worker, from its start to the first relayed answer and the admin API's first"
    )

    def measure(self, upstreams: Upstreams, directory: Path) -> list[Reading]:
        readings = []
        for state in ("empty", "existing"):
            with serving(upstreams, directory) as system:
                readings += [
                    Reading(self.name, f"relay, {state} data", Unit.SECONDS, [system.relayed_s], COLD_START_S_MAX),
                    Reading(self.name, f"admin API, {state} data", Unit.SECONDS, [system.admin_s]),
                ]
        return readings


@dataclass(frozen=True)
class ServeMemory:
    """What all processes of `relaygate serve` weigh when they have nothing to do."""

    name: str = "serve-memory"
    title: str = "PSS of all processes of `relaygate serve` with one worker, at rest after one request to each plane"

    def measure(self, upstreams: Upstreams, directory: Path) -> list[Reading]:
        with serving(upstreams, directory) as system:
            time.sleep(REST_S)
            by_part = memory_by_part(system.supervisor)
        sizes = {"all processes": sum(by_part.values()), **by_part}
        return [Reading(self.name, part, Unit.BYTES, [size]) for part, size in sizes.items()]


def load(pairs: int, bursts: int) -> str:
    size = f"{len(REQUEST_BODY)}-byte POSTs on {CONNECTIONS} connections to each"
    return f"{size}, in {bursts} bursts of {BURST_S:g} s for each of {pairs} pairs of relays a round"


@contextlib.contextmanager
def echo_upstream(name: str, directory: Path) -> Iterator[Target]:
    port = free_port()
    command = [sys.executable, "-m", "loadtests.echo_upstream", str(port), name]
    with running(Launch(command, port, directory=REPOSITORY), directory / f"{name}.log"):
        yield Target(name, f"http://127.0.0.1:{port}")


def target(upstreams: Upstreams) -> str:
    return f"http://127.0.0.1:{upstreams.http.port}"


def many_routes(port: int) -> dict[str, str]:
    """10,000 prefixes of two or three segments with shared beginnings. Each target has an address of its own."""
    prefixes = map("".join, itertools.product(TEAMS, PROVIDERS, VARIANTS))
    return {prefix: f"http://127.1.{number // 250}.{number % 250 + 1}:{port}" for number, prefix in enumerate(prefixes)}


@contextlib.contextmanager
def embedded_redis(directory: Path) -> Iterator[str]:
    """The URL of a Redis as `relaygate serve` starts it. Raises `StartError`."""
    with asyncio.Runner() as runner:
        server = EmbeddedRedis(directory)
        try:
            runner.run(server.start())
        except ConfigError as error:
            raise StartError(str(error)) from error
        try:
            yield server.url
        finally:
            runner.run(server.stop())


def compared(directory: Path, ours: Variant, theirs: Variant, path: str, pairs: int, bursts: int) -> list[float]:
    """The ratios of their CPU times for each request.

    They are started anew for each pair: one pair of equal relays came out 2 % apart over all its bursts.
    """
    script = write_script(directory)

    def load(program: Running) -> WrkFigures:
        return run_wrk(script, program.port, CONNECTIONS, BURST_S, path)

    found = []
    with embedded_redis(directory / "redis") as url:
        for number in range(pairs):
            folder = directory / str(number)
            with relay(folder / "ours", url, ours) as our, relay(folder / "theirs", url, theirs) as their:
                for program in (our, their):
                    expect(exchange(program.port, "POST", path, REQUEST_BODY, REQUEST_HEADERS), ANSWER)
                    load(program)
                found += cpu_ratios(our, their, load, bursts)
    return found


def relay(directory: Path, redis_url: str, variant: Variant) -> contextlib.AbstractContextManager[Running]:
    """A relay with one worker, on the CPU that all of them share. Its files are in `directory`, which is made."""
    directory.mkdir(parents=True)
    settings = {"redis": {"url": redis_url}, "data_dir": str(directory), "routes": variant.routes}
    launch = relaygate_launch("proxy", free_port(), directory, settings)
    environment = {**launch.environment, **variant.environment}
    return running(on_one_cpu(replace(launch, environment=environment)), directory / "relay.log")
