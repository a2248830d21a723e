"""TLS on both sides: the listener's, and what of an upstream's certificate is believed (C64, C44-C46 under TLS)."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.fake_behaviours import pattern_slice
from loadtests.fake_upstream import UpstreamInThread
from tests.end_to_end.asking import answer, sse
from tests.end_to_end.certificates import Certificates
from tests.end_to_end.harness import RelayFarm, Seen
from tests.end_to_end.raw_client import BodyEnd, ClosedEarlyError
from tests.end_to_end.relay_process import Relay
from tests.end_to_end.waiting import eventually


def listener(certificates: Certificates) -> dict[str, str]:
    return {"certificate": str(certificates.good.certificate), "key": str(certificates.good.key)}


@pytest.fixture(name="secure", scope="module")
def fixture_secure(farm: RelayFarm, certificates: Certificates, upstream: UpstreamInThread) -> Iterator[Relay]:
    """A relay that listens with TLS."""
    route = {"target": upstream.url, "forwarded": "replace"}
    configuration = {"tls": listener(certificates), "routes": {"/up": upstream.url, "/told": route}}
    with farm.running(configuration, certificates.client_tls()) as relay:
        yield relay


def test_the_listener_shows_its_certificate(secure: Relay) -> None:
    """The client verifies chain and name; and the start line says https."""
    response = secure.get("/up/echo")
    assert response.status == 200
    assert f"https://127.0.0.1:{secure.port}" in secure.output()


def chosen_protocol(relay: Relay, context: ssl.SSLContext) -> str | None:
    with (
        socket.create_connection((relay.host, relay.port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as wire,
    ):
        return wire.selected_alpn_protocol()


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["http/1.1"], "http/1.1"), (["h2", "http/1.1"], "h2"), (["h2"], "h2"), (["http/1.0"], None)],
)
def test_alpn_lets_the_client_choose(
    secure: Relay, certificates: Certificates, offered: list[str], chosen: str | None
) -> None:
    """With `http: auto` both versions are offered; a client that knows neither is refused, or speaks HTTP/1.1."""
    try:
        assert chosen_protocol(secure, certificates.client_tls(*offered)) == chosen
    except ssl.SSLError:
        assert chosen is None


def test_alpn_chooses_http_2_where_that_is_configured(
    farm: RelayFarm, certificates: Certificates, upstream: UpstreamInThread
) -> None:
    configuration = {"server": {"http": "2"}, "tls": listener(certificates), "routes": {"/up": upstream.url}}
    with farm.running(configuration, certificates.client_tls("h2")) as relay:
        assert chosen_protocol(relay, certificates.client_tls("h2", "http/1.1")) == "h2"


def test_plain_http_to_the_tls_port_is_no_request(secure: Relay, seen: Seen) -> None:
    with socket.create_connection((secure.host, secure.port), timeout=5) as plain:
        plain.sendall(b"GET /up/echo HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"200 OK" not in plain.recv(1000)
    assert not seen.all()
    assert secure.get("/healthz").status == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_versions_of_today_are_spoken(secure: Relay, certificates: Certificates, version: ssl.TLSVersion) -> None:
    context = certificates.client_tls()
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection((secure.host, secure.port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as wire,
    ):
        assert wire.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]


def test_an_older_version_than_the_oldest_that_is_wanted_is_refused(
    farm: RelayFarm, certificates: Certificates
) -> None:
    context = certificates.client_tls()
    with farm.running({"tls": listener(certificates) | {"min_version": "1.3"}, "routes": {}}, context) as relay:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
            relay.get("/healthz")
        context.maximum_version = ssl.TLSVersion.TLSv1_3
        assert relay.get("/healthz").status == 200


def test_streams_and_uploads_cross_the_tls_listener(secure: Relay, seen: Seen) -> None:
    body = pattern_slice(0, 500_000)
    assert secure.request("POST", "/up/echo", [], body).json()["body_bytes"] == 500_000
    assert seen.last().body_bytes == 500_000
    assert secure.get("/up" + sse(events=5, interval_ms=10)).body.count(b"\n\n") == 5
    assert secure.get("/up" + answer(body_bytes=3_000_000)).body == pattern_slice(0, 3_000_000)


def test_c44_a_cut_answer_is_an_error_over_tls(secure: Relay) -> None:
    for framing in ("length", "chunked"):
        try:
            response = secure.get(
                "/up" + answer(framing=framing, body_bytes=300_000, cut_after_bytes=200_000, end="fin")
            )
        except ClosedEarlyError:
            continue
        assert response.failed


def test_c15_the_scheme_is_told_to_the_upstream(secure: Relay, seen: Seen) -> None:
    assert secure.get("/told/echo").status == 200
    assert seen.one().values("x-forwarded-proto") == [b"https"]
    assert b"proto=https" in seen.one().values("forwarded")[0]


def test_c63_a_tls_client_that_leaves_cancels_its_request(secure: Relay, seen: Seen) -> None:
    with secure.client() as client:
        client.send(b"GET /up/hold HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(seen.all)
    eventually(lambda: seen.one().peer_closed_s, 1.0, what="the close of the upstream's connection")


def test_client_certificates_are_asked_for_where_a_ca_is_configured(
    farm: RelayFarm, certificates: Certificates, upstream: UpstreamInThread
) -> None:
    known = certificates.client_tls()
    known.load_cert_chain(certificates.client.certificate, certificates.client.key)
    tls = listener(certificates) | {"client_ca": str(certificates.ca)}
    with farm.running({"tls": tls, "routes": {"/up": upstream.url}}, known) as relay:
        assert relay.get("/up/echo").status == 200
        seen = Seen(upstream)
        relay.client_tls = certificates.client_tls()  # one that has no certificate to show
        with pytest.raises((ssl.SSLError, ConnectionError, ClosedEarlyError)):
            relay.get("/up/echo")
        assert not seen.all()
        relay.client_tls = known
        assert relay.get("/healthz").status == 200


def test_client_certificates_that_are_optional_are_good_or_absent(
    farm: RelayFarm, certificates: Certificates, tmp_path: Path
) -> None:
    tls = listener(certificates) | {"client_ca": str(certificates.ca), "client_certificates": "optional"}
    strangers = Certificates(tmp_path).client
    with farm.running({"tls": tls, "routes": {}}, certificates.client_tls()) as relay:
        for pair in (certificates.client, None, strangers):
            relay.client_tls = certificates.client_tls()
            if pair is not None:
                relay.client_tls.load_cert_chain(pair.certificate, pair.key)
            if pair is strangers:
                with pytest.raises((ssl.SSLError, ConnectionError, ClosedEarlyError)):
                    relay.get("/healthz")
            else:
                assert relay.get("/healthz").status == 200


@pytest.mark.parametrize("prefix", ["/tls", "/tls-named", "/tls-unverified", "/mutual"])
def test_an_https_upstream_is_reached_as_configured(relay: Relay, prefix: str) -> None:
    """By a CA of one's own, under another name, unverified, and with a client certificate."""
    response = relay.request("POST", f"{prefix}/echo", [], b"hello")
    assert response.status == 200
    assert response.json()["body_bytes"] == 5


