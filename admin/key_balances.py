"""Balances of keys: providers are asked how much of its allowance each key has used, so that algorithms can go by it.

That is a sync: all keys but those that are disabled, so many at once as the settings say. It is made when somebody
asks for it, and every `balance_interval_s` by one of all control planes. What is asked is data (`rules/balances.py`); a
key whose provider does not answer keeps the figures that it has.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from admin.key_ports import CredentialsService, KeyPoolService, KeyRecord
from admin.key_sweeps import UNDECRYPTABLE, Sweep, all_but, count_but, each
from admin.rules import balances
from admin.rules.balances import PRESETS, Reading, Told
from admin.rules.key_records import Status
from admin.services.failures import NoBalanceQuery, NoSuchKey, SyncRunning
from admin.upstream_calls import UpstreamCalls
from proxy.config import BalancePreset, BalanceQuery, KeyPool
from proxy.rules.tiers import group_of
from proxy.secrets import SecretError

log = logging.getLogger("relaygate")

LOOK_S = 5.0
"""How often it is looked whether a sync is due."""
RECORDED_AT_ONCE = 200
"""Answers that are written in one transaction."""

Turn = Callable[[float], Awaitable[bool]]
"""Whether it is this control plane that syncs in the interval of so many seconds that begins now."""


class Store(Protocol):
    """Where figures are kept; workers are told of them from there."""

    async def record(self, told: Sequence[Told], /) -> None: ...
    async def record_totals(self) -> None: ...


class SyncProgress(NamedTuple):
    """A sync, as far as it is. `state` is that of a sweep. Keys that no query is for are `skipped`.

    Times in milliseconds since 1970.
    """

    state: str = "idle"
    total: int = 0
    success: int = 0
    failed: int = 0
    skipped: int = 0
    started_at: int | None = None
    ended_at: int | None = None


class KeyBalances:
    """`pause_s` is how long to wait before another attempt; `now_ms` the clock."""

    def __init__(
        self,
        keys: CredentialsService,
        key_pool: KeyPoolService,
        store: Store,
        calls: UpstreamCalls,
        turn: Turn,
        *,
        presets: Mapping[BalancePreset, Sequence[BalanceQuery]] = PRESETS,
        pause_s: float = 0.5,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._keys = keys
        self._key_pool = key_pool
        self._store = store
        self._calls = calls
        self._turn = turn
        self._presets = presets
        self._pause_s = pause_s
        self._now_ms = now_ms
        self._progress = SyncProgress()
        self._sweep = Sweep("the sync of balances", now_ms)

    async def start(self) -> SyncProgress:
        """Begins a sync. Raises NoBalanceQuery, SyncRunning."""
        pool = await self._key_pool.current()
        if not pool.balance_queries:
            raise NoBalanceQuery
        if not await self._begin(pool):
            raise SyncRunning
        return self.progress()

    async def look(self) -> None:
        """Begins a sync if one is due. Raises StoreUnavailable, DatabaseDown."""
        pool = await self._key_pool.current()
        if not pool.balance_queries or pool.balance_interval_s is None or self._sweep.is_running():
            return
        if await self._turn(pool.balance_interval_s):
            await self._begin(pool)

    def progress(self) -> SyncProgress:
        sweep = self._sweep
        return self._progress._replace(state=sweep.state, started_at=sweep.started_at, ended_at=sweep.ended_at)

    async def cancel(self) -> SyncProgress:
        """Ends the sync, if one is running; what has been read is kept."""
        await self._sweep.cancel()
        return self.progress()

    async def ended(self) -> SyncProgress:
        """Waits for the end of the sync."""
        await self._sweep.ended()
        return self.progress()

    async def _begin(self, pool: KeyPool) -> bool:
        """Returns False where a sync is running already."""
        total = await count_but(self._keys, Status.DISABLED)
        if self._sweep.is_running():
            return False
        self._progress = SyncProgress(total=total)
        self._sweep.begin(lambda: self._run(pool))
        return True

    async def _run(self, pool: KeyPool) -> None:
        told: list[Told] = []

        async def record() -> None:
            now, told[:] = told[:], []
            if now:
                try:
                    await self._store.record(now)
                except BaseException:  # cancelled, perhaps: it is written at the end, and does no harm twice
                    told.extend(now)
                    raise

        async def work(key: KeyRecord) -> None:
            one = await self._told(key, pool)
            if one is not None:
                told.append(one)
                if len(told) >= RECORDED_AT_ONCE:
                    await record()

        try:
            await each(all_but(self._keys, Status.DISABLED), pool.concurrent_limit, work)
        finally:
            await record()
            await self._store.record_totals()
        log.info("balances: %d read, %d failed", self._progress.success, self._progress.failed)

    async def _told(self, record: KeyRecord, pool: KeyPool) -> Told | None:
        """What came of asking about a key, and counts it; None where there is nothing to ask, or no such key."""
        before = self._progress
        group = group_of(record.group, pool.groups)
        queries = balances.queries_for(pool.balance_queries, record.provider, group, self._presets)
        if not queries:
            self._progress = before._replace(skipped=before.skipped + 1)
            return None
        try:
            found = await self._ask(queries, await self._keys.reveal(id=record.id), pool.request_timeout_ms / 1000)
        except NoSuchKey:  # deleted meanwhile
            self._progress = self._progress._replace(total=self._progress.total - 1)
            return None
        except SecretError:
            found = UNDECRYPTABLE
        progress = self._progress
        if isinstance(found, Reading):
            self._progress = progress._replace(success=progress.success + 1)
            return Told(record.id, self._now_ms(), found)
        self._progress = progress._replace(failed=progress.failed + 1)
        return Told(record.id, self._now_ms(), None, found)

    async def _ask(self, queries: Sequence[BalanceQuery], secret: str, timeout_s: float) -> Reading | str:
        """The answer of the first query that leads somewhere, or in a word why none does."""
        problem = ""
        for query in queries:
            answered = await self._calls.ask_patiently(balances.call(query, secret), timeout_s, self._pause_s)
            if answered.status in balances.MOVED:
                problem = problem or f"http_{answered.status}"
            elif 200 <= answered.status < 300:
                reading = balances.read(query, answered.body)
                if reading is not None:
                    return reading
                problem = "no_figures"
            else:
                return answered.problem or f"http_{answered.status}"
        return problem
