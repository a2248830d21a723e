"""What differs between two sets of routes or upstreams, and between two documents of the configuration. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from admin.rules.key_pool_specs import SECTION as KEY_POOL
from admin.rules.key_pool_specs import flat, flattened
from admin.rules.route_specs import plain
from admin.rules.upstream_specs import SECTION as UPSTREAMS
from proxy.config import KeyPool, Route, Struct, Upstream

ROUTE = "route"
UPSTREAM = "upstream"
# The part of a document in which each kind of thing stands; of the key pool, a thing is a setting or a group.
SECTIONS = {ROUTE: "routes", UPSTREAM: UPSTREAMS, KEY_POOL: KEY_POOL}


class Change(msgspec.Struct, frozen=True):
    """One difference; `before` is None for what was added, `after` for what was removed. Both are as JSON has them."""

    kind: str
    name: str
    before: Any
    after: Any


def of_routes(before: Mapping[str, Route], after: Mapping[str, Route]) -> list[Change]:
    """By prefix."""
    return _between_structs(ROUTE, before, after)


def of_upstreams(before: Mapping[str, Upstream], after: Mapping[str, Upstream]) -> list[Change]:
    """By name; an upstream is one thing with all its backends."""
    return _between_structs(UPSTREAM, before, after)


def of_key_pools(before: KeyPool, after: KeyPool) -> list[Change]:
    """By setting and group; None stands for a default."""
    return _between(KEY_POOL, flat(before), flat(after))


def of_documents(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """By kind and name."""
    found: list[Change] = []
    for kind, section in SECTIONS.items():
        old, new = before.get(section, {}), after.get(section, {})
        if kind == KEY_POOL:
            old, new = flattened(old), flattened(new)
        found += _between(kind, old, new)
    return found


def document(routes: Mapping[str, Route], key_pool: KeyPool, upstreams: Mapping[str, Upstream]) -> dict[str, Any]:
    """The whole configuration as one value, in one order. A key pool of defaults is left out, and no upstreams are."""
    whole: dict[str, Any] = {SECTIONS[ROUTE]: {prefix: plain(routes[prefix]) for prefix in sorted(routes)}}
    if settings := plain(key_pool):
        whole[SECTIONS[KEY_POOL]] = settings
    if upstreams:
        whole[SECTIONS[UPSTREAM]] = {name: plain(upstreams[name]) for name in sorted(upstreams)}
    return whole


def summary(verb: str, changes: Sequence[Change]) -> str:
    """A line about an edit: the name where there is one, else counts."""
    if len(changes) == 1:
        return f"{verb} {changes[0].kind} {changes[0].name}"
    added = sum(change.before is None for change in changes)
    removed = sum(change.after is None for change in changes)
    counts = {"added": added, "changed": len(changes) - added - removed, "removed": removed}
    return f"{verb}: " + ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _between(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    return [Change(kind, name, old.get(name), new.get(name)) for name in names]


def _between_structs(kind: str, before: Mapping[str, Struct], after: Mapping[str, Struct]) -> list[Change]:
    differing = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    return [Change(kind, name, _plain(before, name), _plain(after, name)) for name in sorted(differing)]


def _plain(structs: Mapping[str, Struct], name: str) -> dict[str, Any] | None:
    struct = structs.get(name)
    return None if struct is None else plain(struct)
