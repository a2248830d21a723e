"""The settings of the key pool as text and back, and one by one: each setting has a name, and so has each group and
each balance query. Pure.
"""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import msgspec

from admin.rules.route_specs import plain
from proxy.config import ConfigError, KeyPool, PoolGroup
from proxy.sources import structs
from proxy.sources.structs import Reader
from proxy.sources.yaml_document import Document

SECTION = "key_pool"
NAMED = tuple(name for struct, name in structs.NAMED if struct is KeyPool)
"""Settings that are mappings, of which each item is one by itself: `groups.main`."""


def flat(pool: KeyPool) -> dict[str, Any]:
    """What differs from the defaults, by name: `algorithm`, `groups.main`."""
    return flattened(plain(pool))


def flattened(spec: Mapping[str, Any]) -> dict[str, Any]:
    flat = {name: value for name, value in spec.items() if name not in NAMED}
    for name in NAMED:
        flat |= {f"{name}.{key}": item for key, item in spec.get(name, {}).items()}
    return flat


def whole(values: Mapping[str, Any]) -> KeyPool:
    """The settings that `flat` made these of. Raises ConfigError."""
    spec: dict[str, Any] = {name: {} for name in NAMED}
    for name, value in values.items():
        setting, dot, key = name.partition(".")
        if dot:
            spec[setting][key] = value
        else:
            spec[name] = value
    return decode(msgspec.json.encode(spec).decode())


def encode(pool: KeyPool) -> str:
    return msgspec.json.encode(plain(pool)).decode()


def decode(spec: str) -> KeyPool:
    """Raises ConfigError for what this version of the program cannot read."""
    try:
        return msgspec.json.decode(spec, type=KeyPool)
    except msgspec.DecodeError as error:
        raise ConfigError("database", SECTION, str(error)) from None


def checked(pool: KeyPool) -> KeyPool:
    """The settings as the reader of YAML would have read them. Raises ConfigError."""
    spec = msgspec.to_builtins(plain(pool))
    read: dict[str, Any] = Reader("", Document({SECTION: spec}, {}), PurePath()).config()[SECTION]
    return KeyPool(**read)


def with_group(pool: KeyPool, name: str, group: PoolGroup) -> KeyPool:
    return msgspec.structs.replace(pool, groups={**pool.groups, name: group})


def without_group(pool: KeyPool, name: str) -> KeyPool:
    groups = {other: group for other, group in pool.groups.items() if other != name}
    return msgspec.structs.replace(pool, groups=groups)
