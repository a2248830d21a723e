"""Configurations in the form that requests read."""

import asyncio
from typing import Any

import pytest

from proxy.config import Access, AccessSettings, Config, Forwarded, Route, Server, UpstreamTls
from proxy.key_pool.pool import KeyPool
from proxy.metering.gate import Gate
from proxy.rules.own_paths import Own
from proxy.snapshot import CompiledRoute, Shared, Snapshot, ascii_host, authority_of, compile_snapshot, origin_of
from proxy.tallies import Tallies
from proxy.upstream.groups import Groups
from proxy.upstream.pool import Pools
from tests.proxy.asgi import pool_of
from tests.proxy.counting import in_memory

KEY_POOL = KeyPool()
GATE = Gate()


def shared(pools: Pools, tallies: Tallies | None = None) -> Shared:
    return Shared(pools, Groups(asyncio.get_running_loop()), tallies, KEY_POOL, GATE)


def compiled(config: Config, tallies: Tallies | None = None) -> Snapshot:
    async def main() -> Snapshot:
        pools = Pools(asyncio.get_running_loop())
        return compile_snapshot(config, shared(pools, tallies))

    return asyncio.run(main())


def route_of(target: str, server: Server | None = None, /, **settings: Any) -> CompiledRoute:
    config = Config(server=server or Server(), routes={"/up": Route(target=target, **settings)})
    found = compiled(config).routes.match(b"/up")
    assert found is not None
    return found[0]


@pytest.mark.parametrize(
    ("target", "base", "whole"),
    [
        ("http://u", b"", b"/"),
        ("http://u/", b"", b"/"),
        ("http://u/v1", b"/v1", b"/v1"),
        ("http://u/v1/", b"/v1", b"/v1/"),
        ("http://u/a%2Fb", b"/a%2Fb", b"/a%2Fb"),
    ],
)
def test_a_target_is_a_beginning_of_paths(target: str, base: bytes, whole: bytes) -> None:
    route = route_of(target)
    assert (route.base, route.whole) == (base, whole)


@pytest.mark.parametrize(
    ("scheme", "host", "port", "authority"),
    [
        ("http", "up.example", None, b"up.example"),
        ("http", "up.example", 80, b"up.example"),
        ("http", "up.example", 443, b"up.example:443"),
        ("https", "up.example", 443, b"up.example"),
        ("https", "up.example", 80, b"up.example:80"),
        ("http", "::1", None, b"[::1]"),
        ("http", "::1", 8000, b"[::1]:8000"),
        ("http", "bücher.example", None, b"xn--bcher-kva.example"),
    ],
)
def test_the_authority_is_what_a_host_field_says(scheme: str, host: str, port: int | None, authority: bytes) -> None:
    """C14."""
    assert authority_of(scheme, host, port) == authority


def test_names_are_spelled_as_dns_spells_them() -> None:
    assert ascii_host("up.example") == "up.example"
    assert ascii_host("bücher.example") == "xn--bcher-kva.example"


def test_the_end_of_the_request_line_has_the_host_unless_the_clients_is_kept() -> None:
    for kept, end in ((False, b" HTTP/1.1\r\nhost: u:444\r\n"), (True, b" HTTP/1.1\r\n")):
        hop = route_of("https://u:444/x", preserve_host=kept).hop
        assert hop is not None
        assert hop.request_end == end


def test_clients_are_told_apart_as_the_server_says_and_remembered_as_long_as_that_stays() -> None:
    """Whatever routes do."""
    said = [(b"x-real-ip", b"203.0.113.5")]
    behind = Server(trusted_proxies=("10.0.0.0/8",), real_ip_header="x-real-ip")

    async def main() -> None:
        terms = shared(Pools(asyncio.get_running_loop()))
        first = compile_snapshot(Config(routes={}), terms)
        second = compile_snapshot(Config(server=behind, routes={}), terms, first)
        third = compile_snapshot(Config(server=behind, routes={"/a": Route(target="http://a")}), terms, second)
        assert [each.clients.of("10.0.0.1", said) for each in (first, second)] == ["10.0.0.1", "203.0.113.5"]
        assert third.clients is second.clients

    asyncio.run(main())


