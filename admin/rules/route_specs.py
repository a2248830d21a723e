"""A route as text and back. Pure.

A spec is what a YAML file would say of the route: what equals a default is left out, so a default that changes in a
later version of the program changes for stored routes too, as it does for those in files.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import PurePath
from typing import Any

import msgspec
from msgspec.structs import FieldInfo

from proxy.config import ConfigError, Route, Struct
from proxy.sources.structs import Reader, shown
from proxy.sources.yaml_document import Document

# The longest that is a key in every database: of MySQL's 3,072 bytes, 4 for each character.
PREFIX_LENGTH_MAX = 512


def plain(struct: Struct) -> dict[str, Any]:
    """The fields of a struct that differ from their defaults, as JSON has them."""
    found: dict[str, Any] = {}
    for name, default in _defaults(type(struct)):
        value = getattr(struct, name)
        if value != default:
            found[name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Struct):
        return plain(value)
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return {key: _plain(one) for key, one in value.items()} if isinstance(value, dict) else value


@cache
def _defaults(struct: type[Struct]) -> list[tuple[str, Any]]:
    """Names and defaults of a struct's fields; asking msgspec for each of 10,000 routes would take a second."""
    return [(field.name, _default(field)) for field in msgspec.structs.fields(struct)]


def _default(field: FieldInfo) -> Any:
    factory = field.default_factory
    return field.default if factory is msgspec.NODEFAULT else factory()


def encode(route: Route) -> str:
    return msgspec.json.encode(plain(route)).decode()


def decode(prefix: str, spec: str) -> Route:
    """The route that a stored spec says. Raises ConfigError for one that this version of the program cannot read."""
    try:
        return msgspec.json.decode(spec, type=Route)
    except msgspec.DecodeError as error:
        raise ConfigError("database", f"routes.{prefix}", str(error)) from None


def checked(routes: Mapping[str, Route]) -> dict[str, Route]:
    """The routes with prefixes and fields as the reader of YAML would have read them. Raises ConfigError.

    Two spellings of one prefix are refused. File names stay as they are.
    """
    spelled = {prefix: plain(route) for prefix, route in routes.items()}
    read: dict[str, Route] = Reader("", Document({"routes": spelled}, {}), PurePath()).config()["routes"]
    for prefix in read:
        if len(prefix) > PREFIX_LENGTH_MAX:
            raise ConfigError(f"routes.{shown(prefix)}", f"the prefix is longer than {PREFIX_LENGTH_MAX} characters")
    return read
