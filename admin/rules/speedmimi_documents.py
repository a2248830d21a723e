"""Reference 004's documents: what its API says of backends and routing, as structs of ours and back. Pure.

What the reference has no name for has that of our YAML file. Of a backend or a route that is there already, such fields
stay as they are where a document does not give them, so that who knows only the reference's changes nothing else; the
reference's own become what they are by default, as in its file. A name in `routing` is a label: a route is known by its
path, which is also its base, since the reference relays a path as it came.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from admin.rules import bodies, route_specs
from admin.rules.bodies import BodyError
from admin.rules.speedmimi import CHECK_DURATIONS, backend_url, seconds
from proxy.config import (
    Backend,
    Balancer,
    ConfigError,
    Count,
    HealthCheck,
    Port,
    Protocols,
    Route,
    Status,
    Struct,
    Upstream,
    Weight,
)
from proxy.sources import structs, values
from proxy.sources.structs import Given

Document = dict[str, Any]
Upstreams = dict[str, Upstream]
Routes = dict[str, Route]


class CheckDocument(msgspec.Struct, frozen=True, kw_only=True):
    """How a backend is asked whether it is well. Durations are as Go spells them: `30s`, `1m30s`, `500ms`."""

    path: str = "/health"
    interval: str = "30s"
    timeout: str = "5s"
    failures: Count = 3
    successes: Count = 1
    statuses: tuple[Status, ...] = ()
    body: str | None = None


class BackendDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A backend. An empty `id` is `{upstream}-{host}-{port}`; without a port, it is the scheme's own.

    `active: true` ends a draining too. A `health_check` of null: the upstream's, if it has one.
    """

    id: str = ""
    name: str = ""
    host: str
    port: Port | None = None
    scheme: Literal["http", "https"] = "http"
    weight: Weight = 100
    active: bool = True
    max_conn: Annotated[int, msgspec.Meta(ge=-1_000_000, le=10_000_000)] = 1000
    draining: bool = False
    priority: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    health_check: CheckDocument | None = None


# What a route that leads to an upstream may not say, or says under another name here.
_NOT_IN_ROUTING = frozenset({"target", "upstream", "balancer", "protocols", "max_connections", "tls"})
RoutingDocument = msgspec.defstruct(
    "RoutingDocument",
    [
        ("upstream", str),
        ("path", str, "/"),
        ("load_balancer", Balancer | None, None),
        ("protocols", Protocols | None, None),
        *(
            (field.name, field.type, field.default)
            for field in msgspec.structs.fields(Route)
            if field.name not in _NOT_IN_ROUTING
        ),
    ],
    frozen=True,
    kw_only=True,
)
"""A route to an upstream; a `load_balancer` or `protocols` of null: the upstream's."""
OptionsDocument = msgspec.defstruct(
    "OptionsDocument",
    [(field.name, field.type, field.default) for field in msgspec.structs.fields(Upstream) if field.name != "backends"],
    frozen=True,
    kw_only=True,
)
"""What an upstream has beside its backends, as in our YAML file."""

READ_ONLY = "health"
"""What lists of backends tell of each beside its settings; whoever sends it back changes nothing."""
_PLACE = ("host", "port", "scheme")
_BACKEND_NAMES = {"max_conn": "max_connections"}
_PORTS = {"http": 80, "https": 443}


def _defaults(struct: type[Struct], *names: str) -> dict[str, Any]:
    return {field.name: field.default for field in msgspec.structs.fields(struct) if field.name in names}


# What the reference has a name for, as it is by default.
_BACKEND_DEFAULTS = _defaults(Backend, "name", "weight", "active", "max_connections")
_CHECK_DEFAULTS = _defaults(HealthCheck, "path", "interval_s", "timeout_s", "failures")


@contextmanager
def _told() -> Iterator[None]:
    """Whatever is wrong with a document is a ConfigError."""
    try:
        yield
    except BodyError as error:
        raise ConfigError(str(error)) from None


def duration(seconds_: float) -> str:
    """Seconds as Go reads them: `30s`, `0.5s`."""
    return f"{Decimal(repr(seconds_)):f}".removesuffix(".0") + "s"


