"""The SQL side of the control plane in memory: as strict as the real one, and forgetful."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from admin.context import Services
from admin.management import BalancingManagement, Known
from admin.rules import route_specs, upstream_specs
from admin.rules.deltas import EVERYTHING, Key, rolled_up
from admin.rules.figures import Counters, Detail, Dropped, Overview, Point, PrefixFigures, Totals
from admin.rules.outcomes import errors, requests
from admin.rules.periods import ALL_TIME_S, DAY_S, MINUTE_S, Range, graph, slot_of, starts
from admin.services.failures import (
    DuplicateBackend,
    DuplicateRoute,
    NoSuchBackend,
    NoSuchRoute,
    NoSuchUpstream,
    NoSuchVersion,
)
from proxy.config import Backend, ConfigError, Route, Upstream, leads_to
from proxy.shared_state.published import RoutesSection
from proxy.shared_state.worker_state import WorkerState
from proxy.sources import values
from proxy.statistics import RouteCounts, StatisticsDelta
from tests.admin.balancing_memory import BalancingMemory
from tests.admin.keys_memory import KeysMemory
from tests.admin.tokens_memory import TokensMemory


@dataclass(frozen=True)
class Stored:
    prefix: str
    route: Route
    created_at: int
    updated_at: int


@dataclass(frozen=True)
class Change:
    kind: str
    name: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Version:
    number: int
    created_at: int
    actor: str
    summary: str
    changes: list[Change]
    document: dict[str, Any]


@dataclass(frozen=True)
class Action:
    id: int
    at: int
    actor: str
    address: str
    action: str
    target: str
    detail: dict[str, Any]
    outcome: str


def now_ms() -> int:
    return int(time.time() * 1000)


def refuse_nul(*texts: str) -> None:
    """PostgreSQL takes no NUL in a text, so nobody may get as far as here with one."""
    assert not any("\0" in text for text in texts)


def refuse_long(*numbers: int | None) -> None:
    """SQL's integers have 64 bits."""
    assert all(number is None or abs(number) < 2**63 for number in numbers)


@dataclass
class Versions:
    stored: dict[str, Stored] = field(default_factory=dict)
    versions: list[Version] = field(default_factory=list)

    def record(self, actor: str, summary: str) -> int:
        document = {"routes": {prefix: msgspec.to_builtins(one.route) for prefix, one in self.stored.items()}}
        before = self.versions[-1].document["routes"] if self.versions else {}
        changes = changes_between(before, document["routes"])
        self.versions.append(Version(len(self.versions) + 1, now_ms(), actor, summary, changes, document))
        return len(self.versions)

    async def list(self, after: int | None, limit: int) -> Sequence[Version]:
        refuse_long(after, limit)
        return [one for one in reversed(self.versions) if after is None or one.number < after][:limit]

    async def get(self, number: int) -> Version | None:
        refuse_long(number)
        return self.versions[number - 1] if 1 <= number <= len(self.versions) else None

    async def diff(self, old: int, new: int) -> Sequence[Change]:
        before, after = await self.get(old), await self.get(new)
        if before is None or after is None:
            raise NoSuchVersion
        return changes_between(before.document["routes"], after.document["routes"])

    async def newest(self) -> int:
        return len(self.versions)

    async def roll_back(self, number: int, actor: str) -> int:
        version = await self.get(number)
        if version is None:
            raise NoSuchVersion
        self.stored.clear()
        for prefix, route in version.document["routes"].items():
            self.stored[prefix] = Stored(prefix, msgspec.convert(route, Route), now_ms(), now_ms())
        return self.record(actor, f"roll back to {number}")


