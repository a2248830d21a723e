"""Which entries of a hash are still being written, told by their changes.

Whoever writes them has a clock of his own, which may be wrong. So an entry is as old as the time, by our own clock,
since it was last seen to change; only of what lies there already when one begins to look, the writer's time has to do.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple


class _Sighting(NamedTuple):
    data: bytes
    since_s: float


class Sightings:
    """Entries as they were last seen, and since when.

    After `blind_s` without a look one begins anew, since nobody knows what was written and when. `written_s` tells when
    an entry says it was written, in seconds since 1970 by its writer's clock; None where it does not say.
    """

    def __init__(self, blind_s: float, written_s: Callable[[bytes], float | None]) -> None:
        self._blind_s = blind_s
        self._written_s = written_s
        self._seen: dict[bytes, _Sighting] = {}
        self._looked_s = float("-inf")

    def look(self, found: Mapping[bytes, bytes], now_s: float, unix_s: float) -> None:
        """Takes all entries as they are now: at `now_s` of a clock that never goes back, `unix_s` since 1970."""
        begins = now_s - self._looked_s > self._blind_s
        self._looked_s = now_s
        before, self._seen = self._seen, {}
        for field, data in found.items():
            known = before.get(field)
            if known is not None and known.data == data:
                self._seen[field] = known
            elif begins:
                self._seen[field] = _Sighting(data, now_s - self._age_s(data, unix_s))
            else:
                self._seen[field] = _Sighting(data, now_s)

    def younger(self, than_s: float, now_s: float) -> dict[bytes, bytes]:
        """Returns the entries that have changed within so many seconds."""
        return {field: one.data for field, one in self._seen.items() if now_s - one.since_s < than_s}

    def older(self, than_s: float, now_s: float) -> list[bytes]:
        """Returns the fields of the entries that have not."""
        return [field for field, one in self._seen.items() if now_s - one.since_s >= than_s]

    def _age_s(self, data: bytes, unix_s: float) -> float:
        written_s = self._written_s(data)
        return 0.0 if written_s is None else max(0.0, unix_s - written_s)
