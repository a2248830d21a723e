"""A worker process around Granian's ASGI worker, with two changes: how a request begins, and how a worker ends.

A request is begun when its body has begun to come. Granian's own worker wakes the event loop with a request, and the
application then asks for the body: two more thread hops, 60 to 90 µs where nothing else is going on. Here the thread
that announces a request asks for its body first, and the loop wakes once, to both. The application sees plain ASGI. It
rests on names that Granian keeps to itself, which is why its version is held below 2.9; measured on 2.8.7, p50 of a
POST at one connection falls by a quarter, together with `eager.py`.

A worker whose place another one has taken is **retired**: it accepts nothing more, goes on with what it has, and tells
each client on HTTP/1.1 that the next answer is its connection's last (`Connection: close`). Connections on which
nothing is asked are closed after `header_timeout_s`, as ever. Once that time has passed without a request of HTTP/1.1
there is no such connection left, and Granian's graceful stop does no harm, which else would close an idle connection
while its client asks: clients on HTTP/2 are told to go (GOAWAY), and which of their requests are still answered.

A worker whose parent has died drains as if that had told it to.
"""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from functools import partial
from typing import Any, Protocol

from granian._futures import _aio_taskenter, _aio_taskleave  # type: ignore[attr-defined]
from granian._granian import ASGIWorker, CallbackScheduler, WorkerSignal
from granian.asgi import LifespanProtocol
from granian.server.mp import WorkerProcess

from proxy.eager import start_now
from proxy.listening import stop_accepting
from proxy.parent_death import hear_of_parent_death

App = Callable[..., Awaitable[None]]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

RETIRE = signal.SIGUSR2
ORPHANED = signal.SIGRTMIN
FROM_PARENT = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, RETIRE}
"""Signals that a worker finds blocked when it starts."""

LAST_WORDS_S = 2.0
"""How long a worker may take to end after the drain deadline, before it is killed."""
IDLE_MARGIN_S = 2.0
"""How much longer than the timeout of idle connections a retired worker waits: it looks once a second."""

TICK_S = 0.1
"""How long, about, a request may wait for the first piece of its body before it is begun without."""


class Application(Protocol):
    """What a worker runs."""

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]: ...

    def holds_connections(self) -> bool:
        """Tells whether a request runs that has its client's connection to itself, as in HTTP/1.1."""

    def retiring(self) -> None:
        """Hears that another worker takes the connections that come from now on, once at most."""

    def stopping(self) -> None:
        """Hears that no more requests will come, once; those that run may go on until the drain deadline."""


class FirstReceived:
    """An ASGI `receive` whose first message was asked for before there was an application to ask."""

    __slots__ = ("_first", "_receive")

    def __init__(self, receive: Receive, first: Awaitable[Any]) -> None:
        self._receive = receive
        self._first: Awaitable[Any] | None = first

    def __call__(self) -> Awaitable[Any]:
        first = self._first
        if first is None:
            return self._receive()
        self._first = None
        return first


class Starter:
    """Begins requests as tasks of the event loop.

    A request with a body begins when the first piece of that is there, or at the next tick.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, app: App, context: Context) -> None:
        self._loop = loop
        self._app = app
        self._context = context
        self._waiting: dict[Any, Any] = {}
        self.retired = False
        """Whether each answer is to be its connection's last."""
        self._tick()

    def announce(self, watcher: Any) -> None:
        """Takes a request from Granian's thread, in that thread."""
        if not has_body_at_hand(watcher.scope):
            self._loop.call_soon_threadsafe(self._start, watcher, watcher.proto.receive, context=self._context)
            return
        first = watcher.proto.receive()
        self._waiting[first] = watcher
        # It cannot be complete yet: what completes it is a later job of this thread.
        first.add_done_callback(self._start_received, context=self._context)

    def _start(self, watcher: Any, receive: Receive) -> None:
        watcher.taskref(start_now(self._loop, self._run(watcher, receive)))

    def _start_received(self, first: Awaitable[Any]) -> None:
        watcher = self._waiting.pop(first, None)
        if watcher is not None:
            self._start(watcher, FirstReceived(watcher.proto.receive, first))

    def _tick(self) -> None:
        for first in self._waiting.copy():
            self._start_received(first)
        self._loop.call_later(TICK_S, self._tick)

    async def _run(self, watcher: Any, receive: Receive) -> None:
        try:
            send = closing(watcher.proto.send) if self.retired else watcher.proto.send
            await self._app(watcher.scope, receive, send)
        except BaseException as error:
            watcher.err(error)
        else:
            watcher.done()


class Scheduler(CallbackScheduler):
    """Granian's way to a starter."""

    __slots__ = ("starter",)

    def __init__(self, loop: asyncio.AbstractEventLoop, app: App, *_: Any) -> None:
        super().__init__()
        self.starter = Starter(loop, app, self._ctx)
        self._schedule_fn = self.starter.announce


