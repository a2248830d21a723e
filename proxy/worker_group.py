"""A parent process and its workers: Granian's, where no worker's end or replacement costs a client its connection.

The parent holds the listening sockets (`listening.py`) and what the listener's TLS files held (`listener_tls.py`). To
change what workers are started with, it starts new ones beside the old, and when all of them serve, it **retires** the
old (`granian_worker.py`). A retired worker takes its time, and the parent waits for it only at its own end. Each second
the parent looks whether the TLS files have been renewed; a worker may ask it to look at once (`asking_parent.py`).
"""

import contextlib
import logging
import multiprocessing
import os
import queue
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from granian.constants import HTTPModes, Interfaces, Loops, RuntimeModes
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer, WorkerProcess

from proxy import listening
from proxy.asking_parent import RENEW
from proxy.config import ConfigError
from proxy.granian_worker import FROM_PARENT, LAST_WORDS_S, RETIRE, run_worker
from proxy.listener_tls import NO_TLS, LoadedTls, Renewals
from proxy.upstream.connection import WINDOW_BYTES

log = logging.getLogger("relaygate")

BACKLOG = 4096
START_TIMEOUT_S = 30.0
POLL_S = 0.02
LOOK_S = 1.0
"""How often the parent looks at the certificate's files."""
ONE_ORDER_S = 0.1
"""Signals that come closer to each other are one: a supervisor's death is told once for each of its threads."""


class Listener(NamedTuple):
    """What workers are started with. To change it is to replace them."""

    http: HTTPModes
    connections_max: int
    """Further ones wait to be accepted."""
    header_timeout_s: float
    tls: LoadedTls | None

    def close(self) -> None:
        """Forgets what only new workers would need."""
        if self.tls is not None:
            self.tls.close()


class Starting(NamedTuple):
    """A worker, and the end of a pipe into which it writes when it serves."""

    place: int
    worker: WorkerProcess
    ready: int


class Wakeup:
    """What the main loop waits for; a signal's handler may set it, or have something done by the main loop.

    It stands in for Granian's `threading.Event`, whose lock the main thread may hold when the handler wants it: a
    deadlock. `SimpleQueue.put` is reentrant by contract. Each `set` ends one `wait`, so there is nothing to clear.
    `at_rest` is done where a second has passed with nothing else to do.
    """

    def __init__(self, at_rest: Callable[[], None]) -> None:
        self._turns: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._at_rest = at_rest

    def set(self) -> None:
        self._turns.put(None)

    def do(self, task: Callable[[], None]) -> None:
        self._turns.put(task)

    def wait(self) -> None:
        while (task := self._next()) is not None:
            task()

    def _next(self) -> Callable[[], None] | None:
        try:
            return self._turns.get(timeout=LOOK_S)
        except queue.Empty:
            return self._at_rest

    def clear(self) -> None:
        pass


