"""Something that is done with all keys in the background: so many at once, one sweep at a time, to be cancelled.

What is done, and what is counted of it, is its owner's: `key_tests.py`, `key_balances.py`.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from enum import StrEnum

from admin.key_ports import CredentialsService, KeyRecord
from admin.rules.key_records import Position, Status, Wanted

log = logging.getLogger("relaygate")

PAGE = 500
UNDECRYPTABLE = "undecryptable"
"""What fails where a key was encrypted under a secret key that is gone."""


class State(StrEnum):
    IDLE = "idle"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Sweep:
    """`name` is what a failure is told of; `now_ms` the clock. Times in milliseconds since 1970, None for not yet."""

    def __init__(self, name: str, now_ms: Callable[[], int]) -> None:
        self.state = State.IDLE
        self.started_at: int | None = None
        self.ended_at: int | None = None
        self._name = name
        self._now_ms = now_ms
        self._task: asyncio.Task[None] | None = None

    def is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    def begin(self, work: Callable[[], Awaitable[None]]) -> None:
        """Begins what is not running."""
        self.state, self.started_at, self.ended_at = State.RUNNING, self._now_ms(), None
        self._task = asyncio.create_task(self._run(work))

    async def cancel(self) -> None:
        """Ends it, if it is running; what has been done stays done, and is written down before this returns.

        Neither who cancels it again nor one who no longer waits for this disturbs that.
        """
        if self._task is not None and not self._task.done():
            if not self._task.cancelling():
                self._task.cancel()
            await asyncio.wait([self._task])
            self._end(State.CANCELLED)  # also where it was cancelled before it began

    async def ended(self) -> None:
        """Waits for its end."""
        if self._task is not None:
            await self._task

    async def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:
            log.error("%s failed: %s", self._name, _words(error))  # noqa: TRY400 - a line, not a traceback
            self._end(State.FAILED)
        else:
            self._end(State.DONE)

    def _end(self, state: State) -> None:
        self.state, self.ended_at = state, self._now_ms()


async def each(records: AsyncIterator[KeyRecord], at_once: int, work: Callable[[KeyRecord], Awaitable[object]]) -> None:
    """Does something with each key, with so many at once."""
    waiting: asyncio.Queue[KeyRecord | None] = asyncio.Queue(at_once)

    async def go() -> None:
        while (record := await waiting.get()) is not None:
            await work(record)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(go())
        async for record in records:
            await waiting.put(record)
        for _ in range(at_once):
            await waiting.put(None)


async def count_but(keys: CredentialsService, status: Status) -> int:
    """How many keys there are that are not of a status."""
    return sum([await keys.count(wanted=Wanted(one)) for one in Status if one is not status])


async def all_but(keys: CredentialsService, status: Status) -> AsyncIterator[KeyRecord]:
    """All keys that are not of a status, a page at a time."""
    after: Position | None = None
    while page := await keys.list(wanted=Wanted(), limit=PAGE, after=after):
        for record in page:
            if record.status is not status:
                yield record
        after = Position(page[-1].created_at, page[-1].id)


def _words(error: BaseException) -> str:
    """The kind of an error, or of those that it is made of: their texts may hold a secret."""
    if isinstance(error, BaseExceptionGroup):
        return ", ".join(sorted({_words(one) for one in error.exceptions}))
    return type(error).__name__
