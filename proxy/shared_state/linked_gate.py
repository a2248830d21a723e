"""What a link needs of what lets requests in: somebody who takes Redis's decisions, and is run and closed."""

from typing import Protocol

from proxy.shared_state.meter_store import MeterStore


class LinkedMeter(Protocol):
    """What asks Redis for a worker's requests."""

    async def run(self) -> None:
        """Sends what there is to send until it is cancelled."""

    async def close(self) -> None:
        """Sends what is left, in a moment or not at all."""


class LinkedGate(Protocol):
    """What lets a worker's requests in."""

    def share(self, store: MeterStore, worker: str, /) -> LinkedMeter:
        """Has what is counted decided by Redis from now on."""