class WorkerGroup(MPServer):
    """Granian's parent process, with our sockets and signals. Workers are forked."""

    def __init__(self, title: str, host: str, port: int, workers: int, listener: Listener) -> None:
        super().__init__(
            "relaygate",
            address=host,
            port=port,
            interface=Interfaces.ASGI,
            workers=workers,
            runtime_mode=RuntimeModes.mt,
            loop=Loops.uvloop,
            log_level=LogLevels.error,
            respawn_failed_workers=True,
        )
        multiprocessing.set_start_method("fork", force=True)
        self._wakeup = Wakeup(self._look)
        self.main_loop_interrupt = self._wakeup  # type: ignore[assignment]
        self._title = title
        self._signals = 0
        self._signal_s = 0.0
        self._retired: list[WorkerProcess] = []
        self._listening: list[Any] = []
        self._use(listener)
        self._watch(listener)

    def run(self, load_app: Callable[[], Any]) -> None:
        """Serves until a signal ends it. `load_app` is called in each worker."""
        self.serve(spawn_target=run_worker, target_loader=load_app, wrap_loader=False)

    def drain_timeout_s(self) -> float:
        """Returns how long workers that were told to stop may take to end what they have."""
        raise NotImplementedError

    def replace(self, listener: Listener) -> bool:
        """Starts new workers in place of all. Where one does not start, nothing changes, and False is returned."""
        before = self._listener
        self._use(listener)
        fresh = [self._start(place) for place in range(self.workers)]
        replaced = not self._failed(fresh)
        workers = [one.worker for one in fresh]
        if replaced:
            workers, self.wrks = self.wrks, workers
            self._watch(listener)
            before, listener = listener, before
        else:
            self._use(before)
        listener.close()
        self._retire(workers)
        return replaced

    # Granian's own, in our way

    def startup(self, spawn_target: Any, target_loader: Any) -> None:
        self._load_app = target_loader
        signal.signal(RENEW, lambda *_: self._wakeup.do(self._renew))
        super().startup(spawn_target, target_loader)
        scheme = "http" if self._listener.tls is None else "https"
        host = f"[{self.bind_addr}]" if ":" in self.bind_addr else self.bind_addr
        if not self.interrupt_children and not self.interrupt_signal:
            print(f"relaygate: {self._title} {scheme}://{host}:{self.bind_port}", file=sys.stderr, flush=True)  # noqa: T201

    def signal_handler_interrupt(self, *args: Any, **kwargs: Any) -> None:
        now_s = time.monotonic()
        self._signals += now_s > self._signal_s + ONE_ORDER_S
        self._signal_s = now_s
        for worker in self.wrks:
            worker.interrupt_by_parent = True  # Ctrl-C reaches the workers as well; that is no failure of theirs
        super().signal_handler_interrupt(*args, **kwargs)

    def _init_shared_socket(self) -> None:
        self._listening = listening.bind(self.bind_addr, self.bind_port, BACKLOG, self.workers)
        self._sso = None

    def _drop_shared_socket(self) -> None:
        """While workers drain nobody accepts, so the sockets must end with theirs: clients are refused, and go on."""
        for socket in self._listening:
            os.close(socket.get_fd())

    def _spawn_workers(self, _spawn_target: Any, _target_loader: Any) -> None:
        starting = [self._start(place) for place in range(self.workers)]
        self.wrks = [one.worker for one in starting]
        self._await(starting)

    def _respawn_workers(self, *_: Any, **__: Any) -> None:
        """Replaces all that have died, whether Granian has noted them or, told of two at once, forgotten one.

        Granian gives up when one that it notes as respawned has ended within 5.5 s. Noted are those that did not come
        to serve: one that did and was killed is no reason to end the others.
        """
        starting = [self._start(place) for place in range(self.workers) if not self.wrks[place].is_alive()]
        for one in starting:
            self.wrks[one.place] = one.worker
        self.respawned_wrks = dict.fromkeys(self._await(starting), time.monotonic())

    def _stop_workers(self) -> None:
        """Lets the workers finish what they have, then has them break off the rest.

        A second signal ends the waiting.
        """
        self.wrks = [worker for worker in (*self.wrks, *self._retired) if worker.is_alive()]
        for worker in self.wrks:
            worker.terminate()
        if not self._ended_within(self.drain_timeout_s()):
            self._tell(signal.SIGUSR1, self.wrks)
            if not self._ended_within(LAST_WORDS_S):
                for worker in self.wrks:
                    worker.kill()
        for worker in self.wrks:
            worker.join(LAST_WORDS_S)
        self.wrks.clear()

    # Ours

    def _use(self, listener: Listener) -> None:
        self._listener = listener
        self.http = listener.http
        self.backpressure = listener.connections_max
        self.http1_settings = HTTP1Settings(
            header_read_timeout=int(listener.header_timeout_s * 1000), max_buffer_size=WINDOW_BYTES
        )
        self.ssl_ctx = NO_TLS if listener.tls is None else listener.tls.context

    def _watch(self, listener: Listener) -> None:
        """Has the files looked at that this listener is made of."""
        self._renewals = None if listener.tls is None else Renewals(listener.tls)

    def _look(self) -> None:
        """Takes files that have been renewed."""
        renewed = None if self._renewals is None else self._renewals.look()
        if renewed is not None:
            self._take(renewed)

    def _renew(self) -> None:
        """Takes what the files hold now, at somebody's word: they are looked at once, and what is wrong is told."""
        if self._listener.tls is None:
            return
        try:
            self._take(LoadedTls(self._listener.tls.settings))
        except ConfigError as error:
            log.error("certificate not reloaded, the one before stays in use: %s", error)  # noqa: TRY400 - a line

    def _take(self, tls: LoadedTls) -> None:
        """Replaces the workers where the files hold something else than what they were started with."""
        wanted = self._listener._replace(tls=tls)
        if wanted == self._listener:
            self._watch(wanted)
            wanted.close()
        elif self.replace(wanted):
            log.info("certificate reloaded: SHA-256 %s", tls.fingerprint)
        else:
            log.error("certificate not reloaded: new workers did not start, the old ones go on")

    def _start(self, place: int) -> Starting:
        """Starts a worker. Until it is known to serve, its end is not that of a worker in service.

        The signals of this parent wait in it until it can handle them. Where the system has no process or no thread to
        give, it is one that has ended.
        """
        self._retired = [one for one in self._retired if one.is_alive()]  # or it inherits the descriptors for them
        ready, told = os.pipe()
        self._shd = self._listening[place]
        run = partial(
            run_worker,
            ready=told,
            foreign=[socket.get_fd() for socket in self._listening if socket is not self._shd],
            idle_timeout_s=self._listener.header_timeout_s,
            drain_timeout_s=self.drain_timeout_s(),
        )
        worker = self._spawn_worker(place, run, self._load_app)
        worker.interrupt_by_parent = True
        signal.pthread_sigmask(signal.SIG_BLOCK, FROM_PARENT)
        try:
            worker.start()
        except (OSError, RuntimeError) as error:
            log.error("a worker cannot be started: %s", error)  # noqa: TRY400 - a line, not a traceback
            kill(worker)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, FROM_PARENT)
            os.close(told)
        return Starting(place, worker, ready)

    def _await(self, starting: Iterable[Starting]) -> list[int]:
        """Waits until workers serve. Returns the places of others, of which the main loop decides what becomes."""
        failed = [one.place for one in self._failed(starting)]
        if failed and not self.interrupt_signal:
            self.interrupt_children += failed
            self.main_loop_interrupt.set()
        return failed

    def _failed(self, starting: Iterable[Starting]) -> list[Starting]:
        """Waits until workers serve. Returns those that do not, which have ended then, unless all are told to."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        failed = [one for one in starting if not self._serves(one, deadline_s)]
        for one in failed:
            if not self.interrupt_signal:
                kill(one.worker)
        return failed

    def _serves(self, one: Starting, deadline_s: float) -> bool:
        """Waits until a worker serves; False if it ends first, takes too long, or the group is told to stop."""
        poll = select.poll()  # with many workers there are descriptors that `select` cannot watch
        poll.register(one.ready, select.POLLIN)
        with os.fdopen(one.ready, "rb") as ready:
            while not self.interrupt_signal and time.monotonic() < deadline_s:
                if poll.poll(POLL_S * 1000):
                    one.worker.interrupt_by_parent = not ready.read(1)
                    return not one.worker.interrupt_by_parent and one.worker.is_alive()
        return False

    def _retire(self, workers: Sequence[WorkerProcess]) -> None:
        for worker in workers:
            worker.interrupt_by_parent = True
        self._retired += workers
        self._tell(RETIRE, workers)

    def _ended_within(self, seconds: float) -> bool:
        deadline_s = time.monotonic() + seconds
        signals = self._signals
        while any(worker.is_alive() for worker in self.wrks):
            if time.monotonic() >= deadline_s or self._signals > signals:
                return False
            time.sleep(POLL_S)
        return True

    def _tell(self, signum: int, workers: Iterable[WorkerProcess]) -> None:
        """Sends a signal to those that live: the pid of one that has ended may be another's."""
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                if worker.is_alive():
                    os.kill(worker._id(), signum)  # noqa: SLF001 - Granian's only name for a worker's pid


def kill(worker: WorkerProcess) -> None:
    """Kills a worker that serves nobody, and returns when it has ended."""
    if worker.is_alive():
        worker.kill()
        worker.join()
