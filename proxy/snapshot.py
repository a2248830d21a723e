"""The compiled form of a configuration: what the hot path reads, made once and never changed.

A request keeps the snapshot it began with; a new configuration is a new snapshot, and one reference is swapped. Routes
that stay keep their compiled form, so that an edit of one among thousands does not stop the loop.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from proxy import dialects
from proxy.config import (
    Access,
    AccessSettings,
    Backend,
    Config,
    ConfigError,
    CredentialSource,
    Forwarded,
    Protocols,
    Route,
    Server,
    Upstream,
    UpstreamTls,
)
from proxy.dialects import Api
from proxy.key_pool.pool import KeyPool
from proxy.metering.gate import Gate
from proxy.rules.balancing import Member
from proxy.rules.client_address import ClientAddresses
from proxy.rules.credential_fields import Placement, placement
from proxy.rules.forwarding import claims_dropped
from proxy.rules.framing import NOT_COPIED
from proxy.rules.own_paths import Own, own_paths
from proxy.rules.routing import RouteTable
from proxy.statistics import UNMATCHED
from proxy.tallies import Tallies, Tally
from proxy.upstream.connect import Origin
from proxy.upstream.group import Group, Picker
from proxy.upstream.groups import Groups
from proxy.upstream.pool import Pool, Pools

CONNECTIONS_MAX = 10_000_000
"""Of a backend without a bound."""


class RouteCredentials(msgspec.Struct, frozen=True, gc=False):
    """Which credentials a route's requests go out with.

    `dropped` are the fields of a usual request that do not cross. `groups` are those of the key pool that may be used;
    none: all.
    """

    source: CredentialSource
    key_pool: KeyPool
    api: Api
    placement: Placement
    dropped: frozenset[bytes]
    groups: tuple[str, ...]


class Hop(msgspec.Struct, frozen=True, gc=False):
    """Where a request goes next: to the one server of its route's target, or to a backend of its upstream.

    `request_end` ends a request line and begins the head, Host included; where the client's Host is kept it has none.
    `backend` is a backend's id. `tally` counts the requests that went there.
    """

    pool: Pool
    authority: bytes
    request_end: bytes
    tally: Tally | None
    backend: str = ""


class Hops(dict[Member, Hop]):
    """The hops to the backends of an upstream on one route's terms, each made when it is first asked for."""

    def __init__(self, make: Callable[[Member], Hop]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, member: Member) -> Hop:
        hop = self[member] = self._make(member)
        return hop


class Balance(msgspec.Struct, frozen=True):
    """How a route's requests find a backend: with which balancer, by what a request is for.

    `key_pool` has the traces of requests.
    """

    group: Group
    key_pool: KeyPool
    hops: Hops
    plain: Picker
    websocket: Picker
    sse: Picker


class CompiledRoute(msgspec.Struct, frozen=True, gc=False):
    """A route, ready to use. `gate` is None where it is public.

    It has either a `hop` or a `balance`, which finds one for each request. `base` goes before the rest of a path,
    `whole` stands for an empty rest; both are bytes of a path. `claims` are the fields that do not cross from who is
    not trusted to tell whom a request comes from; None: what they say is for the target to judge.
    """

    prefix: str
    settings: Route
    hop: Hop | None
    balance: Balance | None
    base: bytes
    whole: bytes
    body_bytes_max: int | None
    body_timeout_s: float | None
    changes_headers: bool
    claims: frozenset[bytes] | None
    tally: Tally | None
    api: Api
    gate: Gate | None
    credentials: RouteCredentials | None


class Snapshot(msgspec.Struct, frozen=True):
    """Everything that the requests of one configuration need.

    `made_of` are the routes that were compiled. `own_paths` are those that the relay answers itself, each with what it
    tells there. `unmatched` counts requests that no route is found for; where nothing is counted, no tally is there.
    `clients` tells clients' addresses.
    """

    server: Server
    access: AccessSettings
    made_of: Mapping[str, Route]
    routes: RouteTable[CompiledRoute]
    own_paths: dict[bytes, Own]
    unmatched: Tally | None
    clients: ClientAddresses
    upstreams: Mapping[str, Upstream] = {}


