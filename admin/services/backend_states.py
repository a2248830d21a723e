"""What is known of backends in Redis, for all control planes: their health, and how many requests they have."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from proxy.rules.sightings import Sightings
from proxy.shared_state.backend_counts import summed, written_s
from proxy.shared_state.backend_health import BackendHealth, board_of, read_health
from proxy.shared_state.breaker import Guard
from proxy.shared_state.client import Client
from proxy.shared_state.keys import BACKENDS_RUNNING
from proxy.shared_state.linked_groups import Name

LOOK_S = 1.0
FRESH_S = 3.0
"""A worker whose counts have not changed for so long has none any more. It writes them once a second."""
FORGET_S = 60.0
"""They are removed after so long."""


class BackendStates:
    """As they were at the last `look`. `now_s` is a clock that never goes back, `unix_s` one of seconds since 1970."""

    def __init__(
        self,
        client: Client,
        guard: Guard,
        now_s: Callable[[], float] = time.monotonic,
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._guard = guard
        self._now_s = now_s
        self._unix_s = unix_s
        self._counts = Sightings(FRESH_S, written_s)
        self._health: Mapping[Name, BackendHealth] = {}

    async def look(self) -> None:
        """Reads what is known, and removes what workers that have long been gone have left. Raises StoreUnavailable."""
        self._health = board_of(await read_health(self._client, self._guard)).states
        found: Any = await self._guard.call(lambda: self._client.hgetall(BACKENDS_RUNNING))  # type: ignore[arg-type,return-value,unused-ignore]
        now_s = self._now_s()
        self._counts.look(found, now_s, self._unix_s())
        gone = self._counts.older(FORGET_S, now_s)
        if gone:
            await self._guard.call(lambda: self._client.hdel(BACKENDS_RUNNING, *gone))  # type: ignore[arg-type,return-value,unused-ignore]

    def health(self) -> Mapping[Name, BackendHealth]:
        """What came of the checks of each backend that is checked; by its upstream's name and its own id."""
        return self._health

    def running(self) -> Mapping[Name, int]:
        """How many requests each backend has from all workers; those without any are left out."""
        found = summed(self._counts.younger(FRESH_S, self._now_s()).values())
        return {name: elsewhere.running for name, elsewhere in found.items()}
