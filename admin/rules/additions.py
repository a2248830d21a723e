"""What adding routes and upstreams does to those that are there. Pure.

Unlike applying (`three_way.py`), it removes no route and no upstream, and changes what is there only where that is
asked for.
"""

from collections.abc import Collection, Mapping
from enum import Enum
from typing import NamedTuple

import msgspec

from admin.rules import three_way_upstreams
from admin.rules.three_way import Difference, Plan
from proxy.config import Backend, HealthCheck, Route, Upstream, UpstreamTls, leads_to
from proxy.sources.structs import MAX_CONNECTIONS


class Existing(Enum):
    """What becomes of a route or an upstream that is there, where another one is to be added by its prefix or name.

    REPLACE changes where a route leads, and balancers that are given; and the backends of an upstream, all of them. The
    other options stay as they were set, where they are for such a target and such backends.
    """

    KEEP = "keep"
    REPLACE = "replace"


class Wanted(NamedTuple):
    """What is to be added, and the upstreams among it that lack a backend: these replace none that is there."""

    routes: Mapping[str, Route]
    upstreams: Mapping[str, Upstream] = {}
    partial: Collection[str] = ()


class Additions(NamedTuple):
    """`kept` and `kept_upstreams` are those that stay as they are; `after` is what they would have become."""

    plan: Plan
    kept: tuple[Difference, ...]
    kept_upstreams: tuple[three_way_upstreams.Difference, ...]

    def lines(self) -> list[str]:
        """To be read: `+`, `~` and `-` for what changes, `=` for what is kept. Upstreams are before routes."""
        of_routes = msgspec.structs.replace(self.plan, upstreams=()).lines()
        of_routes += [f"= {one.prefix} {_kept(one)}" for one in self.kept]
        of_upstreams = [line for one in self.plan.upstreams for line in one.lines()]
        of_upstreams += [
            f"= upstream {one.name} (kept; it differs in {', '.join(one.parts())})" for one in self.kept_upstreams
        ]
        return [
            *sorted(of_upstreams, key=lambda line: line.split(" ", 3)[2]),
            *sorted(of_routes, key=lambda line: line.split(" ", 2)[1]),
        ]


def additions(
    routes: Mapping[str, Route], upstreams: Mapping[str, Upstream], wanted: Wanted, existing: Existing
) -> Additions:
    """What becomes of the routes and upstreams that are there."""
    adds: list[Difference] = []
    changes: list[Difference] = []
    kept: list[Difference] = []
    for prefix, route in sorted(wanted.routes.items()):
        there = routes.get(prefix)
        if there is None:
            adds.append(Difference(prefix, None, route))
        elif (led := _led_to(there, route)) != there:
            (kept if existing is Existing.KEEP else changes).append(Difference(prefix, there, led))
    of_upstreams: list[three_way_upstreams.Difference] = []
    kept_upstreams: list[three_way_upstreams.Difference] = []
    for name, upstream in sorted(wanted.upstreams.items()):
        before = upstreams.get(name)
        after = upstream if before is None else _with_backends_of(before, upstream)
        if after != before:
            stays = before is not None and (existing is Existing.KEEP or name in wanted.partial)
            (kept_upstreams if stays else of_upstreams).append(
                three_way_upstreams.Difference(name, before, before, after)
            )
    plan = Plan(tuple(adds), tuple(changes), (), (), upstreams=tuple(of_upstreams))
    return Additions(plan, tuple(kept), tuple(kept_upstreams))


def _kept(one: Difference) -> str:
    before, after = _led(one.before), _led(one.after)
    if before != after:
        return f"{before} (kept; not {after})"
    names = [name for name in ("balancer", "protocols") if getattr(one.before, name) != getattr(one.after, name)]
    return f"{before} (kept; it differs in {', '.join(names)})"


def _led(route: Route | None) -> str:
    return "" if route is None else leads_to(route)


def _led_to(there: Route, wanted: Route) -> Route:
    """The route that is there, leading to where the other one does, by balancers that the other one gives."""
    led = msgspec.structs.replace(there, target=wanted.target, upstream=wanted.upstream, base=wanted.base)
    if wanted.upstream is None:
        return msgspec.structs.replace(led, balancer=None, protocols=None)
    if there.upstream is None:
        led = msgspec.structs.replace(led, max_connections=MAX_CONNECTIONS, tls=UpstreamTls())
    return msgspec.structs.replace(
        led, balancer=wanted.balancer or there.balancer, protocols=wanted.protocols or there.protocols
    )


def _with_backends_of(there: Upstream, wanted: Upstream) -> Upstream:
    """The upstream that is there, with the backends of the other one."""
    known = {one.id: one for one in there.backends}
    backends = tuple(_backend(known.get(one.id), one) for one in wanted.backends)
    secure = any(one.url.startswith("https://") for one in backends)
    return msgspec.structs.replace(there, backends=backends, tls=there.tls if secure else UpstreamTls())


def _backend(there: Backend | None, wanted: Backend) -> Backend:
    """The other backend, with what only the one that is there can have been told."""
    if there is None:
        return wanted
    return msgspec.structs.replace(
        wanted,
        draining=there.draining,
        priority=there.priority,
        health_check=_health_check(there.health_check, wanted.health_check),
    )


def _health_check(there: HealthCheck | None, wanted: HealthCheck | None) -> HealthCheck | None:
    if there is None or wanted is None:
        return wanted
    return msgspec.structs.replace(wanted, successes=there.successes, statuses=there.statuses, body=there.body)