def test_headers_change_only_where_the_route_says_so() -> None:
    assert not route_of("http://u").changes_headers
    for settings in ({"preserve_host": True}, {"forwarded": Forwarded.APPEND}, {"via": "gw"}):
        assert route_of("http://u", **settings).changes_headers


def test_a_routes_own_limit_of_bodies_goes_before_the_servers() -> None:
    server = Server(body_bytes_max=9, body_timeout_s=3)
    assert route_of("http://u", server).body_bytes_max == 9
    assert route_of("http://u", server, body_bytes_max=0).body_bytes_max == 0
    assert route_of("http://u", server).body_timeout_s == 3
    assert route_of("http://u").body_bytes_max is None


def test_an_origin_is_where_and_on_which_terms() -> None:
    tls = UpstreamTls(verify=False)
    origin = origin_of(Route(target="https://[::1]/x", tls=tls, max_connections=3), Server())
    assert (origin.host, origin.port, origin.tls, origin.max_connections) == ("::1", 443, tls, 3)
    origin = origin_of(Route(target="http://u:8000", tls=tls), Server())
    assert (origin.host, origin.port, origin.tls) == ("u", 8000, None)
    assert origin_of(Route(target="http://u"), Server()).port == 80


def test_which_targets_are_allowed_is_one_of_the_terms() -> None:
    allowed, refused = (
        origin_of(Route(target="http://u"), Server(allow_private_targets=value)) for value in (True, False)
    )
    assert (allowed.allow_private_targets, refused.allow_private_targets) == (True, False)
    assert allowed != refused, "so a reload that changes it leaves no connection that was made on the other terms"


def test_routes_with_equal_origins_share_a_pool() -> None:
    routes = {
        "/a": Route(target="http://u/a"),
        "/b": Route(target="http://u:80/b", preserve_host=True),
        "/c": Route(target="http://u/c", max_connections=1),
    }
    snapshot = compiled(Config(routes=routes))
    a, b, c = (snapshot.routes.match(path) for path in (b"/a", b"/b", b"/c"))
    assert a is not None
    assert b is not None
    assert c is not None
    assert pool_of(a[0]) is pool_of(b[0])
    assert pool_of(a[0]) is not pool_of(c[0])
    assert (a[0].prefix, b[0].prefix) == ("/a", "/b")


@pytest.mark.parametrize(
    ("prefix", "paths"),
    [
        ("", {b"/healthz", b"/readyz"}),
        ("/", {b"/healthz", b"/readyz"}),
        ("/-/relay", {b"/-/relay/healthz", b"/-/relay/readyz"}),
        (None, set()),
    ],
)
def test_health_is_where_it_hides_no_route(prefix: str | None, paths: set[bytes]) -> None:
    assert set(compiled(Config(server=Server(health_prefix=prefix))).own_paths) == paths


def test_statistics_are_where_they_are_wanted() -> None:
    own = compiled(Config(server=Server(health_prefix=None, stats_path="/-/stats"))).own_paths
    assert own == {b"/-/stats": Own.STATISTICS}


def test_a_route_is_counted_under_its_prefix_and_authority_by_whichever_snapshot() -> None:
    tallies = in_memory()
    config = Config(routes={"/up": Route(target="https://Up.example:8443/v1"), "/": Route(target="http://[::1]")})
    first, second = compiled(config, tallies), compiled(config, tallies)
    found, root = first.routes.match(b"/up"), first.routes.match(b"/")
    again = second.routes.match(b"/up")
    assert found is not None
    assert root is not None
    assert again is not None
    tally, of_root, unmatched = found[0].tally, root[0].tally, first.unmatched
    assert tally is not None
    assert of_root is not None
    assert unmatched is not None
    assert (tally.prefix, tally.authority) == ("/up", "up.example:8443")
    assert (of_root.prefix, of_root.authority) == ("/", "[::1]")
    assert again[0].tally is not None
    assert again[0].tally.journal is tally.journal is tallies.journal
    assert (unmatched.prefix, unmatched.authority) == ("", "")


