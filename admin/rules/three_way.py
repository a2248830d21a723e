"""How a file and the admin API live together, as `kubectl apply` does it. Pure.

Three states are compared: the file as it was last applied, the file as it is wanted, and what is there. What changed in
the file between the first two is done; what did not stays as it is there, edited through the API or not. Where both
touched one route, the file wins, and the route is a conflict to be reported.
"""

from collections.abc import Mapping

import msgspec

from admin.rules import three_way_key_pool, three_way_upstreams
from proxy.config import Route, leads_to

_LEADING = ("target", "upstream", "base")


class Difference(msgspec.Struct, frozen=True):
    """A route as it is there and as the file wants it; None where there is none."""

    prefix: str
    before: Route | None
    after: Route | None


class Plan(msgspec.Struct, frozen=True):
    """What applying a file would do, each part by prefix.

    `conflicts` are those of the other three whose route was touched through the API too. `key_pool` is what changes of
    its settings and groups, `upstreams` are those that change and those that stay only because a route uses them.
    """

    adds: tuple[Difference, ...]
    changes: tuple[Difference, ...]
    removals: tuple[Difference, ...]
    conflicts: tuple[Difference, ...]
    key_pool: tuple[three_way_key_pool.Difference, ...] = ()
    upstreams: tuple[three_way_upstreams.Difference, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.adds or self.changes or self.removals or self.key_pool or self.upstreams)

    def result(self, current: Mapping[str, Route]) -> dict[str, Route]:
        """What will be there, from what is."""
        gone = {one.prefix for one in self.removals}
        kept = {prefix: route for prefix, route in current.items() if prefix not in gone}
        return kept | {one.prefix: one.after for one in (*self.adds, *self.changes) if one.after is not None}

    def lines(self) -> list[str]:
        """The plan to be read: `+`, `~` and `-`, a prefix, where it leads, and what of the rest differs.

        Before the routes are the upstreams, behind them the key pool.
        """
        conflicts = {one.prefix for one in self.conflicts}
        signs = ((self.adds, "+"), (self.changes, "~"), (self.removals, "-"))
        ordered = sorted(((one, sign) for part, sign in signs for one in part), key=lambda pair: pair[0].prefix)
        of_routes = [
            f"{sign} {one.prefix} {_told(one)}{' (also edited through the API)' if one.prefix in conflicts else ''}"
            for one, sign in ordered
        ]
        of_upstreams = [line for one in self.upstreams for line in one.lines()]
        return [*of_upstreams, *of_routes, *(one.line() for one in self.key_pool)]


def plan(current: Mapping[str, Route], wanted: Mapping[str, Route], last_applied: Mapping[str, Route] | None) -> Plan:
    """What the file `wanted` does to `current`. `last_applied` is None where no file ever was."""
    last = last_applied or {}
    adds: list[Difference] = []
    changes: list[Difference] = []
    removals: list[Difference] = []
    conflicts: list[Difference] = []
    for prefix in sorted(wanted.keys() | last.keys()):
        base, before, after = last.get(prefix), current.get(prefix), wanted.get(prefix)
        if after in (base, before):
            continue
        difference = Difference(prefix, before, after)
        if before is None:
            adds.append(difference)
        elif after is None:
            removals.append(difference)
        else:
            changes.append(difference)
        if before != base:
            conflicts.append(difference)
    return Plan(tuple(adds), tuple(changes), tuple(removals), tuple(conflicts))


def _told(one: Difference) -> str:
    if one.before is None or one.after is None:
        route = one.after or one.before
        return "" if route is None else leads_to(route)
    before, after = leads_to(one.before), leads_to(one.after)
    fields = [name for name in Route.__struct_fields__ if getattr(one.before, name) != getattr(one.after, name)]
    leading = after if before == after else f"{before} -> {after}"
    rest = [name for name in fields if name not in _LEADING]
    return f"{leading} ({', '.join(rest)})" if rest else leading