class Shared(NamedTuple):
    """What the snapshots of a worker share: what a request of one may leave for one of another."""

    pools: Pools
    groups: Groups
    tallies: Tallies | None
    key_pool: KeyPool
    gate: Gate


def compile_snapshot(config: Config, shared: Shared, before: Snapshot | None = None) -> Snapshot:
    """Returns the compiled form of a configuration, with the pools of its origins and the tallies of its routes.

    Without `tallies` nothing is counted. What is the same in the snapshot `before`, which shared the same, is taken
    from there: with 10,000 routes of which one differs that is 2 ms instead of 110. Raises OSError for unusable TLS
    files, ConfigError for an upstream that there is not; nothing has changed then.
    """
    pools, tallies = shared.pools, shared.tallies
    if before is None or before.server != config.server or before.access != config.access:
        clients = ClientAddresses(config.server.trusted_proxies, config.server.real_ip_header)
        before = Snapshot(config.server, config.access, {}, RouteTable({}), {}, None, clients)
    for prefix, route in config.routes.items():
        if route.upstream is not None:
            check_upstream(prefix, route, route.upstream, config, pools)
    shared.groups.use(config.upstreams)
    there = before.made_of
    new = {
        prefix.encode(): compile_route(prefix, route, config, shared)
        for prefix, route in config.routes.items()
        if ((known := there.get(prefix)) is not route and known != route)
        or (route.upstream is not None and before.upstreams.get(route.upstream) != config.upstreams[route.upstream])
    }
    gone = [prefix.encode() for prefix in there.keys() - config.routes.keys()]
    routes = before.routes.edited(gone, new)
    pools.keep_only({hop.pool for route in routes.routes() for hop in hops_of(route)})
    own = {path.encode(): own for path, own in own_paths(config.server).items()}
    unmatched = None if tallies is None else tallies.tally(UNMATCHED, "")
    return Snapshot(
        config.server, config.access, config.routes, routes, own, unmatched, before.clients, config.upstreams
    )


def check_upstream(prefix: str, route: Route, name: str, config: Config, pools: Pools) -> None:
    """Makes the pools of a route's backends. Raises OSError for unusable TLS files, ConfigError for no upstream."""
    upstream = config.upstreams.get(name)
    if upstream is None:
        raise ConfigError(f"routes.{prefix}.upstream", f"no upstream is called {name}")
    for backend in upstream.backends:
        pools.get(origin_of_backend(backend, upstream, route, config.server))


def hops_of(route: CompiledRoute) -> Iterable[Hop]:
    """Returns all hops that a route's requests may take."""
    if route.balance is not None:
        return [route.balance.hops[member] for member in route.balance.group.members]
    return () if route.hop is None else (route.hop,)


def needs_token(route: Route, access: AccessSettings) -> bool:
    """Tells whether a route is for those alone who show an access token."""
    return (route.access or (Access.PUBLIC if access.api_key is None else Access.TOKEN)) is Access.TOKEN


def compile_route(prefix: str, route: Route, config: Config, shared: Shared) -> CompiledRoute:
    """Returns one compiled route, whose requests `shared.tallies` count. Its fields have been validated already."""
    server, tallies = config.server, shared.tallies
    target = urlsplit(route.target)
    api = dialects.of(route.dialect or dialects.guess(target.hostname or ""))
    hop = balance = None
    base, whole = target.path.rstrip("/"), target.path or "/"
    if route.upstream is not None:
        balance = compile_balance(prefix, route, config, shared)
        base, whole = route.base, route.base or "/"
        tally = None if tallies is None else tallies.tally(prefix, route.upstream)
    else:
        authority = authority_of(target.scheme, target.hostname or "", target.port)
        tally = None if tallies is None else tallies.tally(prefix, authority.decode())
        hop = Hop(shared.pools.get(origin_of(route, server)), authority, request_end(route, authority), tally)
    return CompiledRoute(
        prefix=prefix,
        settings=route,
        hop=hop,
        balance=balance,
        base=base.encode(),
        whole=whole.encode(),
        body_bytes_max=server.body_bytes_max if route.body_bytes_max is None else route.body_bytes_max,
        body_timeout_s=server.body_timeout_s,
        changes_headers=route.preserve_host or route.forwarded is not Forwarded.OFF or route.via is not None,
        claims=None if balance is None else claims_dropped(route.forwarded, server.real_ip_header),
        tally=tally,
        api=api,
        gate=shared.gate if needs_token(route, config.access) else None,
        credentials=compile_credentials(route, api, shared.key_pool),
    )


