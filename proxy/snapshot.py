"""The compiled form of a configuration: what the hot path reads, made once and never changed.

A request keeps the snapshot it began with; a new configuration is a new snapshot, and one reference is swapped. Routes
that stay keep their compiled form, so that an edit of one among thousands does not stop the loop.
"""

from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from proxy import dialects
from proxy.config import Access, AccessSettings, Config, CredentialSource, Forwarded, Route, Server
from proxy.dialects import Api
from proxy.key_pool.pool import KeyPool
from proxy.metering.gate import Gate
from proxy.rules.credential_fields import Placement, placement
from proxy.rules.framing import NOT_COPIED
from proxy.rules.own_paths import Own, own_paths
from proxy.rules.routing import RouteTable
from proxy.statistics import UNMATCHED
from proxy.tallies import Tallies, Tally
from proxy.upstream.connect import Origin
from proxy.upstream.pool import Pool, Pools


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


class CompiledRoute(msgspec.Struct, frozen=True, gc=False):
    """A route, ready to use. `gate` is None where it is public.

    `base` goes before the rest of a path, `whole` stands for an empty rest; both are bytes of a path.
    `request_end` ends a request line and begins the head, Host included; where the client's Host is kept it has none.
    """

    prefix: str
    settings: Route
    pool: Pool
    base: bytes
    whole: bytes
    authority: bytes
    request_end: bytes
    body_bytes_max: int | None
    body_timeout_s: float | None
    changes_headers: bool
    tally: Tally | None
    api: Api
    gate: Gate | None
    credentials: RouteCredentials | None


class Snapshot(msgspec.Struct, frozen=True):
    """Everything that the requests of one configuration need.

    `made_of` are the routes that were compiled. `own_paths` are those that the relay answers itself, each with what it
    tells there. `unmatched` counts requests that no route is found for; where nothing is counted, no tally is there.
    """

    server: Server
    access: AccessSettings
    made_of: Mapping[str, Route]
    routes: RouteTable[CompiledRoute]
    own_paths: dict[bytes, Own]
    unmatched: Tally | None


def compile_snapshot(
    config: Config,
    pools: Pools,
    tallies: Tallies | None,
    key_pool: KeyPool,
    gate: Gate,
    before: Snapshot | None = None,
) -> Snapshot:
    """Returns the compiled form of a configuration, with the pools of its origins and the tallies of its routes.

    Without `tallies` nothing is counted. What is the same in the snapshot `before`, which had the same pools and
    tallies, is taken from there: with 10,000 routes of which one differs that is 2 ms instead of 110. Raises OSError
    for unusable TLS files.
    """
    if before is None or before.server != config.server or before.access != config.access:
        before = Snapshot(config.server, config.access, {}, RouteTable({}), {}, None)
    there = before.made_of
    new = {
        prefix.encode(): compile_route(
            prefix, route, config.server, pools, tallies, key_pool, gate if needs_token(route, config.access) else None
        )
        for prefix, route in config.routes.items()
        if (known := there.get(prefix)) is not route and known != route
    }
    gone = [prefix.encode() for prefix in there.keys() - config.routes.keys()]
    routes = before.routes.edited(gone, new)
    pools.keep_only({route.pool for route in routes.routes()})
    own = {path.encode(): own for path, own in own_paths(config.server).items()}
    unmatched = None if tallies is None else tallies.tally(UNMATCHED, "")
    return Snapshot(config.server, config.access, config.routes, routes, own, unmatched)


def needs_token(route: Route, access: AccessSettings) -> bool:
    """Tells whether a route is for those alone who show an access token."""
    return (route.access or (Access.PUBLIC if access.api_key is None else Access.TOKEN)) is Access.TOKEN


def compile_route(
    prefix: str,
    route: Route,
    server: Server,
    pools: Pools,
    tallies: Tallies | None,
    key_pool: KeyPool,
    gate: Gate | None,
) -> CompiledRoute:
    """Returns one compiled route, whose requests `tallies` count. `route.target` has been validated already."""
    target = urlsplit(route.target)
    authority = authority_of(target.scheme, target.hostname or "", target.port)
    api = dialects.of(route.dialect or dialects.guess(target.hostname or ""))
    host_line = b"" if route.preserve_host else b"host: " + authority + b"\r\n"
    return CompiledRoute(
        prefix=prefix,
        settings=route,
        pool=pools.get(origin_of(route, server)),
        base=target.path.rstrip("/").encode(),
        whole=target.path.encode() or b"/",
        authority=authority,
        request_end=b" HTTP/1.1\r\n" + host_line,
        body_bytes_max=server.body_bytes_max if route.body_bytes_max is None else route.body_bytes_max,
        body_timeout_s=server.body_timeout_s,
        changes_headers=route.preserve_host or route.forwarded is not Forwarded.OFF or route.via is not None,
        tally=None if tallies is None else tallies.tally(prefix, authority.decode()),
        api=api,
        gate=gate,
        credentials=compile_credentials(route, api, key_pool),
    )


def compile_credentials(route: Route, api: Api, key_pool: KeyPool) -> RouteCredentials | None:
    """Returns how a route's requests get a credential; None where the client's own passes."""
    if route.credential is CredentialSource.CLIENT:
        return None
    field = route.credential_field or api.credential_field.decode()
    place = placement(field)
    dropped = NOT_COPIED | place.dropped_fields
    return RouteCredentials(route.credential, key_pool, api, place, dropped, route.pool_groups)


def origin_of(route: Route, server: Server) -> Origin:
    """Returns where the connections of a route lead, and on which terms."""
    target = urlsplit(route.target)
    secure = target.scheme == "https"
    return Origin(
        host=ascii_host(target.hostname or ""),
        port=target.port or (443 if secure else 80),
        tls=route.tls if secure else None,
        connect_timeout_s=route.connect_timeout_s,
        response_head_bytes_max=route.response_head_bytes_max,
        max_connections=route.max_connections,
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
