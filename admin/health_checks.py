"""Health checks of backends, made by one of all control planes, and published for all workers.

Whoever holds the lock in Redis checks; when it dies, another one takes over within LOCK_MS, and goes on from what lies
in Redis. Each backend is asked by a task of its own, so none waits for another one. What comes of it is kept here, and
`look` sees to it that Redis has it: at once where a backend's state changes, and every second all the same, so a Redis
that lost it is filled again, and what is not checked any more leaves nothing.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping

from admin.publishing import keep_published
from admin.redis_lock import RedisLock
from admin.rules import health as rule
from admin.rules.health import Checked, Standing
from admin.upstream_calls import UpstreamCalls
from proxy.shared_state.backend_health import (
    BEAT,
    BackendHealth,
    announce_health,
    board_of,
    read_health,
    write_health,
)
from proxy.shared_state.backend_names import field_of
from proxy.shared_state.breaker import Guard
from proxy.shared_state.client import Client
from proxy.shared_state.keys import BACKENDS_CHECKER
from proxy.shared_state.linked_groups import Name
from proxy.shared_state.published import Mark, RoutesSection

log = logging.getLogger("relaygate")

LOCK_MS = 5000
"""Five times as long as `look` is called after at the latest, which prolongs it."""
BEAT_S = 5.0
"""How often the time of the newest check is written, and that somebody checks at all."""
AT_ONCE = 256
"""Checks under way. Each backend has one at most, so this bounds open connections, and more that hang delay others."""


class _Watch:
    """One backend that is checked. `health` is None before its first check."""

    def __init__(self, checked: Checked, health: BackendHealth | None = None) -> None:
        self.checked = checked
        self.health = health
        self.standing = Standing() if health is None else Standing(health.healthy)
        self.task: asyncio.Task[None] | None = None


class HealthChecks:
    """Checks the backends of the published upstreams.

    `mark` reads from SQL which version is the newest, `section` all of it. `chance` gives random numbers from 0 to 1,
    `unix_s` is a clock of seconds since 1970. `calls` are its own, and closed with it.
    """

    def __init__(
        self,
        client: Client,
        guard: Guard,
        mark: Callable[[], Awaitable[Mark]],
        section: Callable[[], Awaitable[RoutesSection]],
        calls: UpstreamCalls,
        chance: Callable[[], float] = random.random,
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._guard = guard
        self._mark = mark
        self._section = section
        self._calls = calls
        self._chance = chance
        self._unix_s = unix_s
        self._lock = RedisLock(client, guard, BACKENDS_CHECKER, LOCK_MS)
        self._version: Mark | None = None
        """Whose upstreams are checked; None while another control plane checks."""
        self._watches: dict[Name, _Watch] = {}
        self._wanted = asyncio.Event()
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._beat_s = float("-inf")

    async def run(self) -> None:
        """Checks, and publishes what comes of it, until it is cancelled. Then `close` it."""
        await keep_published(
            self.look, self._wanted, lambda error: f"backends are not checked: {type(error).__name__}: {error}"
        )

    async def look(self) -> None:
        """Publishes what has come of checks, and begins and ends checks as the newest version says.

        Raises StoreUnavailable, DatabaseDown, ConfigError.
        """
        if not (await self._lock.prolong() or await self._lock.take()):
            await self._stop()
            return
        found = await read_health(self._client, self._guard)
        if self._version is not None:
            await self._publish(found)
        mark = await self._mark()
        if mark != self._version:
            section = await self._section()
            self._check(rule.checked(section.upstreams), board_of(found).states)
            self._version = section.mark
            self._wanted.set()

    async def close(self) -> None:
        """Ends all checks, so that another control plane may make them."""
        await self._stop()
        await self._lock.release()
        await self._calls.close()

    async def _stop(self) -> None:
        watches, self._watches, self._version = self._watches, {}, None
        tasks = [watch.task for watch in watches.values() if watch.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _check(self, wanted: Mapping[Name, Checked], known: Mapping[Name, BackendHealth]) -> None:
        """Checks these backends from now on, and no others. `known` is what others have found out about them."""
        before = self._watches
        self._watches = {name: _next(before.get(name), checked, known.get(name)) for name, checked in wanted.items()}
        for name, watch in before.items():
            if watch.task is not None and watch is not self._watches.get(name):
                watch.task.cancel()
        for name, watch in self._watches.items():
            if watch.task is None:
                watch.task = asyncio.get_running_loop().create_task(self._keep_checking(name, watch))

    async def _keep_checking(self, name: Name, watch: _Watch) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(rule.first_pause_s(self._chance()))
        while True:
            async with self._at_once:
                began_s = loop.time()
                problem = await self._problem(watch.checked)
            self._note(name, watch, problem)
            next_s = began_s + rule.pause_s(watch.checked.check.interval_s, self._chance())
            await asyncio.sleep(next_s - loop.time())

    async def _problem(self, checked: Checked) -> str:
        answered = await self._calls.ask(rule.call(checked), checked.check.timeout_s)
        return rule.problem(checked.check, answered.status, answered.body, answered.problem)

    def _note(self, name: Name, watch: _Watch, problem: str) -> None:
        """Takes what a check has shown. A change is logged, and published at once."""
        before = watch.standing
        watch.standing = rule.after(before, watch.checked.check, problem)
        healthy, known, now_s = watch.standing.healthy, watch.health, self._unix_s()
        if known is None or healthy is not before.healthy:
            known = BackendHealth(healthy, now_s, now_s)
        watch.health = BackendHealth(healthy, known.since_s, now_s, "" if healthy else problem or known.reason)
        if healthy is not before.healthy:
            self._wanted.set()
            upstream, backend = name
            if healthy:
                log.warning("backend %s of upstream %s is healthy again", backend, upstream)
            else:
                log.warning("backend %s of upstream %s is unhealthy: %s", backend, upstream, problem)

    async def _publish(self, found: Mapping[bytes, bytes]) -> None:
        """Has Redis say what is known here. Only changes of state are announced."""
        states = {name: watch.health for name, watch in self._watches.items() if watch.health is not None}
        there = board_of(found).states
        changed = {name: health for name, health in states.items() if not _agree(there.get(name), health)}
        fields = {field_of(name) for name in states} | {BEAT}
        gone = [field for field in found if field not in fields]
        now_s = asyncio.get_running_loop().time()
        if BEAT not in found or now_s - self._beat_s >= BEAT_S:
            await write_health(self._client, self._guard, states, gone, int(self._unix_s() * 1000))
            self._beat_s = now_s
        elif changed or gone:
            await write_health(self._client, self._guard, changed, gone, None)
        if changed or gone:
            await announce_health(self._client, self._guard)


def _next(before: _Watch | None, checked: Checked, known: BackendHealth | None) -> _Watch:
    """Returns what watches a backend from now on. Of one that is another server now, nothing is known."""
    if before is None:
        return _Watch(checked, known)
    if before.checked == checked:
        return before
    if before.checked.url != checked.url:
        return _Watch(checked)
    watch = _Watch(checked, before.health)
    watch.standing = before.standing
    return watch


def _agree(there: BackendHealth | None, known: BackendHealth) -> bool:
    """Whether what lies in Redis says the same, but for when it was checked and the newest reason."""
    return there is not None and (there.healthy, there.since_s) == (known.healthy, known.since_s)