def document(upstreams: Mapping[str, Upstream], routes: Mapping[str, Route]) -> Document:
    """`backends`, `routing` (of the routes that lead to upstreams), and the further settings of `upstreams`."""
    return {
        "backends": {name: [of_backend(one) for one in upstreams[name].backends] for name in sorted(upstreams)},
        "routing": {
            prefix: _of_route(prefix, routes[prefix])
            for prefix in sorted(routes)
            if routes[prefix].upstream is not None
        },
        "upstreams": {
            name: options for name in sorted(upstreams) if (options := _plain(replace(upstreams[name], backends=())))
        },
    }


def of_backend(backend: Backend) -> Document:
    """All that a document can say of a backend."""
    check = backend.health_check
    return {
        "id": backend.id,
        "name": backend.name,
        **_place(backend.url),
        "weight": backend.weight,
        "active": backend.active,
        "max_conn": backend.max_connections,
        "draining": backend.draining,
        "priority": backend.priority,
        "health_check": None if check is None else _of_check(check),
    }


def authority(backend: Backend) -> str:
    """Host and port as statistics name them."""
    return backend.url.partition("://")[2]


@_told()
def new_backend(upstream: str, given: Any, where: str) -> Backend:
    """The backend that a document adds to an upstream. Raises ConfigError, which names what is wrong below `where`."""
    _name(upstream, where)
    return _backend(upstream, given, where, {})


@_told()
def changed_backend(before: Backend, given: Any, where: str) -> Backend:
    """The backend with those fields changed that a document gives. Raises ConfigError."""
    raw, fields = _given(given, where)
    if fields.keys() & set(_PLACE):
        before = replace(before, url=_url(_place(before.url) | fields, where))
    return _with(before, raw, fields, where, before.health_check or HealthCheck())


@_told()
def id_in(given: Any, where: str) -> str:
    """The id that a document names a backend by. Raises ConfigError where it is not there, or is none."""
    found = _given(given, where)[1].get("id")
    if not found:
        raise ConfigError(f"{where}.id", "missing")
    return str(_checked(Backend, "id", found, f"{where}.id"))


@_told()
def applied(
    given: Mapping[str, Any], upstreams: Mapping[str, Upstream], routes: Mapping[str, Route]
) -> tuple[Upstreams, Routes]:
    """All upstreams and routes after a document.

    `backends` and `routing` are whole where they are given: what they do not name is gone, but for routes to targets.
    Raises ConfigError, which names what is wrong as the document spells it.
    """
    after = dict(upstreams)
    if "backends" in given:
        after = {
            _name(name, "backends"): replace(
                upstreams.get(name, Upstream()), backends=_backends(name, items, upstreams.get(name, Upstream()))
            )
            for name, items in bodies.mapping(given["backends"], "backends").items()
        }
    for name, options in bodies.mapping(given.get("upstreams", {}), "upstreams").items():
        where = f"upstreams.{name}"
        if name not in after:
            raise ConfigError(where, _no_upstream(name, after))
        after[name] = replace(after[name], **bodies.fields_in(OptionsDocument, options, where))
    labels: dict[str, str] = {}
    routed = dict(routes)
    if "routing" in given:
        routed = {prefix: route for prefix, route in routes.items() if route.upstream is None}
        for label, entry in bodies.mapping(given["routing"], "routing").items():
            prefix, route = _route(entry, f"routing.{label}", routes)
            if prefix in routed:
                problem = "is there twice" if prefix in labels else "leads to a target, expected another path"
                raise ConfigError(f"routing.{label}.path", f"{prefix} {problem}")
            labels[prefix], routed[prefix] = label, route
    for prefix, route in routed.items():
        if route.upstream is not None and route.upstream not in after:
            raise ConfigError(f"routing.{labels.get(prefix, prefix)}.upstream", _no_upstream(route.upstream, after))
    return after, routed


def _backends(upstream: str, items: Any, before: Upstream) -> tuple[Backend, ...]:
    where = f"backends.{upstream}"
    if not isinstance(items, list | tuple):
        raise ConfigError(where, "expected a list of backends")
    known = {one.id: one for one in before.backends}
    return tuple(_backend(upstream, item, f"{where}[{place}]", known) for place, item in enumerate(items))


def _backend(upstream: str, given: Any, where: str, known: Mapping[str, Backend]) -> Backend:
    """A backend that a document says whole; of those that are `known`, by id, something may stay."""
    raw, fields = _given(given, where)
    url = _url(fields, where)
    id_ = fields.get("id") or structs.backend_id(upstream, url)
    before = known.get(id_)
    check = HealthCheck()
    if before is None:
        start = Backend(url=url, id=id_)
    else:
        start = replace(before, url=url, health_check=None, **_BACKEND_DEFAULTS)
        check = replace(before.health_check or check, **_CHECK_DEFAULTS)
    return _with(start, raw, {**fields, "id": id_}, where, check)


