"""The process group: Granian with our settings, drain and reload.

The parent reads the configuration and relays nothing. It forwards SIGHUP to its workers instead of replacing them, and
after SIGTERM gives them `drain_timeout_s` before it tells them to break off what is left.
"""

import contextlib
import errno
import gc
import logging
import os
import queue
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from granian.constants import HTTPModes, Interfaces, Loops, RuntimeModes, SSLProtocols
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer

from proxy.app import Relay
from proxy.config import Config, ConfigError, HttpVersions, ListenerTls
from proxy.granian_worker import run_worker
from proxy.upstream.connection import WINDOW_BYTES

log = logging.getLogger("relaygate")

LAST_WORDS_S = 2.0
"""How long a worker may take to end after the drain deadline, before it is killed."""
BACKPRESSURE_MARGIN = 256
"""Connections that Granian takes above our cap, so that a client gets a 503 and not silence."""
BACKLOG = 4096
DESCRIPTORS_BESIDE = 64
"""Open files of a worker that are no connections."""
GC_THRESHOLDS = (20_000, 20, 50)
POLL_S = 0.02

HTTP_MODES = {
    HttpVersions.BOTH: HTTPModes.auto,
    HttpVersions.HTTP1: HTTPModes.http1,
    HttpVersions.HTTP2: HTTPModes.http2,
}


class AppLoader:
    """Makes the application in each worker.

    It carries the last good configuration, so a worker that is replaced gets that one.
    """

    def __init__(self, config: Config, reload: Callable[[], Config]) -> None:
        self.config = config
        self.reload = reload

    def __call__(self) -> Relay:
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        return Relay(self.config, self.reload)


class Wakeup:
    """What the main loop waits for; a signal's handler may set it.

    It stands in for Granian's `threading.Event`, whose lock the main thread may hold when the handler wants it: a
    deadlock. `SimpleQueue.put` is reentrant by contract. Each `set` ends one `wait`, so there is nothing to clear.
    """

    def __init__(self) -> None:
        self._turns: queue.SimpleQueue[None] = queue.SimpleQueue()

    def set(self) -> None:
        self._turns.put(None)

    def wait(self) -> None:
        self._turns.get()

    def clear(self) -> None:
        pass


