"""Locust scenarios against a relay of their own: it starts the upstreams and relaygate, runs Locust, and judges.

    python -m loadtests.locust_run json|sse|upload|websocket|all --users 20 --seconds 10

Prints Locust's summary of each scenario. Exit status: 0 when every answer was right, 1 when one was not or none came,
2 when it could not run.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.processes import Launch, StartError, exit_on_signals, free_port, raise_open_files_limit, running
from loadtests.upstreams import REPOSITORY

SCENARIOS = ("json", "sse", "upload", "websocket")
# Route prefix of each upstream, as the scenarios ask for it, and the program's arguments before its port.
UPSTREAMS = {
    "/fake": ("loadtests.fake_upstream", "--port"),
    "/sink": ("loadtests.streaming_upstream",),
    "/websocket": ("loadtests.websocket_upstream",),
}
FORGET_INTERVAL_S = 0.5
STOP_TIMEOUT_S = 30
LOCUST_TIMEOUT_S = 60
# 0 and 1 are Locust's own; the third is `locust_verdict.py`'s.
NO_REQUEST = 3
EXIT_STATUSES = {0: None, 1: "answers were wrong", NO_REQUEST: "no request was made"}


@dataclass(frozen=True)
class Relay:
    """A running relay and the port of the fake upstream behind it."""

    port: int
    fake_port: int


@contextlib.contextmanager
def relay(directory: Path, workers: int) -> Iterator[Relay]:
    """Relaygate in front of every upstream that a scenario needs. Raises `StartError`."""
    with contextlib.ExitStack() as stack:
        ports = {}
        for prefix, (module, *options) in UPSTREAMS.items():
            ports[prefix] = free_port()
            command = [sys.executable, "-m", module, *options, str(ports[prefix])]
            launch = Launch(command, ports[prefix], directory=REPOSITORY)
            stack.enter_context(running(launch, directory / f"{module}.log"))
        port = free_port()
        configuration = directory / "relaygate.yaml"
        configuration.write_text(relay_configuration(port, workers, ports))
        command = [sys.executable, "-m", "proxy", "proxy", "--config", str(configuration)]
        stack.enter_context(running(Launch(command, port, directory=REPOSITORY), directory / "relaygate.log"))
        yield Relay(port, ports["/fake"])


def relay_configuration(port: int, workers: int, upstream_ports: dict[str, int]) -> str:
    """The relay's YAML, written as JSON, which YAML contains."""
    routes = {prefix: {"target": f"http://127.0.0.1:{target}"} for prefix, target in upstream_ports.items()}
    server = {"host": "127.0.0.1", "port": port, "workers": workers, "allow_private_targets": True}
    return json.dumps({"server": server, "routes": routes})


def run_scenario(scenario: str, target: Relay, users: int, seconds: int) -> str | None:
    """Let Locust run one scenario and print its summary; what was wrong, None if nothing was."""
    files = ",".join(str(Path(__file__).with_name(name)) for name in (f"locustfile_{scenario}.py", "locust_verdict.py"))
    command = [sys.executable, "-m", "locust", "-f", files]
    command += ["--headless", "--only-summary", "--users", str(users), "--spawn-rate", str(users)]
    command += ["--run-time", f"{seconds}s", "--stop-timeout", str(STOP_TIMEOUT_S)]
    command += ["--host", f"http://127.0.0.1:{target.port}"]
    print(f"\n{scenario}: {users} users for {seconds} s", flush=True)
    locust = subprocess.Popen(command, cwd=REPOSITORY)
    try:
        deadline = time.monotonic() + seconds + STOP_TIMEOUT_S + LOCUST_TIMEOUT_S
        while locust.poll() is None and time.monotonic() < deadline:
            forget_requests(target.fake_port)
            time.sleep(FORGET_INTERVAL_S)
    finally:
        locust.kill()
        locust.wait()
    return EXIT_STATUSES.get(locust.returncode, f"Locust ended with {locust.returncode}")


def forget_requests(fake_port: int) -> None:
    """Empty the fake upstream's record of requests, which tests look at, and which would take all memory under load."""
    # If it has died, Locust's figures say so.
    with contextlib.suppress(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{fake_port}/_control/reset", timeout=10).close()


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.locust_run", description=__doc__.partition("\n")[0])
    parser.add_argument("scenario", choices=(*SCENARIOS, "all"))
    parser.add_argument("--users", type=int, default=20, help="at once (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=10, help="for each scenario (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="of the relay (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    options = arguments(argv)
    exit_on_signals()
    raise_open_files_limit()
    chosen = SCENARIOS if options.scenario == "all" else (options.scenario,)
    with tempfile.TemporaryDirectory(prefix="relaygate-locust-") as directory:
        try:
            with relay(Path(directory), options.workers) as target:
                faults = {name: run_scenario(name, target, options.users, options.seconds) for name in chosen}
        except StartError as error:
            print(error, file=sys.stderr)
            return 2
    wrong = [f"{scenario}: {fault}" for scenario, fault in faults.items() if fault]
    print("\n".join(wrong) if wrong else f"every answer was right: {', '.join(chosen)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