def _with(start: Backend, raw: Document, fields: Document, where: str, check: HealthCheck) -> Backend:
    """A backend with fields of a document; what that says of the health check changes `check`."""
    changes: Document = {"draining": False} if fields.get("active") else {}
    for name, value in fields.items():
        if name == "health_check":
            changes[name] = None if value is None else _check(raw[name], f"{where}.{name}", check)
        elif name not in _PLACE:
            ours = _BACKEND_NAMES.get(name, name)
            changes[ours] = _checked(Backend, ours, value, f"{where}.{name}")
    return replace(start, **changes)


def _given(given: Any, where: str) -> tuple[Document, Document]:
    """What a document gives of a backend: as it stands there, and read."""
    raw = {name: value for name, value in bodies.mapping(given, where).items() if name != READ_ONLY}
    return raw, bodies.fields_in(BackendDocument, raw, where)


def _check(given: Any, where: str, start: HealthCheck) -> HealthCheck:
    changes: Document = {}
    for name, value in bodies.fields_in(CheckDocument, given, where).items():
        ours = CHECK_DURATIONS.get(name, name)
        here = f"{where}.{name}"
        if name in CHECK_DURATIONS:
            changes[ours] = _seconds(ours, value, here)
        else:
            changes[ours] = _checked(HealthCheck, ours, value, here)
    return replace(start, **changes)


def _seconds(name: str, text: str, where: str) -> float:
    (type_,) = (field.type for field in msgspec.structs.fields(HealthCheck) if field.name == name)
    found = _as(seconds, text, where)
    read: float = structs.convert(type_, found, Given(text, "", where))
    return read


def _url(fields: Document, where: str) -> str:
    if "host" not in fields:
        raise ConfigError(f"{where}.host", "missing")
    host = _as(values.host_name, fields["host"], f"{where}.host")
    return backend_url(fields.get("scheme", "http"), host, fields.get("port"))


def _place(url: str) -> Document:
    parts = urlsplit(url)
    return {"host": parts.hostname or "", "port": parts.port or _PORTS[parts.scheme], "scheme": parts.scheme}


def _of_check(check: HealthCheck) -> Document:
    return {
        "path": check.path,
        "interval": duration(check.interval_s),
        "timeout": duration(check.timeout_s),
        "failures": check.failures,
        "successes": check.successes,
        "statuses": list(check.statuses),
        "body": check.body,
    }


def _route(given: Any, where: str, routes: Mapping[str, Route]) -> tuple[str, Route]:
    fields = bodies.fields_in(RoutingDocument, given, where)
    prefix = _as(values.prefix, fields.pop("path", "/"), f"{where}.path")
    if "upstream" not in fields:
        raise ConfigError(f"{where}.upstream", "missing")
    fields = {"balancer": fields.pop("load_balancer", None), "protocols": None} | fields
    changes = {name: _checked(Route, name, value, f"{where}.{name}") for name, value in fields.items()}
    return prefix, replace(routes.get(prefix, Route(base=_base(prefix))), **changes)


def _of_route(prefix: str, route: Route) -> Document:
    whole = _plain(route)
    if route.base != _base(prefix):
        whole["base"] = route.base
    else:
        whole.pop("base", None)
    protocols = whole.pop("protocols", None)
    return {
        "path": prefix,
        "upstream": whole.pop("upstream"),
        "load_balancer": whole.pop("balancer", None),
        "protocols": protocols,
        **whole,
    }


def _base(prefix: str) -> str:
    return prefix.rstrip("/")


def _plain(struct: Struct) -> Document:
    plain: Document = msgspec.to_builtins(route_specs.plain(struct))
    return plain


def _name(upstream: str, where: str) -> str:
    return str(_as(values.group_id, upstream, f"{where}.{upstream}"))


def _no_upstream(name: str, known: Mapping[str, Upstream]) -> str:
    return f"no upstream is called {name}, {structs.nearest(name, known) if known else 'there is none'}"


def _as(read: Callable[[str], Any], text: str, where: str) -> Any:
    try:
        return read(text)
    except ValueError as error:
        raise Given(text, "", where).refuse(str(error)) from None


def _checked(struct: type[Struct], name: str, value: Any, where: str) -> Any:
    return structs.checked(struct, name, value, Given(value, "", where))
