"""Tests of keys: of one, and of all in the background, so many at once as the settings say.

A test asks the upstream of a route that may use the key (`rules/key_calls.py`) and notes what the answer says of it.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import NamedTuple

from admin.key_ports import CredentialsService, KeyPoolService, KeyRecord
from admin.rules.key_calls import Call, Finding, call, finding, route_for
from admin.rules.key_records import Position, Status, TestResult, Wanted
from admin.services.failures import NoRouteForKey, NoSuchKey, TestsRunning
from admin.upstream_calls import Answered, UpstreamCalls
from proxy.config import KeyPool, Route

log = logging.getLogger("relaygate")

ATTEMPTS = 3
"""Of one test: what passes (429, 5xx, the network) is tried again twice."""
PAGE = 500

Routes = Callable[[], Awaitable[Mapping[str, Route]]]
_STATUSES = {Finding.BANNED: Status.BANNED, Finding.DISABLED: Status.DISABLED}


class Tested(NamedTuple):
    """A test of a key. `http_status` is 0 without an answer; `problem` says in a word what failed."""

    result: TestResult
    http_status: int
    problem: str | None
    key_status: Status


class TestProgress(NamedTuple):
    """A test of all keys, as far as it is. `state`: `idle`, `running`, `done`, `cancelled` or `failed`.

    `failed` counts all that did not succeed; `disabled` and `banned` are among them. Times in milliseconds since 1970.
    """

    state: str = "idle"
    total: int = 0
    tested: int = 0
    success: int = 0
    failed: int = 0
    disabled: int = 0
    banned: int = 0
    started_at: int | None = None
    ended_at: int | None = None

    def with_one(self, tested: Tested) -> "TestProgress":
        good = tested.result is TestResult.SUCCESS
        return self._replace(
            tested=self.tested + 1,
            success=self.success + good,
            failed=self.failed + (not good),
            disabled=self.disabled + (not good and tested.key_status is Status.DISABLED),
            banned=self.banned + (tested.key_status is Status.BANNED),
        )


class KeyTests:
    """`told` hears of each test that has ended.

    `pause_s` is how long to wait before another attempt; `now_ms` the clock.
    """

    def __init__(
        self,
        keys: CredentialsService,
        key_pool: KeyPoolService,
        routes: Routes,
        calls: UpstreamCalls,
        *,
        told: Callable[[KeyRecord, Tested], object] = lambda _record, _tested: None,
        pause_s: float = 0.5,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._keys = keys
        self._key_pool = key_pool
        self._routes = routes
        self._calls = calls
        self._told = told
        self._pause_s = pause_s
        self._now_ms = now_ms
        self._progress = TestProgress()
        self._task: asyncio.Task[None] | None = None

    async def test(self, *, id: str) -> Tested:  # noqa: A002 - the word for it
        """Tests one key. Raises NoSuchKey, NoRouteForKey."""
        record = await self._keys.get(id=id)
        if record is None:
            raise NoSuchKey
        return await self._test(record, await self._routes(), await self._key_pool.current())

    async def start(self) -> TestProgress:
        """Begins to test all keys but those that are banned. Raises TestsRunning."""
        if self._task is not None and not self._task.done():
            raise TestsRunning
        self._progress = TestProgress("running", started_at=self._now_ms())
        self._task = asyncio.create_task(self._run())
        return self._progress

    def progress(self) -> TestProgress:
        return self._progress

    async def cancel(self) -> TestProgress:
        """Ends the test of all keys, if one is running; what has been tested stays tested."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._end("cancelled")  # also where it was cancelled before it began
        return self._progress

    async def ended(self) -> TestProgress:
        """Waits for the end of the test of all keys."""
        if self._task is not None:
            await self._task
        return self._progress

    async def close(self) -> None:
        await self.cancel()
        await self._calls.close()

    async def _run(self) -> None:
        try:
            routes, pool = await self._routes(), await self._key_pool.current()
            self._progress = self._progress._replace(total=await self._count())
            waiting: asyncio.Queue[KeyRecord | None] = asyncio.Queue(pool.concurrent_limit)
            async with asyncio.TaskGroup() as group:
                for _ in range(pool.concurrent_limit):
                    group.create_task(self._work(waiting, routes, pool))
                async for record in self._all():
                    await waiting.put(record)
                for _ in range(pool.concurrent_limit):
                    await waiting.put(None)
        except Exception as error:
            log.error("the test of all keys failed: %s", _words(error))  # noqa: TRY400 - a line, not a traceback
            self._end("failed")
        else:
            self._end("done")

    async def _work(self, waiting: asyncio.Queue[KeyRecord | None], routes: Mapping[str, Route], pool: KeyPool) -> None:
        while (record := await waiting.get()) is not None:
            try:
                tested = await self._test(record, routes, pool)
            except NoSuchKey:  # deleted meanwhile
                self._progress = self._progress._replace(total=self._progress.total - 1)
                continue
            except NoRouteForKey:
                tested = Tested(TestResult.FAILED, 0, "no_route", record.status)
                self._told(record, tested)
            self._progress = self._progress.with_one(tested)

    async def _test(self, record: KeyRecord, routes: Mapping[str, Route], pool: KeyPool) -> Tested:
        route = route_for(routes, record.group, record.provider)
        if route is None:
            raise NoRouteForKey
        answered = await self._ask(call(route, await self._keys.reveal(id=record.id)), pool.request_timeout_ms / 1000)
        found = finding(answered.status) if answered.status else Finding.NOTHING
        status = _STATUSES.get(found)
        result = TestResult.SUCCESS if found is Finding.GOOD else TestResult.FAILED
        problem = None if found is Finding.GOOD else answered.problem or f"http_{answered.status}"
        await self._keys.record_test(
            id=record.id, result=result, problem=problem, http_status=answered.status, status=status
        )
        tested = Tested(result, answered.status, problem, status or record.status)
        self._told(record, tested)
        return tested

    async def _ask(self, what: Call, timeout_s: float) -> Answered:
        for attempt in range(1, ATTEMPTS + 1):
            answered = await self._calls.ask(what, timeout_s)
            passes = finding(answered.status) is Finding.AGAIN if answered.status else _may_pass(answered)
            if not passes or attempt == ATTEMPTS:
                break
            await asyncio.sleep(self._pause_s * attempt)
        return answered

    async def _count(self) -> int:
        return sum([await self._keys.count(wanted=Wanted(status)) for status in (Status.ACTIVE, Status.DISABLED)])

    async def _all(self) -> AsyncIterator[KeyRecord]:
        """All keys that are not banned, a page at a time."""
        after: Position | None = None
        while page := await self._keys.list(wanted=Wanted(), limit=PAGE, after=after):
            for record in page:
                if record.status is not Status.BANNED:
                    yield record
            after = Position(page[-1].created_at, page[-1].id)

    def _end(self, state: str) -> None:
        self._progress = self._progress._replace(state=state, ended_at=self._now_ms())


def _may_pass(answered: Answered) -> bool:
    """Whether what kept an answer away may be gone the next time."""
    return answered.problem not in ("target_refused", "certificate_invalid")


def _words(error: BaseException) -> str:
    """The kind of an error, or of those that it is made of: their texts may hold a secret."""
    if isinstance(error, BaseExceptionGroup):
        return ", ".join(sorted({_words(one) for one in error.exceptions}))
    return type(error).__name__
