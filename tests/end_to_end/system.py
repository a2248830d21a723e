"""The whole system of one machine, `relaygate serve`, with an admin client."""

import contextlib
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from loadtests.processes import family, free_port
from tests.end_to_end.relay_process import Relay
from tests.end_to_end.waiting import eventually

TOKEN = "an admin token for tests only"
LOGGED_S = 0.3
"""The access log is written ten times a second."""


class Answer(NamedTuple):
    status: int
    body: Any


class System(Relay):
    """`relaygate serve`: the relay, the admin app and the embedded Redis, in a data directory of its own."""

    command = ("-m", "admin", "serve")

    def __init__(
        self,
        directory: Path,
        configuration: Mapping[str, Any],
        client_tls: ssl.SSLContext | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.admin_port = free_port()
        admin = {"host": "127.0.0.1", "port": self.admin_port}
        whole = {"data_dir": str(directory / "data"), **configuration, "admin": admin}
        super().__init__(directory, whole, client_tls, {"ADMIN_TOKEN": TOKEN, **(environment or {})})

    def admin(self, method: str, path: str, body: Any = None, token: str = TOKEN) -> Answer:
        """One request to the admin API."""
        request = urllib.request.Request(
            f"{'https' if self.client_tls else 'http'}://127.0.0.1:{self.admin_port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json", "authorization": f"Bearer {token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=5, context=self.client_tls) as response:
                return Answer(response.status, json.loads(response.read() or b"null"))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, json.loads(error.read() or b"null"))

    def admin_answers(self) -> bool:
        try:
            return self.admin("GET", "/readyz").status == 200
        except OSError:
            return False

    def pids_of(self, pattern: str) -> set[int]:
        """Those of its processes whose command line holds `pattern`."""
        assert self.process is not None
        return set(family(self.process.pid, pattern))


@contextlib.contextmanager
def serving(
    directory: Path, settings: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> Iterator[System]:
    """A system whose admin API answers. On leaving it is ended, and its output is searched."""
    system = System(directory, settings, environment=environment)
    system.start()
    try:
        eventually(system.admin_answers, 15, what="the admin API")
        yield system
        system.stop()
    except BaseException:
        time.sleep(LOGGED_S)
        print(system.tail())  # pytest shows it with the failure
        raise
    finally:
        if system.process is not None and system.process.poll() is None:
            system.kill()
