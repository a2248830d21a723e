"""The SQL side of the control plane in memory: as strict as the real one, and forgetful."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from admin.context import Services
from admin.services.failures import DuplicateRoute, NoSuchRoute, NoSuchVersion
from proxy.config import ConfigError, Route
from proxy.sources import values


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
        return [one for one in found if q.lower() in f"{one.prefix} {one.route.target}".lower()][:limit]

    async def create(self, prefix: str, route: Route, actor: str) -> int:
        route = checked(route)
        if prefix in self.stored:
            raise DuplicateRoute
        self.stored[prefix] = Stored(prefix, route, now_ms(), now_ms())
        return self.versions.record(actor, f"add {prefix}")

    async def replace(self, prefix: str, route: Route, actor: str) -> int:
        route = checked(route)
        if prefix not in self.stored:
            raise NoSuchRoute
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
    try:
        return msgspec.structs.replace(route, target=values.target(route.target))
    except ValueError as error:
        raise ConfigError("target", f"expected {error}") from None


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


class Memory:
    """All services, and what lies behind them."""

    def __init__(self) -> None:
        self.versions = Versions()
        self.routes = Routes(self.versions)
        self.settings = Settings()
        self.actions = Actions()

    @property
    def services(self) -> Services:
        return Services(self.routes, self.versions, self.settings, self.actions)
