"""What adding routes to those that are there does. Pure.

Unlike applying (`three_way.py`), it removes nothing, and changes a prefix that is taken only where that is asked for.
"""

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

import msgspec

from admin.rules.three_way import Difference, Plan
from proxy.config import Route, UpstreamTls, leads_to
from proxy.sources.structs import MAX_CONNECTIONS


class Existing(Enum):
    """What becomes of a route that is there, where another target is to be added for its prefix.

    REPLACE changes its target; the other options stay as they were set, where they are for such a target.
    """

    KEEP = "keep"
    REPLACE = "replace"


class Additions(NamedTuple):
    """`kept` are the routes that stay with their own target; `after` is what was to be added."""

    plan: Plan
    kept: tuple[Difference, ...]

    def lines(self) -> list[str]:
        """To be read: `+` and `~` for what changes, `=` for what is kept."""
        kept = [f"= {one.prefix} {_led(one.before)} (kept; not {_led(one.after)})" for one in self.kept]
        return sorted([*self.plan.lines(), *kept], key=lambda line: line.split(" ", 2)[1])


def additions(current: Mapping[str, Route], wanted: Mapping[str, Route], existing: Existing) -> Additions:
    adds: list[Difference] = []
    changes: list[Difference] = []
    kept: list[Difference] = []
    for prefix, route in sorted(wanted.items()):
        there = current.get(prefix)
        if there is None:
            adds.append(Difference(prefix, None, route))
        elif leads_to(there) == leads_to(route):
            continue
        elif existing is Existing.KEEP:
            kept.append(Difference(prefix, there, route))
        else:
            changes.append(Difference(prefix, there, _led_to(there, route)))
    return Additions(Plan(tuple(adds), tuple(changes), (), ()), tuple(kept))


def _led(route: Route | None) -> str:
    return "" if route is None else leads_to(route)


def _led_to(there: Route, wanted: Route) -> Route:
    """The route that is there, leading to where the other one does."""
    led = msgspec.structs.replace(there, target=wanted.target, upstream=wanted.upstream, base=wanted.base)
    if wanted.upstream is None:
        return msgspec.structs.replace(led, balancer=None, protocols=None)
    if there.upstream is None:
        return msgspec.structs.replace(
            led,
            balancer=wanted.balancer,
            protocols=wanted.protocols,
            max_connections=MAX_CONNECTIONS,
            tls=UpstreamTls(),
        )
    return led