def compile_balance(prefix: str, route: Route, config: Config, shared: Shared) -> Balance:
    """Returns how a route finds a backend of its upstream, whose group has been told of it already."""
    name = route.upstream or ""
    group, tallies = shared.groups.get(name), shared.tallies

    def make(member: Member) -> Hop:
        backend = group.backend(member)
        target = urlsplit(backend.url)
        authority = authority_of(target.scheme, target.hostname or "", target.port)
        return Hop(
            shared.pools.get(origin_of_backend(backend, group.settings, route, config.server)),
            authority,
            request_end(route, authority),
            None if tallies is None else tallies.tally(prefix, authority.decode()),
            backend.id,
        )

    upstream = config.upstreams[name]
    protocols = route.protocols or Protocols()
    plain = route.balancer or upstream.balancer
    websocket = protocols.websocket or upstream.protocols.websocket or plain
    sse = protocols.sse or upstream.protocols.sse or plain
    return Balance(group, shared.key_pool, Hops(make), *map(group.picker, (plain, websocket, sse)))


def request_end(route: Route, authority: bytes) -> bytes:
    """Returns what follows the target of a request line."""
    return b" HTTP/1.1\r\n" + (b"" if route.preserve_host else b"host: " + authority + b"\r\n")


def compile_credentials(route: Route, api: Api, key_pool: KeyPool) -> RouteCredentials | None:
    """Returns how a route's requests get a credential; None where the client's own passes."""
    if route.credential is CredentialSource.CLIENT:
        return None
    field = route.credential_field or api.credential_field.decode()
    place = placement(field)
    dropped = NOT_COPIED | place.dropped_fields
    return RouteCredentials(route.credential, key_pool, api, place, dropped, route.pool_groups)


def origin_of(route: Route, server: Server) -> Origin:
    """Returns where the connections of a route with a target lead, and on which terms."""
    return _origin(route.target, route.tls, route.max_connections, route, server)


def origin_of_backend(backend: Backend, upstream: Upstream, route: Route, server: Server) -> Origin:
    """Returns where the connections to a backend lead, on the terms of a route to its upstream.

    Its group bounds the requests that it has, so the pool need not bound connections more closely than that.
    """
    most = backend.max_connections if backend.max_connections > 0 else CONNECTIONS_MAX
    return _origin(backend.url, upstream.tls, most, route, server)


def _origin(url: str, tls: UpstreamTls, max_connections: int, route: Route, server: Server) -> Origin:
    target = urlsplit(url)
    secure = target.scheme == "https"
    return Origin(
        host=ascii_host(target.hostname or ""),
        port=target.port or (443 if secure else 80),
        tls=tls if secure else None,
        connect_timeout_s=route.connect_timeout_s,
        response_head_bytes_max=route.response_head_bytes_max,
        max_connections=max_connections,
        pool_wait_s=route.pool_wait_s,
        idle_connection_s=route.idle_connection_s,
        allow_private_targets=server.allow_private_targets,
    )


def ascii_host(host: str) -> str:
    """Returns a host as DNS and Host fields spell it: international names in their ASCII form (RFC 5890)."""
    return host if host.isascii() else host.encode("idna").decode()


def authority_of(scheme: str, host: str, port: int | None) -> bytes:
    """Returns the Host field of an origin; the scheme's own port is left out (RFC 9110 section 7.2)."""
    name = ascii_host(host)
    name = f"[{name}]" if ":" in name else name
    return (name if port in (None, 443 if scheme == "https" else 80) else f"{name}:{port}").encode()
