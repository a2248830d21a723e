"""The cases of relaygate alone: what its parts cost it, and how long it takes to do what no rival does.

Each is measured once a round, with processes started afresh, and gives readings instead of a sample: ratios between two
variants of the relay (`paired.py`), seconds, bytes.
"""

import asyncio
import contextlib
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from loadtests import keep_alive
from loadtests.cases import WrongAnswerError
from loadtests.edit_visibility import MOVING, EditVisibility, RefusedError, Target, edits
from loadtests.processes import Launch, free_port, running
from loadtests.relay_pairs import Variant, compared, load, target
from loadtests.samples import Reading, Unit, percentile
from loadtests.serving import ADMIN_TOKEN, Serving, memory_by_part, serving
from loadtests.upstreams import REPOSITORY, Upstreams
from loadtests.wrk import REQUEST_PATH

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


@contextlib.contextmanager
def echo_upstream(name: str, directory: Path) -> Iterator[Target]:
    port = free_port()
    command = [sys.executable, "-m", "loadtests.echo_upstream", str(port), name]
    with running(Launch(command, port, directory=REPOSITORY), directory / f"{name}.log"):
        yield Target(name, f"http://127.0.0.1:{port}")


def many_routes(port: int) -> dict[str, str]:
    """10,000 prefixes of two or three segments with shared beginnings. Each target has an address of its own."""
    prefixes = map("".join, itertools.product(TEAMS, PROVIDERS, VARIANTS))
    return {prefix: f"http://127.1.{number // 250}.{number % 250 + 1}:{port}" for number, prefix in enumerate(prefixes)}