def test_an_https_upstream_that_nobody_checks_is_told_of_once(relay: Relay) -> None:
    (line,) = [line for line in relay.output().splitlines() if "tls.verify is false" in line]
    assert line.endswith("requests of /tls-unverified")


def test_c64_what_is_not_verified_gets_no_byte_of_a_request(
    relay: Relay, misnamed_upstream: UpstreamInThread, expired_upstream: UpstreamInThread
) -> None:
    before = len(misnamed_upstream.requests), len(expired_upstream.requests)
    for prefix in ("/tls-misnamed", "/tls-expired", "/tls-stranger", "/tls-system"):
        assert relay.request("POST", f"{prefix}/echo", [(b"x-api-key", b"canary-5ecret")], b"secret").status == 502
    assert (len(misnamed_upstream.requests), len(expired_upstream.requests)) == before


def test_connections_to_https_upstreams_are_reused(relay: Relay, tls_upstream: UpstreamInThread) -> None:
    seen = Seen(tls_upstream)
    for _ in range(5):
        assert relay.get("/tls/echo").status == 200
    assert len({recorded.connection for recorded in seen.all()}) == 1


def test_routes_with_different_trust_share_no_connection(relay: Relay) -> None:
    """A pooled connection that one route verified laxly must not serve another that is strict."""
    assert relay.get("/tls-unverified/echo").status == 200
    assert relay.get("/tls-misnamed/echo").status == 502
    assert relay.get("/tls/echo").status == 200
    assert relay.get("/tls-stranger/echo").status == 502
    assert relay.get("/mutual/echo").status == 200
    assert relay.get("/mutual-anonymous/echo").status == 502


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("end", ["fin", "rst"])
def test_c44_c45_cuts_by_an_https_upstream_are_errors(relay: Relay, framing: str, end: str) -> None:
    """Close-delimited over TLS is whole after close_notify (`fin`) and an error without it (`rst`)."""
    path = "/tls" + answer(framing=framing, body_bytes=300_000, cut_after_bytes=200_000, end=end)
    try:
        response = relay.get(path)
    except ClosedEarlyError:
        return
    if framing == "close" and end == "fin":
        assert (response.end, len(response.body)) == (BodyEnd.COMPLETE, 200_000)
    else:
        assert response.failed


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_c46_a_tls_stream_without_close_notify_is_a_truncation(relay: Relay, framing: str) -> None:
    """A FIN that the TLS layer did not announce may be anybody's (RFC 8446 §6.1)."""
    path = "/tls" + answer(framing=framing, body_bytes=300_000, cut_after_bytes=200_000, end="bare_fin")
    try:
        response = relay.get(path)
    except ClosedEarlyError:
        return
    assert response.failed


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_bodies_of_https_upstreams_come_whole(relay: Relay, framing: str) -> None:
    response = relay.get("/tls" + answer(framing=framing, body_bytes=5_000_000))
    assert (response.end, response.body == pattern_slice(0, 5_000_000)) == (BodyEnd.COMPLETE, True)


