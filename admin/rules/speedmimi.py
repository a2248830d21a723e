"""The YAML of reference 004 (SpeedMimi) as upstreams, routes and settings of ours. Pure.

A routing entry is a route to an upstream. It is known by its path; its name is a label. The reference relays a path as
it came, so the path is the prefix and also the base. A backend, a routing entry or a setting of which anything cannot
be used is not taken over, and why is told. What has no counterpart is named, key by key.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from proxy.config import (
    Backend,
    ConfigError,
    Grpc,
    HealthCheck,
    ListenerTls,
    Port,
    Protocols,
    Route,
    Server,
    Struct,
    Upstream,
)
from proxy.sources import structs, values
from proxy.sources.structs import Given
from proxy.sources.yaml_document import Document, Path

_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:h|m|s|ms|us|µs|ns))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)")
_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}

_SCHEME = Literal["http", "https"]

# The reference's keys, and what we call the same.
_SERVER = {
    "host": "host",
    "port": "port",
    "max_conn": "max_connections",
    "real_ip_header": "real_ip_header",
    "trusted_proxies": "trusted_proxies",
}
_TLS = {"cert_file": "certificate", "key_file": "key"}
_GRPC = {"enabled": "enabled", "host": "host", "port": "port"}
_BACKEND = {"id": "id", "name": "name", "weight": "weight", "active": "active", "max_conn": "max_connections"}
_CHECK = {"path": "path", "failures": "failures"}
CHECK_DURATIONS = {"interval": "interval_s", "timeout": "timeout_s"}
_PROTOCOLS = {"websocket": "websocket", "sse": "sse"}


class Found(NamedTuple):
    """What a file holds.

    `upstreams` are by name, `routes` by prefix; of those that are `partial`, not every backend is taken over.
    `settings` are what belongs into `relaygate.yaml`. `problems` say what is not taken over and why, `ignored` are the
    keys without a counterpart; both with file and line.
    """

    upstreams: dict[str, Upstream]
    routes: dict[str, Route]
    partial: set[str]
    settings: dict[str, Any]
    problems: list[str]
    ignored: list[str]


def read(name: str, document: Document, refuse: Callable[[str, str], None]) -> Found:
    """Raises ConfigError for a file that is not of this form at all.

    `refuse` is given where the host of a backend stands, and the backend's URL; it raises ConfigError for one that
    nothing may be relayed to.
    """
    return _Reader(name, document, refuse).read()


def seconds(text: str) -> float:
    """The seconds of a duration as Go spells it: `30s`, `1m30s`, `500ms`. Raises ValueError for anything else."""
    if not _DURATION.fullmatch(text):
        raise ValueError("a duration such as 30s or 1m30s")
    return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))


def backend_url(scheme: str, host: str, port: int | None) -> str:
    """The URL of a backend; `host` is one as `values.host_name` has it."""
    netloc = (f"[{host}]" if ":" in host else host) + ("" if port is None else f":{port}")
    return values.origin(f"{scheme}://{netloc}")


class _Reader:
    def __init__(self, name: str, document: Document, refuse: Callable[[str, str], None]) -> None:
        self._name = name
        self._document = document
        self._refuse = refuse
        self._found = Found({}, {}, set(), {}, [], [])
        self._used: set[Path] = set()

    def read(self) -> Found:
        whole = self._mapping(())
        if not whole.keys() & {"server", "ssl", "backends", "routing"}:
            raise ConfigError(self._name, "found none of server, ssl, backends and routing, which SpeedMimi's file has")
        self._settings()
        for name in self._mapping(("backends",)):
            with self._told(("backends", name)):
                self._upstream(name)
        for label in self._mapping(("routing",)):
            with self._told(("routing", label)):
                self._route(("routing", label))
        self._ignore_rest(self._document.value, ())
        return self._found

    def _settings(self) -> None:
        server = self._section("server", Server, _SERVER)
        with self._told(("server", "read_timeout")):
            timeout_s = self._seconds(("server", "read_timeout"), Server, "header_timeout_s")
            if timeout_s is not None:
                server |= {"header_timeout_s": timeout_s, "body_timeout_s": timeout_s}
        enabled = None
        with self._told(("ssl", "enabled")):
            enabled = self._value(("ssl", "enabled"), lambda given: structs.convert(bool, given.value, given))
        tls = self._section("ssl", ListenerTls, _TLS)
        sections = {"server": server, "tls": tls if enabled else {}, "grpc": self._section("grpc", Grpc, _GRPC)}
        self._found.settings.update({name: fields for name, fields in sections.items() if fields})

    def _section(self, section: str, struct: type[Struct], names: Mapping[str, str]) -> dict[str, Any]:
        """The usable settings of a section, by our names, as the file spells them."""
        self._mapping((section,))
        usable: dict[str, Any] = {}
        for key, ours in names.items():
            path = (section, key)
            with self._told(path):
                if self._field(path, struct, ours) is not None:
                    usable[ours] = self._at(path)
        return usable

    def _upstream(self, name: str) -> None:
        """Raises ConfigError."""
        path = ("backends", name)
        _as(values.group_id, name, self._given(path, name))
        items = self._at(path) or []
        if not isinstance(items, list):
            raise self._given(path, items).refuse("a list of backends")
        backends: list[Backend] = []
        for place in map(str, range(len(items))):
            with self._told((*path, place)):
                backends.append(self._backend(name, (*path, place), backends))
        if backends or not items:
            self._found.upstreams[name] = Upstream(backends=tuple(backends))
        if len(backends) < len(items):
            self._found.partial.add(name)

    def _backend(self, upstream: str, path: Path, others: list[Backend]) -> Backend:
        """Raises ConfigError, also for one that could not be told apart from the others of its upstream."""
        self._mapping(path)
        url = self._url(path)
        fields = self._fields(path, Backend, _BACKEND)
        fields.setdefault("id", structs.backend_id(upstream, url))
        backend = Backend(url=url, health_check=self._health_check((*path, "health_check")), **fields)
        for key, field in (("id", "id"), ("host", "url")):
            if any(getattr(backend, field) == getattr(other, field) for other in others):
                problem = f"{getattr(backend, field)} is there twice, expected backends of different {field}s"
                raise self._error((*path, key), problem)
        return backend

    def _url(self, path: Path) -> str:
        scheme = self._value((*path, "scheme"), lambda given: structs.convert(_SCHEME, given.value, given)) or "http"
        host = self._value((*path, "host"), _host)
        port = self._value((*path, "port"), lambda given: structs.convert(Port, given.value, given))
        if host is None:
            raise self._error((*path, "host"), "missing")
        url = backend_url(scheme, host, port)
        self._refuse(f"{self._where((*path, 'host'))}: {'.'.join((*path, 'host'))}", url)
        return url

    def _health_check(self, path: Path) -> HealthCheck | None:
        if self._at(path) is None:
            return None
        self._mapping(path)
        fields = self._fields(path, HealthCheck, _CHECK)
        for key, ours in CHECK_DURATIONS.items():
            duration_s = self._seconds((*path, key), HealthCheck, ours)
            if duration_s is not None:
                fields[ours] = duration_s
        return HealthCheck(**fields)

    def _route(self, path: Path) -> None:
        """Raises ConfigError."""
        self._mapping(path)
        prefix = self._value((*path, "path"), _prefix) or "/"
        upstream = self._field((*path, "upstream"), Route, "upstream")
        if upstream is None:
            raise self._error((*path, "upstream"), "missing")
        if upstream not in self._found.upstreams:
            raise self._error((*path, "upstream"), self._why_not(upstream))
        if prefix in self._found.routes:
            raise self._error((*path, "path"), f"{prefix} is there twice")
        self._mapping((*path, "protocols"))
        protocols = self._fields((*path, "protocols"), Protocols, _PROTOCOLS)
        self._found.routes[prefix] = Route(
            upstream=upstream,
            base=values.base(prefix),
            balancer=self._field((*path, "load_balancer"), Route, "balancer"),
            protocols=Protocols(**protocols) if protocols else None,
        )

    def _why_not(self, upstream: str) -> str:
        known = self._mapping(("backends",))
        if upstream in known:
            return f"the upstream {upstream} has no backend that can be used"
        return f"no upstream is called {upstream}, {structs.nearest(upstream, known) if known else 'there is none'}"

    def _fields(self, path: Path, struct: type[Struct], names: Mapping[str, str]) -> dict[str, Any]:
        """Those fields of a struct that a mapping gives. Raises ConfigError."""
        fields = {ours: self._field((*path, key), struct, ours) for key, ours in names.items()}
        return {name: value for name, value in fields.items() if value is not None}

    def _field(self, path: Path, struct: type[Struct], name: str) -> Any:
        """The value at a path as a field of a struct; None where there is none. Raises ConfigError."""
        type_ = _type(struct, name)
        return self._value(
            path, lambda given: structs.checked(struct, name, structs.convert(type_, given.value, given), given)
        )

    def _seconds(self, path: Path, struct: type[Struct], name: str) -> float | None:
        """The duration at a path as a field of a struct. Raises ConfigError."""
        type_ = _type(struct, name)
        duration_s: float | None = self._value(
            path, lambda given: structs.convert(type_, _as(seconds, str(given.value), given), given)
        )
        return duration_s

    def _value(self, path: Path, read_as: Callable[[Given], Any]) -> Any:
        """What is read of the value at a path, which is thereby used; None where there is none. Raises ConfigError.

        An empty text is none, as in Go.
        """
        self._used.add(path)
        value = self._at(path)
        return None if value in (None, "") else read_as(self._given(path, value))

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
        """Raises ConfigError."""
        value = self._at(path)
        if value is not None and not isinstance(value, dict):
            raise self._error(path, "expected a mapping of keys to values")
        return value or {}

    def _ignore_rest(self, value: Any, path: Path) -> None:
        """Notes each key whose value was not used; a list of plain values is one."""
        if path in self._used or value in (None, "", [], {}):
            return
        inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        below = [((*path, str(key)), one) for key, one in inside]
        if isinstance(value, dict) or any(isinstance(one, dict) or key in self._used for key, one in below):
            for key, one in below:
                self._ignore_rest(one, key)
        else:
            self._found.ignored.append(f"{self._where(path)}: {'.'.join(path)}")

    @contextmanager
    def _told(self, path: Path) -> Iterator[None]:
        """What goes wrong with an entry or a setting is a problem. That names it, so nothing of it is ignored."""
        try:
            yield
        except ConfigError as error:
            self._found.problems.append(str(error))
            self._used.add(path)

    def _given(self, path: Path, value: Any) -> Given:
        return Given(value, self._where(path), ".".join(path))

    def _error(self, path: Path, problem: str) -> ConfigError:
        return ConfigError(self._where(path), ".".join(path), problem)

    def _where(self, path: Path) -> str:
        while path and path not in self._document.lines:
            path = path[:-1]
        return f"{self._name}:{self._document.lines[path]}" if path else self._name


def _type(struct: type[Struct], name: str) -> Any:
    return next(field.type for field in structs.fields_of(struct) if field.name == name)


def _host(given: Given) -> str:
    return str(_as(values.host_name, structs.convert(str, given.value, given), given))


def _prefix(given: Given) -> str:
    return str(_as(values.prefix, structs.convert(str, given.value, given), given))


def _as(check: Callable[[str], Any], text: str, given: Given) -> Any:
    try:
        return check(text)
    except ValueError as error:
        raise given.refuse(str(error)) from None
