"""The admin API's process: Granian with one worker, which gives way to the data plane.

Its parent restarts the worker if it dies, and passes signals on. SIGTERM lets running requests end.
"""

import logging
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from granian.constants import HTTPModes
from litestar import Litestar

from admin.context import Services
from proxy import worker_group
from proxy.config import ConfigError, ListenerTls
from proxy.listener_tls import LoadedTls
from proxy.server import check_address
from proxy.worker_group import WorkerGroup

log = logging.getLogger("relaygate")

NICENESS = 10
"""How much the kernel prefers the data plane when both want the processor."""
HEADER_TIMEOUT_S = 30.0
CONNECTIONS_MAX = 1024
DRAIN_TIMEOUT_S = 10.0


class Listener(NamedTuple):
    """Where the admin API listens. With TLS it offers HTTP/1.1 and HTTP/2, else HTTP/1.1."""

    host: str
    port: int
    tls: ListenerTls | None = None


class App:
    """The application as Granian's workers run it."""

    def __init__(self, litestar: Litestar) -> None:
        self._litestar = litestar

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        return self._litestar(scope, receive, send)

    def holds_connections(self) -> bool:
        """None of its answers takes as long as a connection may idle, but for streams, whose clients come back."""
        return False

    def retiring(self) -> None:
        """Has other listeners than Granian's leave their addresses to the worker that comes next."""
        for leave in self._litestar.state.leaving:
            leave()

    def stopping(self) -> None:
        """Ends what would not end by itself."""
        services: Services = self._litestar.state.services
        services.about_keys.live_log.close()
        self.retiring()


class AppLoader:
    """Makes the application in the worker, and makes the worker nice."""

    def __init__(self, make: Callable[[], Litestar]) -> None:
        self._make = make

    def __call__(self) -> App:
        os.nice(NICENESS)
        return App(self._make())


class AdminServer(WorkerGroup):
    """The parent process of one worker."""

    def __init__(self, listener: Listener, reload: Callable[[], Listener | None]) -> None:
        """Raises ConfigError."""
        super().__init__("admin API on", listener.host, listener.port, 1, terms(listener))
        self._reload_settings = reload

    def drain_timeout_s(self) -> float:
        return DRAIN_TIMEOUT_S

    def replace(self, listener: worker_group.Listener) -> bool:
        self._tell(signal.SIGTERM, self._retired)  # one generation at most: each is another 50 MB and a publisher
        return super().replace(listener)

    def _reload(self, *_args: Any, **_kwargs: Any) -> None:
        self.reload_signal = False
        listener = self._reload_settings()
        if listener is None:
            return
        try:
            replaced = self.replace(terms(listener))
        except ConfigError as error:
            log.error("configuration not reloaded: %s", error)  # noqa: TRY400 - a line, not a traceback
            return
        if not replaced:
            log.error("configuration not reloaded: a new worker did not start, the old one goes on")


def terms(listener: Listener) -> worker_group.Listener:
    """Returns what the worker is started with. Raises ConfigError."""
    tls = None if listener.tls is None else LoadedTls(listener.tls)
    mode = HTTPModes.http1 if tls is None else HTTPModes.auto
    return worker_group.Listener(mode, CONNECTIONS_MAX, HEADER_TIMEOUT_S, tls)


def run(make: Callable[[], Litestar], listener: Listener, reload: Callable[[], Listener | None] | None = None) -> None:
    """Serves what `make` returns, which is called in the worker, until a signal ends it.

    SIGHUP calls `reload`, and where that returns a listener the worker is replaced; its address stays what it was.
    Raises ConfigError where the address cannot be had or the certificate cannot be used.
    """
    check_address("admin", listener.host, listener.port)
    AdminServer(listener, reload or (lambda: listener)).run(AppLoader(make))
