"""The YAML of reference 004 (SpeedMimi) as routes and settings of ours. Pure.

A routing entry leads to an upstream of several backends. A route has one target, so an entry can be taken over where
exactly one backend of its upstream is active. The reference relays a path as it came, so the entry's path is the prefix
and also the base of the target. What has no counterpart is named, key by key.
"""

import re
from typing import Any, NamedTuple

import msgspec

from proxy.config import ConfigError, Route
from proxy.sources.structs import shown
from proxy.sources.yaml_document import Document, Path

_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:h|m|s|ms|us|µs|ns))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)")
_KINDS = {str: "text", int: "an integer", bool: "true or false"}
_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


class Found(NamedTuple):
    """What a file holds.

    `routes` are by path, not checked yet. `settings` are what belongs into `relaygate.yaml`. `problems` say why an
    entry is not taken over, `ignored` are the keys without a counterpart; both with file and line.
    """

    routes: dict[str, Route]
    settings: dict[str, Any]
    problems: list[str]
    ignored: list[str]


def read(name: str, document: Document) -> Found:
    """Raises ConfigError for a file that is not of this form at all."""
    return _Reader(name, document).read()


def seconds(text: str) -> float:
    """The seconds of a duration as Go spells it: `30s`, `1m30s`, `500ms`. Raises ValueError for anything else."""
    if not _DURATION.fullmatch(text):
        raise ValueError("a duration such as 30s or 1m30s")
    return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))


class _Reader:
    def __init__(self, name: str, document: Document) -> None:
        self._name = name
        self._document = document
        self._found = Found({}, {}, [], [])
        self._used: set[Path] = set()

    def read(self) -> Found:
        whole = self._mapping(())
        if not whole.keys() & {"server", "ssl", "backends", "routing"}:
            raise ConfigError(self._name, "found none of server, ssl, backends and routing, which SpeedMimi's file has")
        self._server()
        self._tls()
        for entry in self._mapping(("routing",)):
            self._entry(entry)
        self._ignore_rest(self._document.value, ())
        return self._found

    def _server(self) -> None:
        server: dict[str, Any] = {}
        for key, ours, kind in (("host", "host", str), ("port", "port", int), ("max_conn", "max_connections", int)):
            value = self._take(("server", key), kind)
            if value is not None:
                server[ours] = value
        timeout_s = self._duration(("server", "read_timeout"))
        if timeout_s is not None:
            server |= {"header_timeout_s": timeout_s, "body_timeout_s": timeout_s}
        if server:
            self._found.settings["server"] = server

    def _tls(self) -> None:
        enabled = self._take(("ssl", "enabled"), bool)
        files = {"certificate": self._take(("ssl", "cert_file"), str), "key": self._take(("ssl", "key_file"), str)}
        if enabled:
            self._found.settings["tls"] = {ours: file for ours, file in files.items() if file is not None}

    def _entry(self, entry: str) -> None:
        path = ("routing", entry)
        prefix = self._take((*path, "path"), str) or "/"
        upstream = self._take((*path, "upstream"), str) or ""
        active = self._active(upstream)
        if len(active) != 1:
            count = f"{len(active)} active backends" if self._at(("backends", upstream)) else "no backends"
            self._problem(path, f"the upstream {upstream} has {count}, expected one: a route leads to one target")
        elif prefix in self._found.routes:
            self._problem((*path, "path"), f"{prefix} is there twice")
        else:
            base = "" if prefix == "/" else prefix
            self._found.routes[prefix] = msgspec.structs.replace(active[0], target=active[0].target + base)

    def _active(self, upstream: str) -> list[Route]:
        """The active backends of an upstream, as routes to them. One that does not say is active."""
        found = []
        for index in range(len(self._at(("backends", upstream)) or ())):
            path = ("backends", upstream, str(index))
            if self._take((*path, "active"), bool) is False:
                continue
            self._used |= {(*path, "id"), (*path, "name")}  # they tell the backends of one upstream apart
            scheme = self._take((*path, "scheme"), str) or "http"
            host = self._take((*path, "host"), str) or ""
            port = self._take((*path, "port"), int)
            connections_max = self._take((*path, "max_conn"), int) or 0
            target = f"{scheme}://{f'[{host}]' if ':' in host else host}" + ("" if port is None else f":{port}")
            route = Route(target=target)
            if connections_max > 0:
                route = msgspec.structs.replace(route, max_connections=connections_max)
            found.append(route)
        return found

    def _take(self, path: Path, kind: type) -> Any:
        """The value at a path, which is thereby used; None where there is none, or one of another kind (a problem)."""
        self._used.add(path)
        value = self._at(path)
        if value is None or type(value) is kind:
            return value
        self._problem(path, f"found {shown(value)}, expected {_KINDS[kind]}")
        return None

    def _duration(self, path: Path) -> float | None:
        text = self._take(path, str)
        try:
            return None if text is None else seconds(text)
        except ValueError as error:
            self._problem(path, f"found {shown(text)}, expected {error}")
            return None

    def _at(self, path: Path) -> Any:
        value = self._document.value
        for key in path:
            if isinstance(value, list) and key.isdigit() and int(key) < len(value):
                value = value[int(key)]
            elif isinstance(value, dict):
                value = value.get(key)
            else:
                return None
        return value

    def _mapping(self, path: Path) -> dict[str, Any]:
        value = self._at(path)
        if value is not None and not isinstance(value, dict):
            raise ConfigError(self._where(path), ".".join(path), "expected a mapping of keys to values")
        return value or {}

    def _ignore_rest(self, value: Any, path: Path) -> None:
        """Notes each key whose value was not used."""
        if path in self._used:
            return
        inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        below = [((*path, str(key)), one) for key, one in inside]
        if below and (isinstance(value, dict) or isinstance(value[0], dict)):
            for key, one in below:
                self._ignore_rest(one, key)
        elif path:
            self._found.ignored.append(f"{self._where(path)}: {'.'.join(path)}")

    def _problem(self, path: Path, text: str) -> None:
        self._found.problems.append(f"{self._where(path)}: {'.'.join(path)}: {text}")

    def _where(self, path: Path) -> str:
        while path and path not in self._document.lines:
            path = path[:-1]
        return f"{self._name}:{self._document.lines[path]}" if path else self._name