class End:
    """How a worker ends: told to stop, retired, or left without a parent."""

    def __init__(self, loop: asyncio.AbstractEventLoop, app: Application) -> None:
        self.signal = WorkerSignal()
        """Granian's: its graceful stop."""
        self._loop = loop
        self._app = app
        self._stopped = False
        self._alone = False

    def stop(self) -> None:
        """Has Granian stop. Its signal must not be set often: from the third time on that blocks."""
        if not self._stopped:
            self._stopped = True
            self._app.stopping()
            self.signal.set()

    def retire(self, starter: Starter, listener: int, idle_timeout_s: float) -> None:
        """Leaves new connections to the successor, and ends when those that are here can be closed without harm."""
        stop_accepting(listener)
        starter.retired = True
        self._app.retiring()
        self._retirement = self._loop.create_task(self._outlive(idle_timeout_s + IDLE_MARGIN_S))

    async def _outlive(self, quiet_s: float) -> None:
        waited_s = 0
        while waited_s < quiet_s:
            await asyncio.sleep(1)
            waited_s = 0 if self._app.holds_connections() else waited_s + 1
        self.stop()

    def drain_alone(self, listener: int, drain_timeout_s: float) -> None:
        """Drains as a parent has its workers drain, and frees the address at once, for whoever starts next.

        The kernel ends what does not end. It tells of a parent's death once for each of the parent's threads.
        """
        if self._alone:
            return
        self._alone = True
        stop_accepting(listener)
        signal.setitimer(signal.ITIMER_REAL, drain_timeout_s + LAST_WORDS_S)
        self._loop.call_later(drain_timeout_s, signal.raise_signal, signal.SIGUSR1)
        signal.raise_signal(signal.SIGTERM)


def has_body_at_hand(scope: dict[str, Any]) -> bool:
    """Tells whether a body follows that nobody must first be asked for: to ask is what sends `100 Continue`.

    A WebSocket's handshake has none, whatever its fields say.
    """
    fields = dict(scope["headers"])
    stated = b"content-length" in fields or b"transfer-encoding" in fields
    return stated and b"expect" not in fields and scope["type"] == "http"


def closing(send: Send) -> Send:
    """Returns an ASGI `send` that adds `Connection: close` to the head; Granian leaves it out in HTTP/2."""

    def send_closing(message: dict[str, Any]) -> Awaitable[None]:
        if message["type"].endswith(".response.start"):
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        return send(message)

    return send_closing


@WorkerProcess.wrap_target
def run_worker(
    worker_id: int,
    app: Application,
    sock: Any,
    ipc: Any,
    loop: asyncio.AbstractEventLoop,
    _runtime_mode: Any,
    runtime_threads: int,
    runtime_blocking_threads: int,
    blocking_threads: int,
    blocking_threads_idle_timeout: int,
    backpressure: int,
    _task_impl: Any,
    http_mode: Any,
    http1_settings: Any,
    http2_settings: Any,
    websockets: Any,
    static_path: Any,
    _log_access_fmt: Any,
    ssl_ctx: tuple[Any, ...],
    _scope_opts: Any,
    metrics: Any,
    *,
    ready: int,
    foreign: Sequence[int],
    idle_timeout_s: float,
    drain_timeout_s: float,
) -> None:
    """Runs a worker until it is told to stop and its connections have ended.

    Its positional arguments are those that Granian gives its own. When it serves, it writes a byte to `ready`.
    `foreign` are the listening sockets of other workers.
    """
    hear_of_parent_death(ORPHANED)
    parent = multiprocessing.parent_process()
    if parent is None or os.getppid() != parent.pid:
        sys.exit(1)
    for other in foreign:
        os.close(other)
    end = End(loop, app)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end.stop)
    ended = asyncio.Event()
    end.signal.add_cb(partial(loop.call_soon_threadsafe, ended.set))
    lifespan = LifespanProtocol(app)
    loop.run_until_complete(lifespan.startup())
    if lifespan.interrupt:
        sys.exit(1)
    make_worker: Any = ASGIWorker  # whose stub is behind its code
    worker = make_worker(
        worker_id,
        sock,
        ipc,
        runtime_threads,
        runtime_blocking_threads,
        blocking_threads,
        blocking_threads_idle_timeout,
        backpressure,
        http_mode,
        http1_settings,
        http2_settings,
        websockets,
        static_path,
        *ssl_ctx,
        metrics,
    )
    enter, leave = partial(_aio_taskenter, loop), partial(_aio_taskleave, loop)
    scheduler = Scheduler(loop, app, None, enter, leave)
    worker.serve_mtr(scheduler, loop, end.signal)
    listener = sock[1].get_fd()

    def begin() -> None:
        """Run by the loop, which would not hear of signals that come while it stands still."""
        loop.add_signal_handler(RETIRE, end.retire, scheduler.starter, listener, idle_timeout_s)
        loop.add_signal_handler(ORPHANED, end.drain_alone, listener, drain_timeout_s)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FROM_PARENT)
        with contextlib.suppress(BrokenPipeError):  # a parent that was told to stop waits no longer
            os.write(ready, b"1")
        os.close(ready)

    loop.call_soon(begin)
    loop.run_until_complete(ended.wait())
    loop.run_until_complete(lifespan.shutdown())
