"""What a worker's balancing gives to Redis and is given from there.

A backend is named by its upstream's name and its own id.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import msgspec

Name = tuple[str, str]


class BackendState(msgspec.Struct, frozen=True):
    """What the control plane knows of a backend. `util` (0 to 1) is its last report's, 0 where that is too old."""

    healthy: bool = True
    util: float = 0.0


class Elsewhere(NamedTuple):
    """How many requests a backend has from other workers, and from how many of these."""

    running: int
    workers: int


class LinkedGroups(Protocol):
    """The groups of backends of a worker, as the link to Redis sees them."""

    def use_states(self, states: Mapping[Name, BackendState], /) -> None:
        """Takes all that is known; a backend that is not named is healthy and idle."""

    def use_elsewhere(self, running: Mapping[Name, Elsewhere], /) -> None:
        """Takes how many requests each backend has from all other workers; one that is not named has none."""

    def running(self) -> Mapping[Name, int]:
        """Returns how many requests each backend has from this worker; those without any are left out."""