def test_events_of_https_upstreams_come_one_by_one(relay: Relay) -> None:
    response = relay.get("/tls" + sse(events=4, interval_ms=100))
    assert response.body.count(b"\n\n") == 4
    assert response.arrivals[-1][0] - response.arrivals[0][0] > 0.2


def test_uploads_to_https_upstreams_arrive_whole(relay: Relay, tls_upstream: UpstreamInThread) -> None:
    seen = Seen(tls_upstream)
    body = pattern_slice(0, 3_000_000)
    assert relay.request("POST", "/tls/echo", [], body).json()["body_bytes"] == len(body)
    assert seen.one().complete


def test_c60_an_idle_https_connection_closed_by_the_upstream_is_never_noticed(
    relay: Relay, tls_upstream: UpstreamInThread
) -> None:
    for _ in range(10):
        assert relay.get("/tls/echo").status == 200
        eventually(lambda: tls_upstream.idle_connections() > 0)
        tls_upstream.close_idle_from_outside()
        assert relay.request("POST", "/tls/echo", [], b"hello").status == 200


def test_c63_a_client_that_leaves_closes_the_https_upstream(relay: Relay, tls_upstream: UpstreamInThread) -> None:
    seen = Seen(tls_upstream)
    with relay.client() as client:
        client.send(b"GET /tls/sse?events=1000&interval_ms=20 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.read_head().status == 200
    eventually(lambda: seen.one().peer_closed_s, 1.0, what="the close of the upstream's connection")
