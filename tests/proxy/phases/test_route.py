"""Route: what the upstream will be asked for, or why it will not be asked."""

import asyncio

import pytest

from proxy.config import Backend, Server, Upstream
from proxy.errors import BAD_REQUEST, BAD_TARGET, BODY_TOO_LARGE, METHOD_NOT_ALLOWED, NO_ROUTE, Cause, RelayError
from proxy.exchange import Exchange
from proxy.phases.route import route
from proxy.rules.client_address import ClientAddresses
from proxy.rules.headers import Header
from tests.proxy.asgi import Client, balanced_snapshot, snapshot_of


def routed(target: str, path: bytes, query: bytes = b"", *headers: Header, method: str = "GET") -> Exchange:
    async def main() -> Exchange:
        exchange = Client().exchange(path=path, query=query, headers=headers, method=method)
        route(exchange, snapshot_of(Server(body_bytes_max=9), target=target))
        return exchange

    return asyncio.run(main())


def refusal(path: bytes, *headers: Header, method: str = "GET") -> Cause:
    with pytest.raises(RelayError) as caught:
        routed("http://up.example/base", path, b"", *headers, method=method)
    return caught.value.cause


@pytest.mark.parametrize(
    ("target", "path", "query", "asked"),
    [
        ("http://u", b"/up", b"", b"/"),
        ("http://u/", b"/up", b"", b"/"),
        ("http://u", b"/up/", b"", b"/"),
        ("http://u", b"/up", b"x=1", b"/?x=1"),
        ("http://u", b"/up/a", b"", b"/a"),
        ("http://u/base", b"/up", b"", b"/base"),
        ("http://u/base", b"/up/", b"", b"/base/"),
        ("http://u/base/", b"/up", b"", b"/base/"),
        ("http://u/base/", b"/up/a", b"", b"/base/a"),
        ("http://u/base", b"/up//a//", b"", b"/base//a//"),
        ("http://u", b"/up//evil.example/x", b"", b"//evil.example/x"),
        ("http://u", b"/up/a%2Fb;v=1/%C3%A4/x", b"q=%20+&r=a/b?c", b"/a%2Fb;v=1/%C3%A4/x?q=%20+&r=a/b?c"),
        ("http://u/base", b"/up/a/../b", b"", b"/base/a/../b"),
    ],
)
def test_the_rest_of_a_path_goes_behind_the_target_byte_for_byte(
    target: str, path: bytes, query: bytes, asked: bytes
) -> None:
    """C1, C2, C4."""
    assert routed(target, path, query).target == asked


def test_a_request_that_cannot_be_relayed_is_refused_with_its_cause() -> None:
    assert refusal(b"/upx") is NO_ROUTE
    assert refusal(b"*", method="OPTIONS") is NO_ROUTE
    assert refusal(b"/up/..") is BAD_TARGET
    assert refusal(b"/up/a/%2e%2e/../x") is BAD_TARGET
    assert refusal(b"/up", method="CONNECT") is METHOD_NOT_ALLOWED
    assert refusal(b"/up", (b"content-length", b"+1")) is BAD_REQUEST
    assert refusal(b"/up", (b"content-length", b"10"), method="POST") is BODY_TOO_LARGE


def test_a_request_without_a_body_has_been_received() -> None:
    assert routed("http://u", b"/up").body_received
    assert not routed("http://u", b"/up", b"", (b"content-length", b"9"), method="POST").body_received
    assert not routed("http://u", b"/up", b"", (b"transfer-encoding", b"chunked")).body_received


@pytest.mark.parametrize(("own", "kept"), [(b"mine", b"mine"), (b"not sane", b"relay-id"), (b"x" * 129, b"relay-id")])
def test_a_sane_request_id_of_the_client_is_kept(own: bytes, kept: bytes) -> None:
    """C82."""
    assert routed("http://u", b"/up", b"", (b"x-request-id", own)).request_id == kept


@pytest.mark.parametrize(
    ("balanced", "trusted", "crosses"),
    [(True, [], False), (True, ["10.0.0.0/8"], False), (True, ["192.0.2.7"], True), (False, [], True)],
)
def test_c15_where_a_stranger_says_he_comes_from_does_not_reach_an_upstream_of_several_backends(
    trusted: list[str], *, balanced: bool, crosses: bool
) -> None:
    """What a proxy that is trusted says does, and to a target of one server whatever a client says."""
    own = [(b"x-forwarded-for", b"127.0.0.1"), (b"x-real-ip", b"127.0.0.1"), (b"forwarded", b"for=127.0.0.1")]

    async def main() -> Exchange:
        exchange = Client().exchange(headers=[*own, (b"a", b"1")])
        exchange.clients = ClientAddresses(trusted)
        upstream = Upstream(backends=(Backend(url="http://u", id="u"),))
        route(exchange, balanced_snapshot(upstream) if balanced else snapshot_of())
        return exchange

    assert asyncio.run(main()).head.crossing() == ([*own, (b"a", b"1")] if crosses else [(b"a", b"1")])
