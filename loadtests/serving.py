"""`relaygate serve` under observation: how soon it answers, and which of its processes is which."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from loadtests.cases import WrongAnswerError, exchange, expect
from loadtests.measure import pss_bytes
from loadtests.processes import START_TIMEOUT_S, StartError, children, free_port, running
from loadtests.servers import RELAYGATE_ROUTE_LIMITS, relaygate_launch
from loadtests.upstreams import ANSWER, Upstreams
from loadtests.wrk import REQUEST_BODY, REQUEST_HEADERS, REQUEST_PATH

ADMIN_TOKEN = "an admin token for load tests only"
LOOK_AGAIN_S = 0.01
ALIVE = b'{"status":"ok"}'
# What a child's command line has in it, and what it is.
PARTS = {"redis-server": "Redis", "valkey-server": "Redis", " admin admin ": "admin API", " admin proxy ": "relay"}


@dataclass(frozen=True)
class Serving:
    """A system that answers. The times are from its start to the first relayed answer, and to the admin API's first."""

    supervisor: int
    port: int
    admin_port: int
    relayed_s: float
    admin_s: float


@contextlib.contextmanager
def serving(
    upstreams: Upstreams, directory: Path, workers: int = 1, routes: Mapping[str, object] | None = None
) -> Iterator[Serving]:
    """Start it with a route for `REQUEST_PATH` and `routes`, its data in `directory`; end it on leaving.

    Raises `StartError`.
    """
    admin_port = free_port()
    route = {"target": f"http://127.0.0.1:{upstreams.http.port}{REQUEST_PATH}", **RELAYGATE_ROUTE_LIMITS}
    settings = {
        "admin": {"port": admin_port, "token": ADMIN_TOKEN},
        "data_dir": str(directory / "data"),
        "routes": {REQUEST_PATH: route, **(routes or {})},
    }
    launch = relaygate_launch("serve", free_port(), directory, settings, workers=workers)
    began_s = time.monotonic()
    with running(launch, directory / "serve.log") as program:
        wait_for(lambda: expect(exchange(program.port, "POST", REQUEST_PATH, REQUEST_BODY, REQUEST_HEADERS), ANSWER))
        relayed_s = time.monotonic() - began_s
        wait_for(lambda: expect(exchange(admin_port, "GET", "/health", None, {}), ALIVE))
        admin_s = time.monotonic() - began_s
        yield Serving(program.session, program.port, admin_port, relayed_s, admin_s)


def wait_for(ask: Callable[[], None]) -> None:
    """Ask until the answer is right. Raises `StartError` when that takes too long."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            return ask()
        except WrongAnswerError as error:
            if time.monotonic() > deadline_s:
                raise StartError(f"no right answer after {START_TIMEOUT_S:g} s: {error}") from error
        time.sleep(LOOK_AGAIN_S)


def memory_by_part(supervisor: int) -> dict[str, int]:
    """Bytes (PSS) by process: the supervisor, each of its children by name, and their children as workers."""
    sizes = {"supervisor": pss_bytes(supervisor)}
    for child in sorted(children(supervisor)):
        part = part_of(child)
        workers = children(child)
        sizes[f"{part}, parent" if workers else part] = pss_bytes(child)
        if workers:
            sizes[f"{part}, worker"] = sum(map(pss_bytes, workers))
    return sizes


def part_of(process: int) -> str:
    words = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return next((part for mark, part in PARTS.items() if mark in words), words.split()[0])
