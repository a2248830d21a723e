"""Having all workers load the listener's certificate again, and looking how many have."""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from admin.ports import WorkersService
from proxy.config import ListenerTls
from proxy.listener_tls import LoadedTls
from proxy.shared_state.breaker import Guard
from proxy.shared_state.client import Client
from proxy.shared_state.keys import RELOAD_TLS, RELOAD_TLS_CHANNEL
from proxy.shared_state.worker_state import WorkerState
from proxy.sources import tls_files

WAIT_S = 5.0
"""Workers tell what they serve once a second, and are looked at as often."""
LOOK_S = 0.05
SILENT_S = 2.5
"""Who has told nothing for so long has ended, though it counts as living for a while yet."""


class Reloaded(NamedTuple):
    """How many workers were asked, and how many of them, or in their place, serve what the certificate's file holds."""

    serving: int
    asked: int


class TlsReload:
    """`fingerprint` reads and checks the certificate's files, raises ConfigError where they cannot be used, and returns
    what a worker that serves them tells as `tls`.
    """

    def __init__(
        self,
        client: Client,
        guard: Guard,
        workers: WorkersService,
        fingerprint: Callable[[], str],
        wait_s: float = WAIT_S,
    ) -> None:
        self._client = client
        self._guard = guard
        self._workers = workers
        self._fingerprint = fingerprint
        self._wait_s = wait_s

    async def reload(self) -> Reloaded:
        """Asks all workers, unless the files cannot be used, and returns when all have done it, or after a while.

        Workers that were retired for it live on as long as their connections do, so they are not waited for. Raises
        ConfigError, StoreUnavailable.
        """
        wanted = await asyncio.to_thread(self._fingerprint)
        asked = len(self._telling())
        number = await self._guard.call(lambda: self._client.incr(RELOAD_TLS))  # type: ignore[arg-type,return-value,unused-ignore]
        await self._guard.call(lambda: self._client.publish(RELOAD_TLS_CHANNEL, number))
        end_s = time.monotonic() + self._wait_s
        while True:
            serving = self._serving(wanted)
            if serving >= asked or time.monotonic() >= end_s:
                return Reloaded(min(serving, asked), asked)
            await asyncio.sleep(LOOK_S)

    def _serving(self, wanted: str) -> int:
        return sum(worker.tls == wanted for worker in self._telling())

    def _telling(self) -> list[WorkerState]:
        """Those that live, by the clocks of their machines."""
        living = self._workers.living()
        newest_s: dict[str, float] = {}
        for worker in living:
            newest_s[worker.host] = max(worker.time_s, newest_s.get(worker.host, 0.0))
        return [worker for worker in living if newest_s[worker.host] - worker.time_s < SILENT_S]


def fingerprint_of(tls: ListenerTls) -> Callable[[], str]:
    """Returns what reads and checks a listener's files, and tells the fingerprint of their certificate."""

    def fingerprint() -> str:
        tls_files.check_pair("", "tls", tls.certificate, tls.key)  # whose complaints have the files' own names
        loaded = LoadedTls(tls)
        loaded.close()
        return loaded.fingerprint

    return fingerprint
