"""What became of the latest requests that had a credential of the key pool: for who asks why (`/admin/explain/ID`).

In this worker's memory only, for as many requests as fit. Most had their first credential and an answer, of which a few
values are enough (`Passed`); the others have a `Trace`.
"""

from collections import deque
from itertools import islice

import msgspec

TRACES_MAX = 10_000
BLOCK = 128
"""So many requests that had their first credential and an answer are packed at once. Kept as they are, 10,000 of them
would have each request take and give back memory that no cache has any more, which is 5 % of what a request costs."""
LATEST_MAX = 500
"""So many are told to who asks for the latest."""
PASSED_OVER_MAX = 20
"""So many banned credentials of a look are named; the others are counted."""


class Over(msgspec.Struct):
    """A credential that was passed over since it is banned: why, and until when (seconds since 1970).

    `model` is empty where the ban is of all models.
    """

    credential: str
    model: str
    cause: str
    until_s: float


class Look(msgspec.Struct):
    """What was found when a credential was looked for in a tier.

    Of `total` credentials `usable` could be chosen, `tried` were left out since this request had them before; `banned`
    are the bans of the others, by cause, and `passed_over` the first of those. `how` is selected, probe or last resort.
    """

    groups: tuple[str, ...]
    total: int
    usable: int
    tried: int
    banned: dict[str, int]
    chosen: str = ""
    how: str = ""
    passed_over: list[Over] = []


class BackendLook(msgspec.Struct):
    """What was found when another backend was looked for in an upstream.

    Of `total` backends `usable` could be chosen; `tried` were left out since this request had them before;
    `passed_over` are the others, counted by what spoke against them.
    """

    upstream: str
    total: int
    usable: int
    tried: int
    passed_over: dict[str, int]
    chosen: str = ""


class Try(msgspec.Struct):
    """One attempt: with which credential, what was answered (0: nothing), what that says of the credential.

    Without a credential of the key pool, it says it of the backend.

    `ended_s` is 0 where that was not noted, since there was but one attempt.
    """

    credential: str
    backend: str
    ended_s: float
    status: int
    says: str
    error: str = ""
    wait_s: float | None = None


class Trace(msgspec.Struct):
    """One request. `version` is that of the configuration in use when it was written; times in seconds since 1970."""

    request_id: str
    route: str
    model: str
    algorithm: str
    version: int
    began_s: float
    looks: list[Look] = []
    tries: list[Try] = []
    ending: str = ""
    backends: list[BackendLook] = []


Passed = tuple[bytes, str, str, float, int, bytes, str, int]
"""A request whose first credential did, in the order of `trace_of`."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Passed]).decode


def trace_of(passed: Passed) -> Trace:
    request_id, route, credential, began_s, status, backend, algorithm, version = passed
    attempt = Try(credential, backend.decode(), 0.0, status, "success")
    return Trace(request_id.decode(), route, "", algorithm, version, began_s, [], [attempt])


class Traces:
    """The latest, by the ids of their requests."""

    def __init__(self) -> None:
        self._traces: deque[Trace] = deque(maxlen=TRACES_MAX)
        self._passed: list[Passed] = []
        self._packed: deque[bytes] = deque(maxlen=-(-TRACES_MAX // BLOCK))
        self.add = self._traces.append

    def pass_by(self, passed: Passed) -> None:
        """Adds a request of which a few values are enough."""
        self._passed.append(passed)
        if len(self._passed) >= BLOCK:
            self._packed.append(_encode(self._passed))
            self._passed.clear()

    def find(self, request_id: str) -> list[Trace]:
        """Returns the traces of a request's id, which a client may have given to several, the newest first."""
        name = request_id.encode()
        found = [trace for trace in self._traces if trace.request_id == request_id]
        blocks = [self._passed, *(_decode(block) for block in self._packed if name in block)]
        found += [trace_of(passed) for block in blocks for passed in block if passed[0] == name]
        return sorted(found, key=lambda trace: trace.began_s, reverse=True)

    def latest(self) -> list[Trace]:
        """Returns the traces of the latest requests, the newest first."""
        found = list(islice(reversed(self._traces), LATEST_MAX))
        passed = [self._passed, *map(_decode, islice(reversed(self._packed), -(-LATEST_MAX // BLOCK)))]
        found += [trace_of(one) for block in passed for one in block]
        return sorted(found, key=lambda trace: trace.began_s, reverse=True)[:LATEST_MAX]

    def answer_latest(self) -> bytes:
        """Answers who asks for the latest."""
        return msgspec.json.encode(self.latest())

    def answer(self, question: bytes) -> bytes | None:
        """Answers who asks for a request's id; None where nothing is known of it."""
        found = self.find(question.decode(errors="replace"))
        return msgspec.json.encode(found) if found else None
