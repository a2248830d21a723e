"""What became of the latest requests that needed a credential: for who asks why (`GET /admin/explain/ID`).

In this worker's memory only, for as many requests as fit.
"""

from collections import deque

import msgspec

TRACES_MAX = 10_000


class Look(msgspec.Struct, array_like=True):
    """What was found when a credential was looked for in a tier.

    Of `total` credentials `usable` could be chosen, `tried` were excluded since this request had them before; the
    others are banned, by cause.
    """

    groups: tuple[str, ...]
    total: int
    usable: int
    tried: int
    banned: dict[str, int]
    chosen: str = ""
    how: str = ""


class Try(msgspec.Struct, array_like=True):
    """One attempt: with which credential, what was answered, what that says of it."""

    credential: str
    backend: str
    began_s: float
    ended_s: float = 0.0
    status: int = 0
    says: str = ""
    error: str = ""
    wait_s: float | None = None


class Trace(msgspec.Struct):
    """One request. `version` is that of the configuration it began with; times in seconds since 1970."""

    request_id: str
    route: str
    model: str
    source: str
    algorithm: str
    version: int
    began_s: float
    looks: list[Look] = []
    tries: list[Try] = []
    ending: str = ""


class Traces:
    """The latest traces, by the ids of their requests."""

    def __init__(self) -> None:
        self._latest: deque[Trace] = deque(maxlen=TRACES_MAX)

    def add(self, trace: Trace) -> None:
        self._latest.append(trace)

    def find(self, request_id: str) -> list[Trace]:
        """Returns the traces of a request's id, which a client may have given to several, the newest first."""
        return [trace for trace in reversed(self._latest) if trace.request_id == request_id]

    def answer(self, question: bytes) -> bytes | None:
        """Answers who asks for a request's id; None where nothing is known of it."""
        found = self.find(question.decode(errors="replace"))
        return msgspec.json.encode(found) if found else None
