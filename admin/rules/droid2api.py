"""The key pool of reference 001 (droid2api's `data/key_pool.json`) as keys, pool groups and settings of ours. Pure.

What has no counterpart, or cannot be used, is named and keeps nothing else from being taken over.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from admin.rules import key_lists, key_pool_names
from admin.rules.bodies import BodyError
from admin.rules.key_lists import NewCredential
from proxy.config import ConfigError, KeyPool, PoolGroup
from proxy.rules.credentials import DEFAULT_GROUP
from proxy.sources import values

PASSED_OVER = frozenset({"batch_test_interval_ms", "cache_ttl_ms"})
"""Settings that droid2api writes into every file, and that nothing reads there either."""
STATUSES = ("active", "disabled")
PRIORITY = "a name, and a priority that is an integer from 0 to 1000000"


class Found(NamedTuple):
    """What a file holds. `settings` are fields of KeyPool; `problems` say what is not taken over, a line each."""

    keys: list[key_lists.Read]
    groups: dict[str, PoolGroup]
    settings: dict[str, Any]
    problems: list[str]


class Merged(NamedTuple):
    """The settings with what is taken over, and a line for each that changes (`+`, `~`) or is kept (`=`)."""

    pool: KeyPool
    lines: list[str]


def read(name: str, text: str) -> Found:
    """Raises ConfigError for a file that is not of this form at all."""
    try:
        whole = msgspec.json.decode(text.removeprefix("\ufeff"))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise ConfigError(name, "not JSON") from None
    if isinstance(whole, list):
        whole = {"keys": whole}
    if not isinstance(whole, dict) or not isinstance(whole.get("keys"), list):
        raise ConfigError(name, "found no list of `keys`, which droid2api's key_pool.json has")
    problems: list[str] = []
    groups = _groups(whole.get("poolGroups") or [], problems)
    settings = _settings(whole.get("config") or {}, problems)
    return Found(_keys(whole["keys"], groups, problems), groups, settings, problems)


def merged(pool: KeyPool, found: Found, *, replace: bool) -> Merged:
    """Lays what was found over the settings. What somebody has set already stays, unless it is to be replaced."""
    lines: list[str] = []
    changes: dict[str, Any] = {}
    for name, value in sorted(found.settings.items()):
        there = getattr(pool, name)
        if there == value:
            continue
        if replace or there == getattr(KeyPool(), name):
            changes[name] = value
            lines.append(f"~ key_pool.{name} {_shown(there)} -> {_shown(value)}")
        else:
            lines.append(f"= key_pool.{name} {_shown(there)} (kept; not {_shown(value)})")
    groups = dict(pool.groups)
    for name, group in sorted(found.groups.items()):
        if name in groups and groups[name] != group and not replace:
            lines.append(f"= pool group {name} (kept)")
        elif groups.get(name) != group:
            lines.append(f"{'~' if name in groups else '+'} pool group {name} priority {group.priority}")
            groups[name] = group
    return Merged(msgspec.structs.replace(pool, groups=groups, **changes), lines)


def _groups(given: Any, problems: list[str]) -> dict[str, PoolGroup]:
    """Of a list of objects with an id, or of an object by id."""
    if isinstance(given, Mapping):
        given = [{"id": name, **(one if isinstance(one, dict) else {})} for name, one in given.items()]
    if not isinstance(given, list):
        problems.append("poolGroups: expected a list")
        return {}
    groups: dict[str, PoolGroup] = {}
    for place, one in enumerate(given, 1):
        if not isinstance(one, dict) or not isinstance(one.get("id"), str):
            problems.append(f"poolGroups: entry {place} is no group with id, name and priority")
            continue
        fields = {field: one[field] for field in ("name", "priority") if one.get(field) is not None}
        try:
            groups[values.group_id(one["id"])] = msgspec.convert(fields, PoolGroup)
        except msgspec.ValidationError:
            problems.append(f"poolGroups: {one['id']!r}: expected {PRIORITY}")
        except ValueError as error:
            problems.append(f"poolGroups: {one['id']!r}: its id: expected {error}")
    return groups


def _settings(given: Any, problems: list[str]) -> dict[str, Any]:
    """Each setting alone, so that one that is unknown keeps no other from being taken.

    Some are there twice: of those droid2api reads the one in a section, and only that is changed by its API.
    """
    if not isinstance(given, Mapping):
        problems.append("config: expected an object")
        return {}
    settings: dict[str, Any] = {}
    for section, name, value in _items(given):
        where = f"{section}.{name}" if section else name
        if where in PASSED_OVER:
            continue
        if not key_pool_names.is_known(section, name):
            problems.append(f"config: {where!r}: there is nothing of the kind here")
            continue
        try:
            settings |= key_pool_names.changes({section: {name: value}} if section else {name: value})
        except BodyError as error:
            problems.append(f"config: {error}")
    return settings


def _items(given: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yields section, name and value of all that is given, last what overrules what came before."""
    sections: list[tuple[str, Mapping[str, Any]]] = []
    for name, value in given.items():
        if name in key_pool_names.SECTIONS and isinstance(value, Mapping):
            sections.append((name, value))
        else:
            yield "", name, value
    for section, inside in sections:
        for name, value in inside.items():
            yield section, name, value


def _keys(given: list[Any], groups: Mapping[str, PoolGroup], problems: list[str]) -> list[key_lists.Read]:
    """Keys that were banned come as disabled: a ban has an end here, and nobody knows that one's.

    So do those of another status than there is, which droid2api does not use.
    """
    known = {DEFAULT_GROUP, *groups}
    unknown: set[str] = set()
    banned = other = 0
    entries: list[Any] = []
    for one in given:
        entry = {name: one[name] for name in one if key_lists.known(name)} if isinstance(one, dict) else one
        if isinstance(entry, dict):
            if entry.get("status") not in (None, *STATUSES):
                banned += entry["status"] == "banned"
                other += entry["status"] != "banned"
                entry["status"] = "disabled"
            group = entry.get("poolGroup")
            if isinstance(group, str) and group and group not in known:
                unknown.add(group)
                entry["poolGroup"] = DEFAULT_GROUP
        entries.append(entry)
    if banned:
        problems.append(f"keys: {banned} were banned there, and are disabled here")
    if other:
        problems.append(f"keys: {other} were neither active, disabled nor banned there, and are disabled here")
    problems += [f"keys: there is no pool group {name!r}, so its keys are of default" for name in sorted(unknown)]
    return key_lists.read(msgspec.json.encode(entries).decode())


def _shown(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def usable(keys: list[key_lists.Read]) -> int:
    """How many keys of a list can be taken over."""
    return sum(isinstance(one, NewCredential) for one in keys)