def changes_between(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    names = sorted(before.keys() | after.keys())
    return [
        Change("route", name, before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    ]


@dataclass
class Routes:
    versions: Versions

    @property
    def stored(self) -> dict[str, Stored]:
        return self.versions.stored

    async def get(self, prefix: str) -> Stored | None:
        refuse_nul(prefix)
        return self.stored.get(prefix)

    async def search(self, q: str, after: str, limit: int) -> Sequence[Stored]:
        refuse_nul(q, after)
        found = [self.stored[prefix] for prefix in sorted(self.stored) if prefix > after]
        return [one for one in found if q.lower() in f"{one.prefix} {leads_to(one.route)}".lower()][:limit]

    async def create(self, prefix: str, route: Route, actor: str) -> int:
        route = checked(route)
        if prefix in self.stored:
            raise DuplicateRoute
        self.stored[prefix] = Stored(prefix, route, now_ms(), now_ms())
        return self.versions.record(actor, f"add {prefix}")

    async def update(self, prefix: str, change: Callable[[Route], Route], actor: str) -> int:
        if prefix not in self.stored:
            raise NoSuchRoute
        route = checked(change(self.stored[prefix].route))
        self.stored[prefix] = Stored(prefix, route, self.stored[prefix].created_at, now_ms())
        return self.versions.record(actor, f"change {prefix}")

    async def delete(self, prefix: str, actor: str) -> int:
        if prefix not in self.stored:
            raise NoSuchRoute
        del self.stored[prefix]
        return self.versions.record(actor, f"delete {prefix}")

    async def delete_many(self, prefixes: Sequence[str], actor: str) -> Sequence[str]:
        there = [prefix for prefix in prefixes if self.stored.pop(prefix, None) is not None]
        if there:
            self.versions.record(actor, f"delete {len(there)}")
        return there


def checked(route: Route) -> Route:
    if route.upstream is not None:
        return route
    if not route.target:
        raise ConfigError("target", "missing, and there is no upstream")
    try:
        return msgspec.structs.replace(route, target=values.target(route.target))
    except ValueError as error:
        raise ConfigError("target", f"expected {error}") from None


@dataclass
class Upstreams:
    """Upstreams beside the routes, checked as those in SQL."""

    versions: Versions
    about: BalancingMemory

    async def all(self) -> Mapping[str, Upstream]:
        return dict(self.about.upstreams)

    async def add_backend(self, upstream: str, backend: Backend, actor: str) -> int:
        there = self.about.upstreams.get(upstream, Upstream())
        if any(one.id == backend.id or one.url == backend.url for one in there.backends):
            raise DuplicateBackend
        return self._put(upstream, (*there.backends, backend), actor)

    async def change_backend(
        self, upstream: str, backend_id: str, change: Callable[[Backend], Backend], actor: str
    ) -> int:
        there = self._backends(upstream, backend_id)
        changed = {**there, backend_id: change(there[backend_id])}
        return self._put(upstream, tuple(changed.values()), actor)

    async def remove_backend(self, upstream: str, backend_id: str, actor: str) -> int:
        there = self._backends(upstream, backend_id)
        del there[backend_id]
        return self._put(upstream, tuple(there.values()), actor)

    async def replace(
        self,
        change: Callable[[Mapping[str, Upstream], Mapping[str, Route]], tuple[dict[str, Upstream], dict[str, Route]]],
        actor: str,
    ) -> int:
        routes = {prefix: one.route for prefix, one in self.versions.stored.items()}
        wanted, routed = change(self.about.upstreams, routes)
        upstreams, after = upstream_specs.checked(wanted), route_specs.checked(routed)
        if (upstreams, after) == (self.about.upstreams, routes):
            return len(self.versions.versions)
        self.about.upstreams = upstreams
        self.versions.stored.clear()
        self.versions.stored.update({prefix: Stored(prefix, route, 0, now_ms()) for prefix, route in after.items()})
        return self.versions.record(actor, "replace")

    def _backends(self, upstream: str, backend_id: str) -> dict[str, Backend]:
        if upstream not in self.about.upstreams:
            raise NoSuchUpstream
        there = {one.id: one for one in self.about.upstreams[upstream].backends}
        if backend_id not in there:
            raise NoSuchBackend
        return there

    def _put(self, name: str, backends: tuple[Backend, ...], actor: str) -> int:
        there = self.about.upstreams.get(name, Upstream())
        changed = upstream_specs.checked({name: msgspec.structs.replace(there, backends=backends)})
        self.about.upstreams.update(changed)
        return self.versions.record(actor, f"change {name}")


@dataclass
class Settings:
    values: dict[str, str] = field(default_factory=dict)

    async def get(self, name: str) -> str | None:
        return self.values.get(name)

    async def put(self, name: str, value: str) -> None:
        self.values[name] = value

    async def delete(self, name: str) -> None:
        self.values.pop(name, None)


@dataclass
class Actions:
    actions: list[Action] = field(default_factory=list)

    async def append(
        self, *, actor: str, address: str, action: str, target: str, detail: Mapping[str, Any], outcome: str
    ) -> None:
        number = len(self.actions) + 1
        self.actions.append(Action(number, now_ms(), actor, address, action, target, dict(detail), outcome))

    async def list(
        self, *, after: int | None, limit: int, actor: str | None, action: str | None, since: int | None
    ) -> Sequence[Action]:
        refuse_long(after, limit, since)
        refuse_nul(actor or "", action or "")
        return [
            one
            for one in reversed(self.actions)
            if (after is None or one.id < after)
            and (actor is None or one.actor == actor)
            and (action is None or one.action == action)
            and (since is None or one.at >= since)
        ][:limit]


@dataclass
class Statistics:
    """Adds up `deltas` anew for each question. While `down`, only the last counters are known."""

    deltas: list[StatisticsDelta] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    now_s: float = field(default_factory=time.time)
    down: bool = False
    known: Counters | None = None

    def rows(self, period_s: int, since_s: float = 0, until_s: float = math.inf) -> dict[Key, RouteCounts]:
        """What lies in the slots of a period that began in a range."""
        found: dict[Key, RouteCounts] = {EVERYTHING: RouteCounts("", "")}
        for slot, rows in rolled_up(self.deltas).items():
            if slot.period_s == period_s and since_s <= slot.start_s < until_s:
                for key, row in rows.items():
                    found.setdefault(key, RouteCounts("", "")).add(row)
        return found

    def named(self, *range_s: Any) -> list[RouteCounts]:
        rows = self.rows(*range_s)
        del rows[EVERYTHING]
        return [msgspec.structs.replace(rows[key], prefix=key[0], authority=key[1]) for key in sorted(rows)]

    async def totals(self) -> Totals:
        recent = self.rows(MINUTE_S, starts(MINUTE_S, 5, self.now_s)[0])
        return Totals(self.rows(ALL_TIME_S)[EVERYTHING], recent[EVERYTHING], self.dropped)

    async def overview(self, shown: Range, prefix: str | None) -> Overview:
        refuse_nul(prefix or "")
        figures: dict[str, PrefixFigures] = {}
        for row in self.named(ALL_TIME_S):
            before = figures.get(row.prefix, PrefixFigures(row.prefix, 0, 0, 0, 0, 0, 0))
            figures[row.prefix] = before._replace(
                requests=before.requests + requests(row),
                errors=before.errors + errors(row),
                last_at=max(before.last_at, int(row.last_s * 1000)),
                today=self.of_days(1, row.prefix),
                week=self.of_days(7, row.prefix),
                month=self.of_days(30, row.prefix),
            )
        period_s, slots = graph(shown, min([slot_of(DAY_S, self.now_s).start_s, *self.days()]), self.now_s)
        points = [self.point(period_s, start_s, prefix) for start_s in slots]
        return Overview(await self.totals(), list(figures.values()), points)

    def of_days(self, days: int, prefix: str) -> int:
        rows = self.named(DAY_S, starts(DAY_S, days, self.now_s)[0])
        return sum(requests(row) for row in rows if row.prefix == prefix)

    def days(self) -> list[int]:
        return [slot.start_s for slot in rolled_up(self.deltas) if slot.period_s == DAY_S]

    def point(self, period_s: int, start_s: int, prefix: str | None) -> Point:
        rows = self.named(period_s, start_s, start_s + 1)
        shown = [row for row in rows if prefix is None or row.prefix == prefix]
        return Point(start_s, sum(map(requests, shown)), sum(map(errors, shown)))

    async def detail(self, range_s: tuple[int, int] | None) -> Detail:
        if range_s is None:
            return Detail(None, self.named(ALL_TIME_S))
        refuse_long(*range_s)
        since_s, until_s = range_s[0] // 60 * 60, -(-range_s[1] // 60) * 60
        return Detail((since_s, until_s), self.named(MINUTE_S, since_s, until_s))

    async def counters(self) -> tuple[Counters | None, bool]:
        if not self.down:
            self.known = Counters(self.named(ALL_TIME_S), self.dropped, 7)
        return self.known, not self.down


@dataclass(frozen=True)
class Worker:
    state: WorkerState
    alive: bool


@dataclass
class Workers:
    workers: list[Worker] = field(default_factory=list)

    def all(self) -> Sequence[Worker]:
        return self.workers

    def living(self) -> Sequence[WorkerState]:
        return [worker.state for worker in self.workers if worker.alive]


@dataclass
class Stream:
    known: tuple[int, float] | None = (0, 0.0)
    rate: float = 0.0

    def lag(self) -> tuple[int, float] | None:
        return self.known

    def requests_per_second(self) -> float:
        return self.rate


class Memory:
    """All services, and what lies behind them."""

    def __init__(self) -> None:
        self.versions = Versions()
        self.routes = Routes(self.versions)
        self.settings = Settings()
        self.actions = Actions()
        self.statistics = Statistics()
        self.workers = Workers()
        self.stream = Stream()
        self.about_keys = KeysMemory()
        self.about_tokens = TokensMemory()
        self.about_balancing = BalancingMemory()

    @property
    def services(self) -> Services:
        return Services(
            self.routes,
            self.versions,
            self.settings,
            self.actions,
            self.statistics,
            self.workers,
            self.stream,
            self.about_keys.services,
            self.about_tokens.services,
            self.management(),
        )

    def management(self) -> BalancingManagement:
        """Reference 004's, as it is put together for SQL and Redis."""
        about = self.about_balancing
        return BalancingManagement(
            about.config,
            Upstreams(self.versions, about),
            self.current,
            self.statistics,
            self.stream,
            self.workers,
            Known(lambda: about.health, lambda: about.running, about),
            about.reload_tls if about.config.tls is not None else None,
            lambda: self.statistics.now_s,
        )

    async def current(self) -> RoutesSection:
        routes = {prefix: stored.route for prefix, stored in self.versions.stored.items()}
        return RoutesSection(len(self.versions.versions), routes, upstreams=dict(self.about_balancing.upstreams))