class ProcessGroup(MPServer):
    """Granian's parent process, with our signals."""

    def __init__(self, loader: AppLoader) -> None:
        server = loader.config.server
        tls = loader.config.tls
        super().__init__(
            "relaygate",
            address=server.host,
            port=server.port,
            interface=Interfaces.ASGI,
            workers=server.workers,
            runtime_mode=RuntimeModes.mt,
            loop=Loops.uvloop,
            http=http_mode(server.http, tls),
            backlog=BACKLOG,
            backpressure=server.max_connections + BACKPRESSURE_MARGIN,
            http1_settings=HTTP1Settings(
                header_read_timeout=int(server.header_timeout_s * 1000), max_buffer_size=WINDOW_BYTES
            ),
            log_level=LogLevels.error,
            ssl_cert=None if tls is None else Path(tls.certificate),
            ssl_key=None if tls is None else Path(tls.key),
            ssl_ca=None if tls is None or tls.client_ca is None else Path(tls.client_ca),
            ssl_protocol_min=SSLProtocols.tls12,
            ssl_client_verify=tls is not None and tls.client_ca is not None,
            respawn_failed_workers=True,
        )
        self.main_loop_interrupt = Wakeup()  # type: ignore[assignment]
        self._loader = loader
        self._signals = 0

    def run(self) -> None:
        """Serves until a signal ends it."""
        self.serve(spawn_target=run_worker, target_loader=self._loader, wrap_loader=False)

    def startup(self, spawn_target: Any, target_loader: Any) -> None:
        super().startup(spawn_target, target_loader)
        scheme = "http" if self._loader.config.tls is None else "https"
        host = f"[{self.bind_addr}]" if ":" in self.bind_addr else self.bind_addr
        if self._accepts():
            print(f"relaygate: listening on {scheme}://{host}:{self.bind_port}", file=sys.stderr, flush=True)  # noqa: T201

    def signal_handler_interrupt(self, *args: Any, **kwargs: Any) -> None:
        self._signals += 1
        for worker in self.wrks:
            worker.interrupt_by_parent = True  # Ctrl-C reaches the workers as well; that is no failure of theirs
        super().signal_handler_interrupt(*args, **kwargs)

    def _reload(self, *_args: Any, **_kwargs: Any) -> None:
        """Reads the configuration again, in the main loop: a signal's handler may not log (it interrupts writes)."""
        self.reload_signal = False
        try:
            config = self._loader.reload()
        except ConfigError as error:
            log.error("configuration not reloaded: %s", error)  # noqa: TRY400 - one line, not a traceback
            return
        before, self._loader.config = self._loader.config, config
        if fixed_at_start(before) != fixed_at_start(config):
            log.warning("the listener's own settings take effect at the next start")
        self._tell(signal.SIGHUP)

    def _stop_workers(self) -> None:
        """Lets the workers finish what they have, then has them break off the rest.

        A second signal ends the waiting.
        """
        for worker in self.wrks:
            worker.terminate()
        if not self._ended_within(self._loader.config.server.drain_timeout_s):
            self._tell(signal.SIGUSR1)
            if not self._ended_within(LAST_WORDS_S):
                for worker in self.wrks:
                    worker.kill()
        for worker in self.wrks:
            worker.join(LAST_WORDS_S)
        self.wrks.clear()

    def _ended_within(self, seconds: float) -> bool:
        deadline_s = time.monotonic() + seconds
        signals = self._signals
        while any(worker.is_alive() for worker in self.wrks):
            if time.monotonic() >= deadline_s or self._signals > signals:
                return False
            time.sleep(POLL_S)
        return True

    def _tell(self, signum: int) -> None:
        for worker in self.wrks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker._id(), signum)  # noqa: SLF001 - Granian's only name for a worker's pid

    def _accepts(self) -> bool:
        """Waits until a connection is accepted; gives up when a worker has ended."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.bind_addr, self.bind_addr)  # noqa: S104
        while not self.interrupt_children and not self.interrupt_signal:
            with contextlib.suppress(OSError), socket.create_connection((host, self.bind_port), timeout=1):
                return True
            time.sleep(POLL_S)
        return False


def run(config: Config, reload: Callable[[], Config]) -> int:
    """Serves until a signal ends it; returns the exit status. Raises ConfigError where the address cannot be had."""
    check_address(config.server.host, config.server.port)
    logging.basicConfig(
        level=config.server.log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    raise_descriptor_limit(config.server.max_connections)
    ProcessGroup(AppLoader(config, reload)).run()
    return 0


def raise_descriptor_limit(connections_max: int) -> None:
    """Raises the soft limit of open files to the hard one, and warns where that is too low for `max_connections`.

    Each client's connection may need one to an upstream. Without descriptors Granian accepts in a busy loop.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    needed = 2 * connections_max + DESCRIPTORS_BESIDE
    if hard != resource.RLIM_INFINITY and hard < needed:
        log.warning("open files are limited to %d; max_connections: %d needs %d", hard, connections_max, needed)


def http_mode(versions: HttpVersions, tls: ListenerTls | None) -> HTTPModes:
    """Returns Granian's name for the versions of HTTP that are offered."""
    if versions is HttpVersions.AUTO:
        return HTTPModes.http1 if tls is None else HTTPModes.auto
    return HTTP_MODES[versions]


def fixed_at_start(config: Config) -> tuple[Any, ...]:
    """Returns the settings that a reload cannot change."""
    server = config.server
    return (
        server.host,
        server.port,
        server.workers,
        server.http,
        server.max_connections,
        server.header_timeout_s,
        server.log_level,
        config.tls,
    )


def check_address(host: str, port: int) -> None:
    """Raises ConfigError where the address cannot be bound.

    Granian binds with SO_REUSEPORT, which would let two relays share a port without a word.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        reason = "already in use" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        raise ConfigError("server", f"{host}:{port}", f"cannot listen here: {reason}") from None
