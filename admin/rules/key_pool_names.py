"""The settings of the key pool as reference 001 spells them: nested, and some of them in two spellings. Pure.

What the reference has no name for has that of the YAML file, in the section where it belongs. Each setting may also be
given by its name in the YAML file, at the top.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from admin.rules import bodies
from admin.rules.bodies import BodyError
from proxy.config import KeyPool


class Name(NamedTuple):
    """Where a setting stands and how it is shown there; `aliases` are taken too. At the top, there is no section."""

    section: str
    name: str
    field: str
    aliases: tuple[str, ...] = ()


NAMES = (
    Name("", "algorithm", "algorithm"),
    Name("retry", "enabled", "retry_enabled"),
    Name("retry", "max", "retry_max", ("maxRetries",)),
    Name("retry", "delay", "retry_delay_ms", ("retryDelay", "delay_ms")),
    Name("retry", "deadline_s", "retry_deadline_s"),
    Name("retry", "statuses", "retry_statuses"),
    Name("retry", "body_bytes_max", "retry_body_bytes_max"),
    Name("retry", "idempotent_only", "retry_idempotent_only"),
    Name("autoBan", "enabled", "auto_ban_enabled"),
    Name("autoBan", "errorThreshold", "error_threshold", ("error_threshold",)),
    Name("autoBan", "error_window_s", "error_window_s"),
    Name("autoBan", "ban_402", "ban_402", ("ban402",)),
    Name("autoBan", "ban_401", "ban_401", ("ban401",)),
    Name("autoBan", "ban_s", "ban_s"),
    Name("autoBan", "ban_max_s", "ban_max_s"),
    Name("autoBan", "rate_limit_s", "rate_limit_s"),
    Name("autoBan", "overload_s", "overload_s"),
    Name("performance", "concurrentLimit", "concurrent_limit", ("concurrent_limit",)),
    Name("performance", "requestTimeout", "request_timeout_ms", ("request_timeout_ms", "request_timeout")),
    Name("multiTier", "enabled", "multi_tier"),
    Name("multiTier", "autoFallback", "auto_fallback", ("auto_fallback",)),
    Name("multiTier", "strictMode", "strict_mode", ("strict_mode",)),
    Name("timeWindow", "window_s", "window_s"),
    Name("balance", "interval_s", "balance_interval_s"),
    Name("balance", "queries", "balance_queries"),
)
SECTIONS = tuple(dict.fromkeys(name.section for name in NAMES if name.section))
TYPES = {field.name: field.type for field in msgspec.structs.fields(KeyPool) if field.name != "groups"}

_SPELLED = {(one.section, spelled): one for one in NAMES for spelled in (one.name, *one.aliases)}
_SPELLED |= {("", one.field): one for one in NAMES}
_KNOWN = {
    section: [name for place, name in _SPELLED if place == section] + ([] if section else list(SECTIONS))
    for section in ("", *SECTIONS)
}


def shown(pool: KeyPool) -> dict[str, Any]:
    """Returns the settings nested, without the groups, which have endpoints of their own."""
    nested: dict[str, Any] = {}
    for one in NAMES:
        place = nested.setdefault(one.section, {}) if one.section else nested
        place[one.name] = msgspec.to_builtins(getattr(pool, one.field))
    return nested


def is_known(section: str, name: str) -> bool:
    """Whether a document may have this name in a section, or at its top."""
    return name in _KNOWN[section]


def changes(given: Any) -> dict[str, Any]:
    """Returns the fields of KeyPool that a nested document gives, each checked by its type and bounds.

    Raises BodyError, which names what is wrong as the document spells it.
    """
    found: dict[str, Any] = {}
    spelled: dict[str, str] = {}
    for section, name, value in _items(given):
        where = f"{section}.{name}" if section else name
        one = _SPELLED.get((section, name))
        if one is None:
            raise bodies.unknown(where, name, _KNOWN[section])
        checked = bodies.value(TYPES[one.field], value, where)
        if found.setdefault(one.field, checked) != checked:
            raise BodyError(f"{where}: the same setting as {spelled[one.field]}, with another value")
        spelled.setdefault(one.field, where)
    return found


def _items(given: Any) -> Iterator[tuple[str, str, Any]]:
    """Yields section, name and value of all that is given."""
    for name, value in bodies.mapping(given, "").items():
        if name in SECTIONS:
            for inner, item in bodies.mapping(value, name).items():
                yield name, inner, item
        else:
            yield "", name, value
