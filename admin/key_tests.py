"""Tests of keys: of one, and of all in the background, so many at once as the settings say.

A test asks the upstream of a route that may use the key (`rules/key_calls.py`) and notes what the answer says of it.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from admin.key_ports import CredentialsService, KeyPoolService, KeyRecord
from admin.key_sweeps import UNDECRYPTABLE, Sweep, all_but, count_but, each
from admin.rules.key_calls import Finding, call, finding, route_for
from admin.rules.key_records import Status, TestResult
from admin.services.failures import NoRouteForKey, NoSuchKey, TestsRunning
from admin.upstream_calls import Answered, UpstreamCalls
from proxy.config import KeyPool, Route
from proxy.rules.tiers import group_of
from proxy.secrets import SecretError

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
        self._progress = TestProgress()
        self._sweep = Sweep("the test of all keys", now_ms)

    async def test(self, *, id: str) -> Tested:  # noqa: A002 - the word for it
        """Tests one key. Raises NoSuchKey, NoRouteForKey."""
        record = await self._keys.get(id=id)
        if record is None:
            raise NoSuchKey
        return await self._test(record, await self._routes(), await self._key_pool.current())

    async def start(self) -> TestProgress:
        """Begins to test all keys but those that are banned. Raises TestsRunning."""
        total = await count_but(self._keys, Status.BANNED)
        if self._sweep.is_running():
            raise TestsRunning
        self._progress = TestProgress(total=total)
        self._sweep.begin(self._run)
        return self.progress()

    def progress(self) -> TestProgress:
        sweep = self._sweep
        return self._progress._replace(state=sweep.state, started_at=sweep.started_at, ended_at=sweep.ended_at)

    async def cancel(self) -> TestProgress:
        """Ends the test of all keys, if one is running; what has been tested stays tested."""
        await self._sweep.cancel()
        return self.progress()

    async def ended(self) -> TestProgress:
        """Waits for the end of the test of all keys."""
        await self._sweep.ended()
        return self.progress()

    async def close(self) -> None:
        await self.cancel()
        await self._calls.close()

    async def _run(self) -> None:
        routes, pool = await self._routes(), await self._key_pool.current()

        async def work(record: KeyRecord) -> None:
            try:
                tested = await self._test(record, routes, pool)
            except NoSuchKey:  # deleted meanwhile
                self._progress = self._progress._replace(total=self._progress.total - 1)
                return
            except NoRouteForKey:
                tested = Tested(TestResult.FAILED, 0, "no_route", record.status)
                self._told(record, tested)
            self._progress = self._progress.with_one(tested)

        await each(all_but(self._keys, Status.BANNED), pool.concurrent_limit, work)

    async def _test(self, record: KeyRecord, routes: Mapping[str, Route], pool: KeyPool) -> Tested:
        route = route_for(routes, group_of(record.group, pool.groups), record.provider)
        if route is None:
            raise NoRouteForKey
        try:
            secret = await self._keys.reveal(id=record.id)
        except SecretError:
            answered = Answered(0, UNDECRYPTABLE)
        else:
            timeout_s = pool.request_timeout_ms / 1000
            answered = await self._calls.ask_patiently(call(route, secret), timeout_s, self._pause_s)
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
