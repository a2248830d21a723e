"""The ASGI callable: where Granian's messages become exchanges, and errors become answers.

What Granian guarantees, what it leaves to us and what it cannot do stands in ARCHITECTURE.md.
"""

import asyncio
import contextlib
import importlib
import logging
import signal
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from proxy.config import Config
from proxy.errors import BAD_REQUEST, INTERNAL, NOT_READY, TOO_MANY_CONNECTIONS, Cause, ClientGone, RelayError
from proxy.exchange import Exchange, Receive, Scope, Send
from proxy.phases.account import account, count, settle, trace
from proxy.phases.answer import answer_error, answer_health, answer_statistics
from proxy.pipeline import relay, relay_websocket
from proxy.rules.own_paths import Own
from proxy.worker import Worker

if TYPE_CHECKING:
    from proxy.shared_state.link import Link

log = logging.getLogger("relaygate")


class Relay:
    """The application of one worker process."""

    def __init__(self, config: Config, reload: Callable[[], Config], certificate: str = "") -> None:
        """`certificate` is the fingerprint of the one that clients are shown; empty: none is."""
        self._config = config
        self._reload = reload
        self._certificate = certificate
        self._worker: Worker

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        if scope["type"] == "http":
            return self._http(scope, receive, send)
        if scope["type"] == "websocket":
            return self._websocket(scope, receive, send)
        return self._lifespan(receive, send)

    def holds_connections(self) -> bool:
        """Tells whether a request runs that has its client's connection to itself: of HTTP/1.1, or a WebSocket."""
        worker = self._worker
        running = (*worker.young, *worker.watched)
        return bool(worker.tunnels) or any(exchange.scope["http_version"] != "2" for exchange in running)

    def retiring(self) -> None:
        """Clients are told with their next answer."""

    def stopping(self) -> None:
        """Requests are drained: none is asked to hurry."""

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        worker = self._worker
        snapshot = worker.snapshot
        exchange = Exchange(scope, receive, send, worker.loop)
        exchange.request_id = worker.new_request_id()
        exchange.tally = snapshot.unmatched
        exchange.clients = snapshot.clients
        worker.young.add(exchange)
        try:
            if scope["raw_path"] in snapshot.own_paths:
                exchange.tally = None
                if snapshot.own_paths[scope["raw_path"]] is Own.HEALTH:
                    await answer_health(exchange)
                else:
                    await answer_statistics(exchange, worker.summary)
            elif worker.in_flight > snapshot.server.max_connections:
                await fail(exchange, TOO_MANY_CONNECTIONS)
            else:
                await relay(exchange, snapshot)
        except RelayError as error:
            await fail(exchange, error.cause)
        except ClientGone:
            # Either nobody is left, or somebody sent a body that is malformed; Granian does not tell which.
            await fail(exchange, BAD_REQUEST)
        except asyncio.CancelledError:
            # The client has left, or the drain deadline has passed. Returning without a last piece closes the
            # connection.
            if exchange.cause is None:
                exchange.truncated = True
            else:
                await fail(exchange, exchange.cause)
        except Exception:
            log.exception("request %s failed", exchange.request_id.decode())
            await fail(exchange, INTERNAL)
        finally:
            worker.finish(exchange)
            if exchange.meter is not None:
                settle(exchange, exchange.meter)
            if exchange.tally is not None:
                count(exchange, exchange.tally)
            if worker.access_log is not None or worker.listened is not None:
                account(exchange, worker.access_log, worker.listened)
            if worker.tracing is not None:
                trace(exchange, worker.tracing)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        worker = self._worker
        snapshot = worker.snapshot
        exchange = Exchange(scope, receive, send, worker.loop)
        exchange.request_id = worker.new_request_id()
        exchange.tally = snapshot.unmatched
        exchange.clients = snapshot.clients
        worker.tunnels.add(exchange)
        try:
            if worker.draining:
                raise RelayError(NOT_READY)  # noqa: TRY301 - answered below, as every refusal
            if worker.in_flight > snapshot.server.max_connections:
                raise RelayError(TOO_MANY_CONNECTIONS)  # noqa: TRY301 - answered below, as every refusal
            await relay_websocket(exchange, snapshot, worker.client_sockets)
        except RelayError as error:
            await fail(exchange, error.cause)
        except asyncio.CancelledError:
            await fail(exchange, NOT_READY)
        except Exception:
            log.exception("tunnel %s failed", exchange.request_id.decode())
            await fail(exchange, INTERNAL)
        finally:
            worker.tunnels.discard(exchange)
            if exchange.meter is not None:
                settle(exchange, exchange.meter)
            if exchange.tally is not None:
                count(exchange, exchange.tally)
            if worker.access_log is not None or worker.listened is not None:
                account(exchange, worker.access_log, worker.listened)
            if worker.tracing is not None:
                trace(exchange, worker.tracing)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                loop = asyncio.get_running_loop()
                try:
                    self._worker = Worker(loop, self._config, self._reload)
                    self._worker.certificate = self._certificate
                    self._link = await linked(self._config, self._worker)
                except Exception as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                loop.add_signal_handler(signal.SIGHUP, self._worker.reload)
                loop.add_signal_handler(signal.SIGUSR1, self._worker.end_drain)
                # In the place of Granian's own handler, which stays on SIGINT.
                loop.add_signal_handler(signal.SIGTERM, self._worker.begin_drain)
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._worker.end_requests()
                await self._worker.key_pool.bans.close()  # probes that ended just now are free again
                self._worker.close()
                if self._link is not None:
                    await self._link.close()
                await send({"type": "lifespan.shutdown.complete"})
                return


async def linked(config: Config, worker: Worker) -> "Link | None":
    """Returns the link to the Redis that the settings name, with what is published in use; None where there is none."""
    if config.redis.url is None:
        return None
    link: Link = importlib.import_module("proxy.shared_state.link").Link(config, worker)
    await link.begin()
    return link


async def fail(exchange: Exchange, cause: Cause) -> None:
    """Ends a request that failed: with an answer, or, where the response has begun, as the truncation that it is.

    Returning without a last piece makes Granian close the connection, so no client takes a part for the whole.
    """
    exchange.cause = cause
    if exchange.response_started:
        exchange.truncated = True
        return
    # A client that has the answer and leaves cancels the last step of its sending, and there is no further one.
    with contextlib.suppress(asyncio.CancelledError):
        await answer_error(exchange, cause)
