"""A deadline and a circuit breaker round calls to Redis: one that is gone is asked once a second, not once a request.

`Breaker` decides and does no I/O. Closed, it admits every call; after `failures_max` failures in a row it opens and
refuses all for `open_s`; then it is half-open and admits exactly one call, the probe, whose outcome closes it or opens
it again. What a call reports counts only in the period that admitted it: one that began before the store was given up
says nothing about it now.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import NewType, TypeVar

import redis.exceptions as redis_errors
from redis.asyncio.sentinel import MasterNotFoundError

from proxy.shared_state.client import DEADLINE_S, Client, close_idle
from proxy.shared_state.unavailable import StoreUnavailable as StoreUnavailable

log = logging.getLogger("relaygate")

T = TypeVar("T")

Admission = NewType("Admission", int)
"""Leave for one call: the number of the period that gave it."""

REASONS: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, "timeout"),
    (redis_errors.TimeoutError, "timeout"),
    (redis_errors.AuthenticationError, "credentials"),
    (redis_errors.BusyLoadingError, "loading"),
    (redis_errors.MaxConnectionsError, "overload"),
    (MasterNotFoundError, "no_master"),
    (redis_errors.ConnectionError, "connection"),
    (redis_errors.InvalidResponse, "protocol"),
    (redis_errors.ReadOnlyError, "read_only"),
    (redis_errors.OutOfMemoryError, "out_of_memory"),
    (redis_errors.ClusterDownError, "cluster_down"),
    (redis_errors.SlotNotCoveredError, "cluster_down"),
    (OSError, "connection"),
)
"""What tells of the store's state, with its word. The first that fits counts."""

ANSWERS: tuple[tuple[str, str], ...] = (
    ("MISCONF ", "disk"),
    ("NOREPLICAS ", "no_replicas"),
    ("BUSY ", "busy"),
    ("Redis Cluster cannot be connected", "connection"),
    ("All slots are not covered", "cluster_down"),
)
"""The same for errors that have no class of their own: how their text begins."""


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """The state machine. `now` is a clock in seconds that never goes back, such as `time.monotonic`."""

    def __init__(self, now: Callable[[], float] = time.monotonic, failures_max: int = 3, open_s: float = 1.0) -> None:
        self._now = now
        self._failures_max = failures_max
        self._open_s = open_s
        self._failures = 0
        self._period = 0
        self._retry_s = 0.0
        self._unavailable_since_s = 0.0
        self.state = State.CLOSED

    def admit(self) -> Admission | None:
        """Leave for one call, whose outcome must be reported with it; None where the store is not to be asked now."""
        match self.state:
            case State.CLOSED:
                return Admission(self._period)
            case State.OPEN if self._now() >= self._retry_s:
                self._turn(State.HALF_OPEN)
                return Admission(self._period)
            case _:
                return None

    def succeeded(self, admission: Admission) -> float | None:
        """The store has answered. Returns for how many seconds it was unavailable, where this ends that."""
        if admission != self._period:
            return None
        self._failures = 0
        if self.state is State.CLOSED:
            return None
        self._turn(State.CLOSED)
        return self._now() - self._unavailable_since_s

    def failed(self, admission: Admission) -> bool:
        """The store has not answered, or cannot serve. Returns whether it counts as unavailable from now on."""
        if admission != self._period:
            return False
        now_s = self._now()
        was_closed = self.state is State.CLOSED
        self._failures += 1
        if was_closed and self._failures < self._failures_max:
            return False
        if was_closed:
            self._unavailable_since_s = now_s
        self._retry_s = now_s + self._open_s
        self._turn(State.OPEN)
        return was_closed

    def abandoned(self, admission: Admission) -> None:
        """The call was given up by its caller, which says nothing: the next one may probe in its place."""
        if admission == self._period and self.state is State.HALF_OPEN:
            self._retry_s = self._now()
            self._turn(State.OPEN)

    def _turn(self, state: State) -> None:
        self.state = state
        self._period += 1


class Guard:
    """Calls of one client through one breaker, each within `deadline_s` seconds. Logs a line for each change of state.

    When the store is given up, so are the client's idle connections: to a machine that vanished without a word, each of
    them would cost one probe.
    """

    def __init__(self, client: Client, breaker: Breaker, deadline_s: float = DEADLINE_S) -> None:
        self._client = client
        self._breaker = breaker
        self.deadline_s = deadline_s

    @property
    def available(self) -> bool:
        """Whether calls are let through: not from the failure that opens the breaker to the answer that closes it."""
        return self._breaker.state is State.CLOSED

    async def call(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Awaits what `ask` returns. `ask` is not called while the store is unavailable.

        Raises `StoreUnavailable`; an error that the store answered with because of the call itself (WRONGTYPE) passes.
        """
        return await self.watched(lambda: self._in_time(ask))

    async def watched(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The same of what keeps the deadline itself, with a TimeoutError: that costs a third."""
        admission = self._breaker.admit()
        if admission is None:
            raise StoreUnavailable("open")
        try:
            answer = await ask()
        except Exception as error:
            reason = unavailable_reason(error)
            if reason is None:
                self._passed(admission, error)
                raise
            if self._breaker.failed(admission):
                log.warning("redis is unavailable: %s", reason)
                await close_idle(self._client)
            raise StoreUnavailable(reason) from error
        except BaseException:
            self._breaker.abandoned(admission)
            raise
        self._succeeded(admission)
        return answer

    async def _in_time(self, ask: Callable[[], Awaitable[T]]) -> T:
        task = asyncio.current_task()
        cancellations = task.cancelling() if task else 0
        async with asyncio.timeout(self.deadline_s):
            try:
                return await ask()
            finally:
                # Python 3.11's wait_for, round each of redis-py's writes, loses one that comes as the write ends.
                if task and task.cancelling() > cancellations:
                    raise asyncio.CancelledError

    def _passed(self, admission: Admission, error: Exception) -> None:
        """Notes an error that is the caller's: an answer all the same if it came from the store, else no verdict."""
        if isinstance(error, redis_errors.ResponseError):
            self._succeeded(admission)
        else:
            self._breaker.abandoned(admission)

    def _succeeded(self, admission: Admission) -> None:
        gone_s = self._breaker.succeeded(admission)
        if gone_s is not None:
            log.warning("redis is available again after %.1f s", gone_s)


def unavailable_reason(error: Exception) -> str | None:
    """Why the store cannot serve, in one word; None for an error that is about the call and not about the store."""
    for kind, word in REASONS:
        if isinstance(error, kind):
            return word
    if isinstance(error, redis_errors.ResponseError | redis_errors.RedisClusterException):
        text = str(error)
        for beginning, word in ANSWERS:
            if text.startswith(beginning):
                return word
    return None
