"""Workers of the data plane: what each last said of itself in Redis, and whether it still says anything."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from proxy.shared_state.breaker import Guard
from proxy.shared_state.client import Client
from proxy.shared_state.keys import WORKERS
from proxy.shared_state.worker_state import WorkerState, decode_state

LOOK_S = 1.0
ALIVE_S = 5.0
"""A worker whose entry has not changed for so long is gone. It writes one a second."""
FORGET_S = 60.0
"""The entry of one that is gone is removed after so long."""


class Worker(NamedTuple):
    """A worker as it was last heard of, and whether that was just now."""

    state: WorkerState
    alive: bool


class _Entry(NamedTuple):
    """What lies in Redis, and since when by our own clock."""

    data: bytes
    since_s: float
    state: WorkerState | None


class Workers:
    """`now_s` is a clock that never goes back: the workers' own clocks may be wrong, so none is asked."""

    def __init__(self, client: Client, guard: Guard, now_s: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._guard = guard
        self._now_s = now_s
        self._entries: dict[bytes, _Entry] = {}
        self._looked_s = float("-inf")

    async def look(self) -> None:
        """Reads what workers say of themselves, and removes who has been gone for long. Raises StoreUnavailable."""
        answer: Any = await self._guard.call(lambda: self._client.hgetall(WORKERS))
        now_s = self._now_s()
        # While we could not look, they could not write.
        blind = now_s - self._looked_s > ALIVE_S
        self._looked_s = now_s
        before, self._entries = self._entries, {}
        for name, data in answer.items():
            known = before.get(name)
            if known is None or known.data != data:
                self._entries[name] = _Entry(data, now_s, _state(data))
            else:
                self._entries[name] = known._replace(since_s=now_s) if blind else known
        gone = [name for name, entry in self._entries.items() if now_s - entry.since_s >= FORGET_S]
        if gone:
            await self._guard.call(lambda: self._client.hdel(WORKERS, *gone))

    def all(self) -> list[Worker]:
        """Workers that were heard of in the last minute, by name."""
        now_s = self._now_s()
        found = [
            Worker(entry.state, now_s - entry.since_s < ALIVE_S)
            for entry in self._entries.values()
            if entry.state is not None
        ]
        return sorted(found, key=lambda worker: worker.state.name)

    def living(self) -> list[WorkerState]:
        return [worker.state for worker in self.all() if worker.alive]


def _state(data: bytes) -> WorkerState | None:
    """None for what a worker of another version says and this one cannot read."""
    try:
        return decode_state(data)
    except (msgspec.DecodeError, ValueError):
        return None
