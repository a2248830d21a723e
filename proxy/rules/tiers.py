"""Which groups of the key pool are tried in which order.

A **tier** is the groups of one priority number; lower numbers come first. `default` is always a group: where nobody
gave it a priority it is a tier of its own after all others. A group that holds no credential is left out everywhere, so
no tier is empty, and "first" is the first that holds any.

| `multi_tier` | `strict_mode` | `auto_fallback` | tiers |
| --- | --- | --- | --- |
| off | any | any | one, of all groups |
| on | on | any | the first |
| on | off | on | all |
| on | off | off | the first, then `default` alone unless it was in it |

Of a route that names groups there are no others, not even `default`.
"""

from collections.abc import Collection, Mapping, Sequence

from proxy.config import KeyPool, PoolGroup
from proxy.rules.credentials import DEFAULT_GROUP

LAST = float("inf")


def group_of(group: str, groups: Mapping[str, PoolGroup]) -> str:
    """Returns the group that a credential counts as of: its own if there is one of that id, else `default`."""
    return group if group in groups else DEFAULT_GROUP


def unknown_groups(allowed: Sequence[str], groups: Mapping[str, PoolGroup]) -> list[str]:
    """Returns those of a route's groups that there are not; `default` is always one."""
    return [group for group in allowed if group != DEFAULT_GROUP and group not in groups]


def tiers(
    groups: Mapping[str, PoolGroup], settings: KeyPool, allowed: Sequence[str], used: Collection[str]
) -> list[tuple[str, ...]]:
    """Returns ids of groups, tier by tier, those of a tier in order of their ids; an empty list where there is none.

    `groups` by id; `allowed` as a route has them (empty: all); `used` are the groups that credentials name.
    """
    holding = {group_of(group, groups) for group in used}
    usable = holding.intersection(allowed) if allowed else holding
    if not usable:
        return []
    if not settings.multi_tier:
        return [tuple(sorted(usable))]
    by_priority = _by_priority(groups, usable)
    if settings.auto_fallback and not settings.strict_mode:
        return by_priority
    first = by_priority[0]
    if settings.strict_mode or DEFAULT_GROUP in first or DEFAULT_GROUP not in usable:
        return [first]
    return [first, (DEFAULT_GROUP,)]


def _by_priority(groups: Mapping[str, PoolGroup], usable: Collection[str]) -> list[tuple[str, ...]]:
    by_priority: dict[float, list[str]] = {}
    for group in sorted(usable):
        priority = groups[group].priority if group in groups else LAST
        by_priority.setdefault(priority, []).append(group)
    return [tuple(by_priority[priority]) for priority in sorted(by_priority)]
