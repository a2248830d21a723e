"""What workers remember of a request: the control plane asks all of them, and one knows."""

from collections.abc import Mapping
from typing import Any

import msgspec
from redis.exceptions import RedisError

from admin.rules.explained import explained
from proxy.shared_state.breaker import Guard, StoreUnavailable
from proxy.shared_state.client import Client
from proxy.shared_state.questions import EXPLAIN, Question, ask

WAIT_S = 2.0
"""For a worker that is busy."""


class Explanations:
    def __init__(self, client: Client, guard: Guard) -> None:
        self._client = client
        self._guard = guard

    async def explain(self, *, request_id: str) -> Mapping[str, Any] | None:
        """The traces of a request, newest first: a client may give one id to several. None where nobody knows any."""
        try:
            answers = await ask(self._client, self._guard, Question(EXPLAIN, request_id.encode()), WAIT_S, enough=1)
        except (StoreUnavailable, RedisError, OSError):  # the guard tells of it
            return None
        traces = [trace for answer in answers for trace in _traces(answer)]
        return {"request_id": request_id, "traces": traces} if traces else None


def _traces(answer: bytes) -> list[Any]:
    try:
        found = msgspec.json.decode(answer)
    except msgspec.DecodeError:  # of another version
        return []
    traces = found if isinstance(found, list) else [found]
    return [explained(trace) if isinstance(trace, dict) else trace for trace in traces]
