"""The admin API as the process that it is in service: Granian, a worker, services in memory.

Run as a program it is that process; imported, it starts one.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from litestar import Litestar

from admin import server
from admin.app import create_app
from admin.control_plane import over_grpc
from admin.live_log import LiveLog
from loadtests.processes import free_port
from proxy import logs
from proxy.config import Backend, Grpc, ListenerTls, LogLevel, Upstream
from tests.admin.api import TOKEN_HASH, there
from tests.admin.memory import Memory
from tests.end_to_end.certificates import Pair
from tests.end_to_end.relay_process import REPOSITORY
from tests.end_to_end.waiting import eventually

START_DEADLINE_S = 30.0
STOP_DEADLINE_S = 20.0


def make(listening_s: float = 0, grpc: Grpc = Grpc()) -> Litestar:  # noqa: B008 - it is frozen
    """`listening_s` is how long one may listen to the live log. The only backend has the worker's number as its id."""
    memory = Memory()
    memory.about_keys.live_log = LiveLog(lifetime_s=listening_s)
    backend = Backend(url="http://127.0.0.1:1", id=str(os.getpid()))
    memory.about_balancing.upstreams["default"] = Upstream(backends=(backend,))
    lifespan = over_grpc(grpc, memory.management(), memory.actions)
    return create_app(memory.services, token_hash=TOKEN_HASH, probes={"database": there}, lifespan=lifespan)


class Admin:
    """A running process, and what it printed."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, output: Path) -> None:
        self.process = process
        self.port = port
        self._output = output

    def output(self) -> str:
        return self._output.read_text()


@contextmanager
def running(
    directory: Path, pair: Pair | None = None, *, listening_s: float = 0, grpc_port: int = 0
) -> Iterator[Admin]:
    """A process that listens on a port of its own; stopped, and found to have ended well, at the end.

    Where `grpc_port` is given, the management service is there too.
    """
    port = free_port()
    files = [] if pair is None else [str(pair.certificate), str(pair.key)]
    with (directory / "output.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.admin.admin_process", str(port), str(listening_s), str(grpc_port), *files],
            cwd=REPOSITORY,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    admin = Admin(process, port, directory / "output.log")
    try:
        eventually(lambda: _accepts(admin), START_DEADLINE_S, what="a connection to the admin API")
        yield admin
        process.terminate()
        assert process.wait(STOP_DEADLINE_S) == 0, admin.output()
        assert "Traceback" not in admin.output(), admin.output()
    finally:
        process.kill()
        process.wait()


def _accepts(admin: Admin) -> bool:
    assert admin.process.poll() is None, admin.output()
    try:
        with socket.create_connection(("127.0.0.1", admin.port), timeout=1):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    listening_port, seconds, grpc_listening_port, *tls_files = sys.argv[1:]
    tls = ListenerTls(certificate=tls_files[0], key=tls_files[1]) if tls_files else None
    over = Grpc(enabled=True, port=int(grpc_listening_port)) if grpc_listening_port != "0" else Grpc()
    logs.start(LogLevel.INFO)
    server.run(partial(make, float(seconds), over), server.Listener("127.0.0.1", int(listening_port), tls))
