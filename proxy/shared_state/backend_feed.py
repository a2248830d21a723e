"""What a worker hears of backends from the control plane and the other workers, and tells them.

Their health comes from the control plane's checks, their load from their own reports, and from each of the other
workers how many requests they have. Changes of health are announced; once a second all is read anyway, in one go, and
what the worker itself has running is told along with that.

While Redis is away, what was known holds, as far as it is young enough:

- Where nobody has checked for LAPSE_S, as without a control plane, unhealthy backends count as healthy again: each
  worker goes by what its own requests meet then (passive ejection), and a backend that came back is not left out for
  ever.
- A report counts for REPORT_S, another worker's requests for COUNTS_S.

Ages are by the worker's own clock (`rules/sightings.py`), since machines' clocks differ.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from redis.exceptions import RedisError

from proxy.rules.balancing import util_of
from proxy.rules.sightings import Sightings
from proxy.shared_state.backend_counts import encode_counts, summed, written_s
from proxy.shared_state.backend_health import BEAT, BackendHealth, board_of
from proxy.shared_state.backend_names import name_of
from proxy.shared_state.backend_reports import BackendReport, decode_report
from proxy.shared_state.breaker import Guard, StoreUnavailable
from proxy.shared_state.client import Client
from proxy.shared_state.keys import BACKEND_HEALTH, BACKEND_REPORTS, BACKENDS_CHANNEL, BACKENDS_RUNNING
from proxy.shared_state.linked_groups import BackendState, LinkedGroups, Name
from proxy.shared_state.published import UNREADABLE

POLL_S = 1.0
"""The longest that a change stays unseen where its announcement was lost."""
PAUSE_S = 0.05
"""The shortest time between two looks: backends that change at once, or report often, are read together."""
BLIND_S = 3.0
"""After so long without a look, what has changed meanwhile is as old as it says."""

LAPSE_S = 60.0
REPORT_S = 60.0
COUNTS_S = 3.0
FINISH_S = 0.5


class BackendFeed:
    """Gives `groups` what is known of backends, and tells of the worker `name` what they have running.

    `now_s` is a clock that never goes back, `unix_s` one of seconds since 1970.
    """

    def __init__(
        self,
        client: Client,
        guard: Guard,
        groups: LinkedGroups,
        name: str,
        now_s: Callable[[], float] = time.monotonic,
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._guard = guard
        self._groups = groups
        self._name = name.encode()
        self._now_s = now_s
        self._unix_s = unix_s
        self._raw_health: Mapping[bytes, bytes] = {}
        self._health: Mapping[Name, BackendHealth] = {}
        self._beats = Sightings(BLIND_S, _beat_s)
        self._reports = Sightings(BLIND_S, _report_s)
        self._counts = Sightings(BLIND_S, written_s)
        self._has_told = False
        self._told_s = float("-inf")

    async def refresh(self) -> None:
        """Reads all that is known and tells what there is to tell. Raises StoreUnavailable, RedisError."""
        health, reports, counts = await self._guard.call(self._exchange)
        now_s, unix_s = self._now_s(), self._unix_s()
        if BEAT in health:  # else it says nothing: what was known holds
            self._beats.look({BEAT: health[BEAT]}, now_s, unix_s)
            if health != self._raw_health:
                self._raw_health, self._health = health, board_of(health).states
        self._reports.look(reports, now_s, unix_s)
        counts.pop(self._name, None)
        self._counts.look(counts, now_s, unix_s)
        self.give()

    def give(self) -> None:
        """Gives what is known, less what is too old by now."""
        now_s = self._now_s()
        is_checked = bool(self._beats.younger(LAPSE_S, now_s))
        healthy = {name: known.healthy or not is_checked for name, known in self._health.items()}
        utils = _utils(self._reports.younger(REPORT_S, now_s))
        self._groups.use_states(
            {name: BackendState(healthy.get(name, True), utils.get(name, 0.0)) for name in healthy | utils}
        )
        self._groups.use_elsewhere(summed(self._counts.younger(COUNTS_S, now_s).values()))

    async def follow(self) -> None:
        """Follows what is known until it is cancelled."""
        while True:
            try:
                await self._follow_announcements()
            except (StoreUnavailable, RedisError, OSError):  # the guard tells of it
                self.give()
                await asyncio.sleep(POLL_S)

    async def finish(self) -> None:
        """Says that nothing is running any more, in a moment or not at all: others notice by themselves."""
        if self._has_told:
            with contextlib.suppress(StoreUnavailable, RedisError, OSError, TimeoutError):
                async with asyncio.timeout(FINISH_S):
                    await self._guard.call(lambda: self._client.hdel(BACKENDS_RUNNING, self._name))  # type: ignore[arg-type,return-value,unused-ignore]

    async def _follow_announcements(self) -> None:
        async with self._client.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(BACKENDS_CHANNEL)
            while True:
                await self.refresh()
                await asyncio.sleep(PAUSE_S)
                heard = await channel.get_message(timeout=POLL_S - PAUSE_S)
                while heard is not None:
                    heard = await channel.get_message(timeout=0.0)

    async def _exchange(self) -> tuple[dict[bytes, bytes], dict[bytes, bytes], dict[bytes, bytes]]:
        """Tells what is running, if that is due and not nothing as before; returns what lies in the three hashes."""
        is_due = self._now_s() - self._told_s >= POLL_S - PAUSE_S
        running = self._groups.running() if is_due else {}
        async with self._client.pipeline(transaction=False) as pipe:
            if running:
                pipe.hset(BACKENDS_RUNNING, self._name, encode_counts(running, self._unix_s()))  # type: ignore[arg-type,unused-ignore]
            elif is_due and self._has_told:
                pipe.hdel(BACKENDS_RUNNING, self._name)  # type: ignore[arg-type,unused-ignore]
            for key in (BACKEND_HEALTH, BACKEND_REPORTS, BACKENDS_RUNNING):
                pipe.hgetall(key)
            answers: list[Any] = await pipe.execute()
        if is_due:
            self._has_told, self._told_s = bool(running), self._now_s()
        health, reports, counts = answers[-3:]
        return health, reports, counts


def _utils(reports: Mapping[bytes, bytes]) -> dict[Name, float]:
    """Returns how loaded backends are. What this version cannot read is left out."""
    utils = {}
    for field, data in reports.items():
        name, report = name_of(field), _report(data)
        if name is not None and report is not None:
            utils[name] = util_of(report.cpu_usage, report.memory_usage, report.load_avg_1)
    return utils


def _report(data: bytes) -> BackendReport | None:
    try:
        return decode_report(data)
    except UNREADABLE:
        return None


def _report_s(data: bytes) -> float | None:
    report = _report(data)
    return None if report is None else report.at_s


def _beat_s(data: bytes) -> float | None:
    return int(data) / 1000 if data.isdigit() and len(data) < 20 else None
