"""A worker's side of the stream of events: what it has to tell, where there is room for it."""

import logging

from proxy.shared_state.breaker import Guard
from proxy.shared_state.client import Client
from proxy.shared_state.events import event, is_full
from proxy.shared_state.keys import EVENTS

log = logging.getLogger("relaygate")


class EventStream:
    """The stream. All of a worker that tell something share one, so that one line says when it is full."""

    def __init__(self, client: Client, guard: Guard) -> None:
        self._client = client
        self._guard = guard
        self._full = False

    async def has_room(self, size: int) -> bool:
        """Whether the stream takes so many bytes more. What has to wait goes on adding up. Raises StoreUnavailable."""
        full = is_full(await self._guard.call(lambda: self._client.xlen(EVENTS)), size)
        if full is not self._full:
            self._full = full
            log.warning("the stream of events is %s", "full: statistics wait" if full else "no longer full")
        return not full

    async def add(self, kind: bytes, data: bytes) -> None:
        """Adds an entry. Raises StoreUnavailable: it may have been added all the same."""
        await self._guard.call(lambda: self._client.xadd(EVENTS, event(kind, data)))  # type: ignore[arg-type,unused-ignore]
