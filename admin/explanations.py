"""What workers remember of requests: the control plane asks all of them; of one request, one knows."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from redis.exceptions import RedisError

from admin.rules.explained import explained, line
from admin.services.failures import WorkersNotAsked
from proxy.shared_state.breaker import Guard, StoreUnavailable
from proxy.shared_state.client import Client
from proxy.shared_state.questions import EXPLAIN, LATEST, Question, ask

WAIT_S = 2.0
"""For a worker that is busy."""


class Explanations:
    def __init__(self, client: Client, guard: Guard) -> None:
        self._client = client
        self._guard = guard

    async def explain(self, *, request_id: str) -> Mapping[str, Any] | None:
        """The traces of a request, newest first: a client may give one id to several. None where nobody knows any.

        Raises WorkersNotAsked.
        """
        found = await self._asked(Question(EXPLAIN, request_id.encode()), enough=1)
        traces = [explained(trace) if isinstance(trace, dict) else trace for trace in found]
        return {"request_id": request_id, "traces": traces} if traces else None

    async def latest(self) -> Sequence[Mapping[str, Any]]:
        """A line of each of the latest requests that had a credential of the pool, newest first.

        Raises WorkersNotAsked.
        """
        lines = [line(trace) for trace in await self._asked(Question(LATEST)) if isinstance(trace, dict)]
        return sorted((one for one in lines if one is not None), key=lambda one: one["time"], reverse=True)

    async def _asked(self, question: Question, enough: int | None = None) -> list[Any]:
        """All traces that workers answer with. Raises WorkersNotAsked."""
        try:
            answers = await ask(self._client, self._guard, question, WAIT_S, enough=enough)
        except (StoreUnavailable, RedisError, OSError):  # the guard tells of it
            raise WorkersNotAsked from None
        return [trace for answer in answers for trace in _traces(answer)]


def _traces(answer: bytes) -> list[Any]:
    try:
        found = msgspec.json.decode(answer)
    except msgspec.DecodeError:  # of another version
        return []
    return found if isinstance(found, list) else [found]