def test_without_tallies_nothing_is_counted() -> None:
    snapshot = compiled(Config(routes={"/up": Route(target="http://u")}))
    found = snapshot.routes.match(b"/up")
    assert found is not None
    assert found[0].tally is snapshot.unmatched is None


def test_unusable_tls_files_are_told() -> None:
    with pytest.raises(OSError, match="No such file"):
        route_of("https://u", tls=UpstreamTls(ca="/nowhere/ca.pem"))


def test_routes_that_stay_keep_their_compiled_form_and_those_that_leave_give_up_their_pools() -> None:
    routes = {"/a": Route(target="http://a/x"), "/b": Route(target="http://b"), "/": Route(target="http://root")}
    edited = {"/a": Route(target="http://a/x"), "/c/d": Route(target="http://b"), "/": Route(target="http://other")}

    async def main() -> None:
        pools = Pools(asyncio.get_running_loop())
        terms = shared(pools)
        first = compile_snapshot(Config(routes=routes), terms)
        second = compile_snapshot(Config(routes=edited), terms, first)
        fresh = compile_snapshot(Config(routes=edited), terms)
        assert found(second, b"/a") is found(first, b"/a")
        assert found(fresh, b"/a") is not found(first, b"/a")
        assert found(second, b"/b/c") == found(fresh, b"/b/c") == found(second, b"/")
        assert found(second, b"/c/d/e") == found(fresh, b"/c/d/e")
        assert pool_of(found(second, b"/c/d")) is pool_of(found(first, b"/b")), "a route leads there still"
        assert pool_of(found(second, b"/")) is not pool_of(found(first, b"/"))
        assert pools.get(pool_of(found(first, b"/")).origin) is not pool_of(found(first, b"/")), "it was retired"
        assert found(first, b"/b").prefix == "/b", "the snapshot before is as it was"

    asyncio.run(main())


def test_another_setting_of_the_server_compiles_all_anew() -> None:
    routes = {"/a": Route(target="http://a")}

    async def main() -> None:
        pools, tallies = Pools(asyncio.get_running_loop()), in_memory()
        first = compile_snapshot(Config(routes=routes), shared(pools, tallies))
        changed = Config(server=Server(body_bytes_max=5), routes=routes)
        second = compile_snapshot(changed, shared(pools, tallies), first)
        assert (found(first, b"/a").body_bytes_max, found(second, b"/a").body_bytes_max) == (None, 5)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("access", "api_key", "gated"),
    [
        (None, None, False),
        (None, "a key", True),
        (Access.PUBLIC, "a key", False),
        (Access.TOKEN, None, True),
        (Access.TOKEN, "a key", True),
    ],
)
def test_which_routes_are_for_who_shows_a_token(access: Access | None, api_key: str | None, *, gated: bool) -> None:
    routes = {"/a": Route(target="http://a", access=access)}
    snapshot = compiled(Config(access=AccessSettings(api_key=api_key), routes=routes))
    assert found(snapshot, b"/a").gate is (GATE if gated else None)


def test_a_key_that_is_set_later_closes_the_routes_that_were_open() -> None:
    routes = {"/a": Route(target="http://a")}

    async def main() -> None:
        pools = Pools(asyncio.get_running_loop())
        first = compile_snapshot(Config(routes=routes), shared(pools))
        config = Config(access=AccessSettings(api_key="a key"), routes=routes)
        second = compile_snapshot(config, shared(pools), first)
        assert (found(first, b"/a").gate, found(second, b"/a").gate) == (None, GATE)

    asyncio.run(main())


def found(snapshot: Snapshot, path: bytes) -> CompiledRoute:
    match = snapshot.routes.match(path)
    assert match is not None
    return match[0]
