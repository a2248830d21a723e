"""Two relays that differ in one thing, each with one worker, both with the same embedded Redis: what each costs.

`paired.py` says how they are measured.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from loadtests.cases import exchange, expect
from loadtests.paired import cpu_ratios, on_one_cpu
from loadtests.processes import Launch, Running, StartError, free_port, running
from loadtests.servers import relaygate_launch
from loadtests.upstreams import ANSWER, Upstreams
from loadtests.wrk import REQUEST_BODY, REQUEST_HEADERS, WrkFigures, run_wrk, write_script
from proxy.config import ConfigError
from proxy.shared_state.embedded import EmbeddedRedis

CONNECTIONS = 64
BURST_S = 1.0
KNOWN_S = 5.0
"""How long a relay may take to know what is in its Redis."""
LOOK_AGAIN_S = 0.01
UNAVAILABLE = 503


class Variant(NamedTuple):
    """What one of two relays gets that are compared."""

    routes: Mapping[str, object]
    environment: Mapping[str, str]
    upstreams: Mapping[str, object] = {}


def load(pairs: int, bursts: int) -> str:
    size = f"{len(REQUEST_BODY)}-byte POSTs on {CONNECTIONS} connections to each"
    return f"{size}, in {bursts} bursts of {BURST_S:g} s for each of {pairs} pairs of relays a round"


def target(upstreams: Upstreams) -> str:
    return f"http://127.0.0.1:{upstreams.http.port}"


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
    """The ratios of their CPU times for each request, with an empty Redis."""
    with embedded_redis(directory / "redis") as url:
        return compared_at(url, directory, ours, theirs, path, pairs, bursts)


def compared_at(
    redis_url: str, directory: Path, ours: Variant, theirs: Variant, path: str, pairs: int, bursts: int
) -> list[float]:
    """The same with a Redis that has something in it.

    The relays are started anew for each pair: one pair of equal ones came out 2 % apart over all its bursts.
    """
    script = write_script(directory)

    def load(program: Running) -> WrkFigures:
        return run_wrk(script, program.port, CONNECTIONS, BURST_S, path)

    found = []
    for number in range(pairs):
        folder = directory / str(number)
        with relay(folder / "ours", redis_url, ours) as our, relay(folder / "theirs", redis_url, theirs) as their:
            for program in (our, their):
                expect(first_answer(program.port, path), ANSWER)
                load(program)
            found += cpu_ratios(our, their, load, bursts)
    return found


def first_answer(port: int, path: str) -> tuple[int, bytes]:
    """What a relay answers once it knows what is in Redis: until then, it may have no key to send a request with."""
    deadline_s = time.monotonic() + KNOWN_S
    while True:
        answer = exchange(port, "POST", path, REQUEST_BODY, REQUEST_HEADERS)
        if answer[0] != UNAVAILABLE or time.monotonic() > deadline_s:
            return answer
        time.sleep(LOOK_AGAIN_S)


def relay(directory: Path, redis_url: str, variant: Variant) -> contextlib.AbstractContextManager[Running]:
    """A relay with one worker, on the CPU that all of them share. Its files are in `directory`, which is made."""
    return running(on_one_cpu(relay_launch(directory, redis_url, variant)), directory / "relay.log")


def relay_launch(directory: Path, redis_url: str, variant: Variant) -> Launch:
    """The same on any CPU."""
    directory.mkdir(parents=True)
    settings = {"redis": {"url": redis_url}, "data_dir": str(directory), "routes": variant.routes}
    if variant.upstreams:
        settings["upstreams"] = variant.upstreams
    launch = relaygate_launch("proxy", free_port(), directory, settings)
    return replace(launch, environment={**launch.environment, **variant.environment})
