"""Lines of the live log: which of them somebody wants, and how they go out as server-sent events. Pure."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

KEEP_ALIVE = b": keep-alive\n\n"
"""A comment, which clients pass over (HTML Standard, section 9.2.6), so that nobody in between gives up."""


class Asked(NamedTuple):
    """What somebody wants to see; None: all. `status` is one (`429`) or a class (`4xx`); `key` the id of a key."""

    route: str | None = None
    status: str | None = None
    key: str | None = None
    model: str | None = None

    def wants(self, line: Mapping[str, Any]) -> bool:
        """Judges by the fields of these names. A line has the id of its last key as `credential`."""
        return (
            self.route in (None, line.get("route"))
            and self.key in (None, line.get("credential"))
            and self.model in (None, line.get("model"))
            and (self.status is None or _is_of(line.get("status"), self.status))
        )


def _is_of(status: Any, wanted: str) -> bool:
    text = str(status)
    return text == wanted or (wanted.endswith("xx") and len(text) == 3 and text[0] == wanted[0])


def event(line: Mapping[str, Any]) -> bytes:
    """A line as an event. JSON has no line break that is not escaped, so it is one field."""
    return b"data: " + msgspec.json.encode(line) + b"\n\n"


def lost(count: int) -> bytes:
    """Says that so many lines were not sent, because whoever listens is too slow."""
    return b'event: lost\ndata: {"lines":%d}\n\n' % count
