"""An upstream as text and back, as `route_specs.py` has it for routes; and what routes and upstreams owe each other.

Pure.
"""

from collections.abc import Collection, Mapping
from pathlib import PurePath
from typing import Any

import msgspec

from admin.rules.route_specs import plain
from proxy.config import ConfigError, Route, Upstream
from proxy.sources.structs import Reader, nearest
from proxy.sources.yaml_document import Document

SECTION = "upstreams"


def encode(upstream: Upstream) -> str:
    return msgspec.json.encode(plain(upstream)).decode()


def decode(name: str, spec: str) -> Upstream:
    """The upstream that a stored spec says. Raises ConfigError for one that this version of the program cannot read."""
    try:
        return msgspec.json.decode(spec, type=Upstream)
    except msgspec.DecodeError as error:
        raise ConfigError("database", f"{SECTION}.{name}", str(error)) from None


def checked(upstreams: Mapping[str, Upstream]) -> dict[str, Upstream]:
    """The upstreams as the reader of YAML would have read them, with an id for each backend. Raises ConfigError.

    File names stay as they are.
    """
    spelled = {name: msgspec.to_builtins(plain(upstream)) for name, upstream in upstreams.items()}
    read: dict[str, Any] = Reader("", Document({SECTION: spelled}, {}), PurePath()).config()
    found: dict[str, Upstream] = read[SECTION]
    return found


def refuse_unknown(
    changed: Mapping[str, Route], routes: Mapping[str, Route], gone: Collection[str], upstreams: Mapping[str, Upstream]
) -> None:
    """Raises ConfigError where a route that is new or `changed` names none of the `upstreams`, or any a `gone` one."""
    for prefix, route in changed.items():
        if route.upstream is not None and route.upstream not in upstreams:
            known = nearest(route.upstream, upstreams) if upstreams else "there is none"
            raise ConfigError(f"routes.{prefix}.upstream", f"no upstream is called {route.upstream}, {known}")
    if not gone:
        return
    for prefix, route in sorted(routes.items()):
        if route.upstream in gone:
            raise ConfigError(f"{SECTION}.{route.upstream}", f"it cannot be removed, the route {prefix} uses it")
