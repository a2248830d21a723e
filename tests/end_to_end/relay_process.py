"""The real `relaygate proxy`, started as a user starts it, and watched for what it must never print."""

import contextlib
import os
import re
import signal
import ssl
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from loadtests.processes import free_port
from tests.end_to_end.process_tree import descendants, is_alive, pss_bytes
from tests.end_to_end.raw_client import RawClient, Response
from tests.end_to_end.waiting import eventually

REPOSITORY = Path(__file__).resolve().parents[2]
START_DEADLINE_S = 20.0
STOP_DEADLINE_S = 20.0

# Every secret that a test sends through the relay has this in it, so one search finds them all.
CANARY = "canary-5ecret"

# What no output of a sound relay contains, whatever its clients and upstreams do.
FORBIDDEN = (
    "Traceback",
    "never retrieved",
    "was never awaited",
    "Task was destroyed",
    "Exception ignored",
    "panicked",
    "Unexpected exit",
    "were left",  # at the drain deadline: by then every client of the tests has gone, and so must its request
    CANARY,
)

JsonObject = dict[str, Any]


class Relay:
    """One relay process. `configuration` is the YAML as a mapping; host and port are filled in where absent."""

    command: Sequence[str] = ("-m", "proxy", "proxy")

    def __init__(
        self,
        directory: Path,
        configuration: Mapping[str, Any],
        client_tls: ssl.SSLContext | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.client_tls = client_tls
        self.environment = dict(environment or {})
        server = {
            "host": "127.0.0.1",
            "access_log": True,
            "allow_private_targets": True,
            "drain_timeout_s": 5.0,
            **configuration.get("server", {}),
        }
        self.host = str(server["host"])
        self.port = int(server.setdefault("port", free_port(self.host)))
        self.health_prefix = str(server.get("health_prefix", ""))
        self.configuration: JsonObject = {**configuration, "server": server}
        self.config_file = directory / "relaygate.yaml"
        self.output_file = directory / "output.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._checked_chars = 0
        self._told_to_stop = False

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.client_tls else 'http'}://{host}:{self.port}"

    # Its life

    def start(self) -> None:
        self.launch()
        eventually(self._answers, START_DEADLINE_S, what="the relay's /healthz")
        eventually(lambda: f":{self.port}" in self.output(), what="the line that says where it listens")

    def launch(self) -> None:
        """Start it without waiting for it."""
        self.write_configuration()
        self._told_to_stop = False
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.directory), "PYTHONPATH": str(REPOSITORY)}
        with self.output_file.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *self.command, "--config", str(self.config_file)],
                cwd=self.directory,
                env=environment | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def write_configuration(self) -> None:
        self.config_file.write_text(yaml.safe_dump(self.configuration), encoding="utf-8")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the relay did not start:\n{self.output()}"
        try:
            with self.client() as client:
                if self.configuration["server"].get("http") == "2":
                    return True  # the raw client speaks HTTP/1.1 only
                return client.request("GET", f"{self.health_prefix}/healthz").status == 200
        except ConnectionRefusedError:  # and nothing else: who is let in is answered
            return False

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self._told_to_stop = self._told_to_stop or number is signal.SIGTERM
        self.process.send_signal(number)

    def wait(self, deadline_s: float = STOP_DEADLINE_S) -> int:
        """The exit status."""
        assert self.process is not None
        return self.process.wait(timeout=deadline_s)

    def stop(self) -> None:
        """End it as an operator does, and assert that its end and its output are as they should be.

        One that has been told to stop is not told again: a second signal cuts the drain short.
        """
        assert self.process is not None
        family = self.pids()
        if self.process.poll() is None and not self._told_to_stop:
            self.signal(signal.SIGTERM)
        try:
            status = self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the relay did not end after SIGTERM:\n{self.tail()}") from None
        assert status == 0, f"exit status {status}:\n{self.tail()}"
        eventually(lambda: not any(map(is_alive, family)), 2, what="the end of all workers")
        self.check_output()

    def kill(self) -> None:
        assert self.process is not None
        family = self.pids()
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        eventually(lambda: not any(map(is_alive, family)), 5, what="the death of all workers")

    def pids(self) -> set[int]:
        """The relay's processes: the one that was started, and its workers."""
        assert self.process is not None
        return {self.process.pid} | descendants(self.process.pid)

    def memory_bytes(self) -> int:
        """The PSS of the whole process tree."""
        return sum(map(pss_bytes, self.pids()))

    # Its output

    def output(self) -> str:
        return self.output_file.read_text(encoding="utf-8", errors="replace")

    def tail(self) -> str:
        return self.output()[-4000:]

    def check_output(self) -> None:
        """Assert that nothing forbidden was printed since the last check."""
        output = self.output()
        fresh, self._checked_chars = output[self._checked_chars :], len(output)
        for word in FORBIDDEN:
            found = re.search(re.escape(word), fresh)
            assert found is None, f"{word!r} in the relay's output:\n{excerpt(fresh, found.start())}"

    def excuse_output(self) -> None:
        """Leave what has been printed so far unchecked, because the test has asked for it."""
        self._checked_chars = len(self.output())

    def check_flushed_output(self) -> None:
        """Check after the access log has been written, which happens some time after the answer."""
        marker = f"marker-{uuid.uuid4()}"
        self.request("GET", "/marker", [(b"X-Request-Id", marker.encode())])
        eventually(lambda: marker in self.output(), what="the access log's line")
        self.check_output()

    # Clients of it

    def client(self, *, receive_buffer_bytes: int = 0) -> RawClient:
        return RawClient(self.host, self.port, self.client_tls, receive_buffer_bytes=receive_buffer_bytes)

    def request(
        self,
        method: str,
        target: str | bytes,
        headers: Sequence[tuple[bytes, bytes]] = (),
        body: bytes | None = None,
    ) -> Response:
        """One request on a connection of its own."""
        with self.client() as client:
            return client.request(method, target, headers, body)

    def get(self, target: str | bytes) -> Response:
        return self.request("GET", target)


def excerpt(text: str, at: int) -> str:
    return text[max(0, at - 300) : at + 1500]


def refused_start(directory: Path, configuration: object) -> str:
    """Start with this configuration, and return the one line with which that is refused."""
    file = directory / "relaygate.yaml"
    file.write_text(configuration if isinstance(configuration, str) else yaml.safe_dump(configuration))
    finished = subprocess.run(
        [sys.executable, "-m", "proxy", "proxy", "--config", str(file)],
        cwd=directory,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    said = (finished.stdout + finished.stderr).strip()
    assert finished.returncode == 2, said
    assert "Traceback" not in said
    assert "\n" not in said
    return said
