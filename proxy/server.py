"""The relay's process group: its settings, and what a reload does.

The parent reads the configuration and relays nothing. It passes SIGHUP on to its workers, and replaces them only where
what the listener is made of has changed (`worker_group.py`).
"""

import errno
import gc
import logging
import resource
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from granian.constants import HTTPModes

from proxy import logs
from proxy.app import Relay
from proxy.config import Config, ConfigError, HttpVersions, ListenerTls, warnings_of
from proxy.listener_tls import LoadedTls
from proxy.worker_group import Listener, WorkerGroup

log = logging.getLogger("relaygate")

BACKPRESSURE_MARGIN = 256
"""Connections that Granian takes above our cap, so that a client gets a 503 and not silence."""
DESCRIPTORS_BESIDE = 64
"""Open files of a worker that are no connections."""
GC_THRESHOLDS = (20_000, 20, 50)
LET_GO_S = 2.0
"""How long the workers of a parent that was killed may need to free its address."""
LOOK_AGAIN_S = 0.05

HTTP_MODES = {
    HttpVersions.BOTH: HTTPModes.auto,
    HttpVersions.HTTP1: HTTPModes.http1,
    HttpVersions.HTTP2: HTTPModes.http2,
}


class AppLoader:
    """Makes the application in each worker.

    It carries the last good configuration, so a worker that is replaced gets that one, and the fingerprint of the
    certificate that workers are started with (empty: of none).
    """

    def __init__(self, config: Config, reload: Callable[[], Config]) -> None:
        self.config = config
        self.reload = reload
        self.certificate = ""

    def __call__(self) -> Relay:
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        return Relay(self.config, self.reload, self.certificate)


class ProcessGroup(WorkerGroup):
    """The relay's parent process and its workers."""

    def __init__(self, loader: AppLoader) -> None:
        """Raises ConfigError."""
        server = loader.config.server
        self._loader = loader
        super().__init__("listening on", server.host, server.port, server.workers, listener(loader.config))

    def drain_timeout_s(self) -> float:
        return self._loader.config.server.drain_timeout_s

    def _use(self, listener: Listener) -> None:
        super()._use(listener)
        self._loader.certificate = "" if listener.tls is None else listener.tls.fingerprint

    def _reload(self, *_args: Any, **_kwargs: Any) -> None:
        """Reads the configuration again, in the main loop: a signal's handler may not log (it interrupts writes)."""
        self.reload_signal = False
        before = self._loader.config
        try:
            config = self._loader.reload()
            wanted = listener(config)
        except ConfigError as error:
            log.error("configuration not reloaded: %s", error)  # noqa: TRY400 - one line, not a traceback
            return
        self._loader.config = config
        if wanted == self._listener:
            self._watch(wanted)  # its files may have other names
            wanted.close()
            self._tell(signal.SIGHUP, self.wrks)
        elif not self.replace(wanted):
            self._loader.config = before
            log.error("configuration not reloaded: new workers did not start, the old ones go on")
            return
        self._tell(signal.SIGHUP, self._retired)  # their clients on HTTP/2 may ask for long
        if fixed_at_start(before) != fixed_at_start(config):
            log.warning("host, port, workers, log_level and tracing take effect at the next start")
        warn_of(config, before)


def run(config: Config, reload: Callable[[], Config]) -> int:
    """Serves until a signal ends it; returns the exit status. Raises ConfigError where the address cannot be had."""
    check_address("server", config.server.host, config.server.port)
    logs.start(config.server.log_level)
    raise_descriptor_limit(config.server.max_connections)
    warn_of(config)
    loader = AppLoader(config, reload)
    ProcessGroup(loader).run(loader)
    return 0


def warn_of(config: Config, before: Config | None = None) -> None:
    """Says what is no mistake in the settings, but may not be what somebody wants; what it was `before` has been
    said."""
    said = [] if before is None else warnings_of(before.routes, before.upstreams, before.credentials)
    for warning in warnings_of(config.routes, config.upstreams, config.credentials):
        if warning not in said:
            log.warning(warning)


def raise_descriptor_limit(connections_max: int) -> None:
    """Raises the soft limit of open files to the hard one, and warns where that is too low for `max_connections`.

    Each client's connection may need one to an upstream. Without descriptors Granian accepts in a busy loop.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    needed = 2 * connections_max + DESCRIPTORS_BESIDE
    if hard != resource.RLIM_INFINITY and hard < needed:
        log.warning("open files are limited to %d; max_connections: %d needs %d", hard, connections_max, needed)


def listener(config: Config) -> Listener:
    """Returns what workers are started with, and replaced for when it changes. Raises ConfigError."""
    server, tls = config.server, config.tls
    return Listener(
        http_mode(server.http, tls),
        server.max_connections + BACKPRESSURE_MARGIN,
        server.header_timeout_s,
        None if tls is None else LoadedTls(tls),
    )


def http_mode(versions: HttpVersions, tls: ListenerTls | None) -> HTTPModes:
    """Returns Granian's name for the versions of HTTP that are offered."""
    if versions is HttpVersions.AUTO:
        return HTTPModes.http1 if tls is None else HTTPModes.auto
    return HTTP_MODES[versions]


def fixed_at_start(config: Config) -> tuple[Any, ...]:
    """Returns the settings that a reload cannot change."""
    server = config.server
    return server.host, server.port, server.workers, server.log_level, server.tracing


def check_address(section: str, host: str, port: int) -> None:
    """Raises ConfigError, which names the section of the settings, where the address cannot be bound.

    Granian binds with SO_REUSEPORT, which would let two relays share a port without a word. The address is only bound
    here: a client that came while this listened would be reset when it no longer does.
    """
    deadline_s = time.monotonic() + LET_GO_S
    while True:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, kind, protocol, _, address = found[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            busy = error.errno == errno.EADDRINUSE
            if not busy or time.monotonic() > deadline_s:
                reason = "already in use" if busy else error.strerror or str(error)
                raise ConfigError(section, f"{host}:{port}", f"cannot listen here: {reason}") from None
            time.sleep(LOOK_AGAIN_S)
        else:
            return
