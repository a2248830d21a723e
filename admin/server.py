"""The admin API's process: Granian with one worker, which gives way to the data plane.

Its parent restarts the worker if it dies, and passes signals on. SIGTERM lets running requests end.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from granian.constants import HTTPModes, Interfaces, Loops, SSLProtocols
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer
from litestar import Litestar

from proxy.config import ListenerTls
from proxy.server import Wakeup, check_address

NICENESS = 10
"""How much the kernel prefers the data plane when both want the processor."""
HEADER_TIMEOUT_S = 30.0
BUFFER_BYTES = 32 * 1024
CONNECTIONS_MAX = 1024
DRAIN_TIMEOUT_S = 10


class Listener(NamedTuple):
    """Where the admin API listens. With TLS it offers HTTP/1.1 and HTTP/2, else HTTP/1.1."""

    host: str
    port: int
    tls: ListenerTls | None = None


class AppLoader:
    """Makes the application in the worker, and makes the worker nice."""

    def __init__(self, make: Callable[[], Litestar]) -> None:
        self._make = make

    def __call__(self) -> Litestar:
        os.nice(NICENESS)
        return self._make()


class AdminServer(MPServer):
    """Granian's parent process of one worker."""

    def __init__(self, listener: Listener, reload: Callable[[], bool]) -> None:
        tls = listener.tls
        super().__init__(
            "relaygate-admin",
            address=listener.host,
            port=listener.port,
            interface=Interfaces.ASGI,
            workers=1,
            loop=Loops.uvloop,
            http=HTTPModes.http1 if tls is None else HTTPModes.auto,
            websockets=False,
            backpressure=CONNECTIONS_MAX,
            http1_settings=HTTP1Settings(
                header_read_timeout=int(HEADER_TIMEOUT_S * 1000), max_buffer_size=BUFFER_BYTES
            ),
            log_level=LogLevels.error,
            ssl_cert=None if tls is None else Path(tls.certificate),
            ssl_key=None if tls is None else Path(tls.key),
            ssl_ca=None if tls is None or tls.client_ca is None else Path(tls.client_ca),
            ssl_protocol_min=SSLProtocols.tls12,
            ssl_client_verify=tls is not None and tls.client_ca is not None,
            respawn_failed_workers=True,
            workers_kill_timeout=DRAIN_TIMEOUT_S,
        )
        self.main_loop_interrupt = Wakeup()  # type: ignore[assignment]
        self._scheme = "http" if tls is None else "https"
        self._reload_settings = reload

    def startup(self, spawn_target: Any, target_loader: Any) -> None:
        super().startup(spawn_target, target_loader)
        host = f"[{self.bind_addr}]" if ":" in self.bind_addr else self.bind_addr
        print(f"relaygate: admin API on {self._scheme}://{host}:{self.bind_port}", file=sys.stderr, flush=True)  # noqa: T201

    def signal_handler_interrupt(self, *args: Any, **kwargs: Any) -> None:
        for worker in self.wrks:
            worker.interrupt_by_parent = True  # Ctrl-C reaches the worker as well; that is no failure of its
        super().signal_handler_interrupt(*args, **kwargs)

    def _reload(self, *args: Any, **kwargs: Any) -> None:
        self.reload_signal = False
        if self._reload_settings():
            super()._reload(*args, **kwargs)


def run(make: Callable[[], Litestar], listener: Listener, reload: Callable[[], bool] = lambda: True) -> None:
    """Serves what `make` returns, which is called in the worker, until a signal ends it.

    SIGHUP calls `reload`, and where that returns True the worker is replaced.
    Raises ConfigError where the address cannot be had.
    """
    check_address(listener.host, listener.port)
    AdminServer(listener, reload).serve(target_loader=AppLoader(make), wrap_loader=False)
