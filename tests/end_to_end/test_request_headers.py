"""Request headers: what crosses, what must not, and what a gateway adds only when told to (C10-C19).

Granian lower-cases names and hands over fields of one name together, at the place of the first. So the order of names
by their first appearance, and the order of values within a name, are what can be kept; both are asserted here.
"""

import signal
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loadtests.fake_requests import Recorded
from loadtests.fake_upstream import UpstreamInThread
from tests.end_to_end.harness import RelayFarm, Seen
from tests.end_to_end.raw_client import BodyEnd, ClosedEarlyError, Header, Response, chunked, request_bytes
from tests.end_to_end.relay_process import Relay
from tests.end_to_end.waiting import eventually

HOP_BY_HOP = (
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
)


def names_by_first_appearance(headers: list[Header]) -> list[bytes]:
    return list(dict.fromkeys(name.lower() for name, _ in headers))


def own(recorded: Recorded) -> list[Header]:
    """The fields that came from the client, less Host."""
    return [(name.lower(), value) for name, value in recorded.headers if name.lower() != b"host"]


def sent_and_received(relay: Relay, seen: Seen, headers: list[Header], target: str = "/up/echo") -> Recorded:
    assert relay.request("GET", target, headers).status == 200
    return seen.one()


def test_c10_hop_by_hop_fields_stay_here(relay: Relay, seen: Seen) -> None:
    recorded = sent_and_received(
        relay,
        seen,
        [
            (b"Connection", b"keep-alive"),
            (b"Keep-Alive", b"timeout=5"),
            (b"Proxy-Connection", b"keep-alive"),
            (b"Proxy-Authenticate", b"Basic"),
            (b"Proxy-Authorization", b"Basic canary-5ecret"),
            (b"TE", b"gzip"),
            (b"Trailer", b"X-Later"),
            (b"Upgrade", b"h2c"),
            (b"HTTP2-Settings", b"AAMAAABkAAQAAP__"),
            (b"X-Stays", b"yes"),
        ],
    )
    names = recorded.names()
    assert not set(names) & set(HOP_BY_HOP)
    assert recorded.values("x-stays") == [b"yes"]


def test_c10_an_upgrade_that_is_no_websocket_is_an_ordinary_request(relay: Relay, seen: Seen) -> None:
    recorded = sent_and_received(relay, seen, [(b"Connection", b"Upgrade"), (b"Upgrade", b"h2c, foo")])
    assert b"upgrade" not in recorded.names()


def test_c10_transfer_encoding_is_made_anew(relay: Relay, seen: Seen) -> None:
    headers = [(b"Transfer-Encoding", b"CHUNKED")]
    assert relay.request("POST", "/up/echo", headers, chunked(b"abc")).status == 200
    assert bytes(seen.one().body) == b"abc"
    assert len(seen.one().values("transfer-encoding")) <= 1


@pytest.mark.parametrize(
    "lines",
    [
        [b"X-Drop"],
        [b"x-drop, X-Drop-Too"],
        [b"keep-alive", b"X-DROP", b"  x-drop-too  "],
        [b",, X-Drop ,\tX-Drop-Too,"],
    ],
)
def test_c11_fields_named_in_connection_stay_here(relay: Relay, seen: Seen, lines: list[bytes]) -> None:
    named = {b"x-drop", b"x-drop-too"} if b"too" in b"".join(lines).lower() else {b"x-drop"}
    fields = [(b"Connection", line) for line in lines]
    fields += [(b"X-Drop", b"1"), (b"x-drop", b"2"), (b"X-Drop-Too", b"3"), (b"X-Drop-Not", b"4")]
    recorded = sent_and_received(relay, seen, fields)
    assert not set(recorded.names()) & named
    assert recorded.values("x-drop-not") == [b"4"]


def test_c11_connection_cannot_name_away_what_matters(relay: Relay, seen: Seen) -> None:
    named = b"host, Content-Length, authorization, COOKIE, transfer-encoding"
    fields = [(b"Connection", named), (b"Authorization", b"Bearer canary-5ecret"), (b"Cookie", b"a=canary-5ecret")]
    assert relay.request("POST", "/up/echo", fields, b"hello").status == 200
    recorded = seen.one()
    assert recorded.values("authorization") == [b"Bearer canary-5ecret"]
    assert recorded.values("cookie") == [b"a=canary-5ecret"]
    assert recorded.values("content-length") == [b"5"]
    assert len(recorded.values("host")) == 1
    assert bytes(recorded.body) == b"hello"


def test_c11_connection_cannot_name_away_the_chunked_framing(relay: Relay, seen: Seen) -> None:
    fields = [(b"Connection", b"transfer-encoding"), (b"Transfer-Encoding", b"chunked")]
    assert relay.request("POST", "/up/echo", fields, chunked(b"hello")).status == 200
    assert bytes(seen.one().body) == b"hello"


def test_c11_connection_close_is_obeyed_and_not_relayed(relay: Relay, seen: Seen) -> None:
    with relay.client() as client:
        assert client.request("GET", "/up/echo", [(b"Connection", b"close")]).status == 200
        assert client.is_closed_by_peer()
    assert b"close" not in [value.lower() for value in seen.one().values("connection")]


@pytest.mark.parametrize(
    ("offered", "relayed"),
    [
        ([b"trailers, gzip"], [b"trailers"]),
        ([b"trailers"], [b"trailers"]),
        ([b"gzip;q=0.5", b"Trailers"], [b"trailers"]),
        ([b"gzip"], []),
        ([b""], []),
    ],
)
def test_c12_of_te_at_most_trailers_is_relayed(
    relay: Relay, seen: Seen, offered: list[bytes], relayed: list[bytes]
) -> None:
    recorded = sent_and_received(relay, seen, [(b"TE", value) for value in offered])
    assert [value.lower() for value in recorded.values("te")] in ([], relayed)


def test_c13_order_duplicates_empty_values_and_bytes_are_kept(relay: Relay, seen: Seen) -> None:
    fields = [
        (b"X-Zulu", b"1"),
        (b"Accept", b"a/b"),
        (b"X-Empty", b""),
        (b"x-zulu", b"2, 3"),
        (b"X-Bytes", bytes(range(0x80, 0x100))),
        (b"X-Inner", b"a  b\tc"),
        (b"X-Zulu", b"1"),
        (b"Cookie", b"a=1; b=2"),
        (b"X-Punctuation", b"\"'(),/:;<=>?@[\\]{}~"),
        (b"accept", b"c/d"),
    ]
    recorded = sent_and_received(relay, seen, fields)
    assert names_by_first_appearance(own(recorded)) == names_by_first_appearance(fields)
    for name in names_by_first_appearance(fields):
        assert recorded.values(name.decode()) == [value for key, value in fields if key.lower() == name]


TOKEN = st.text("abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~", min_size=1, max_size=20)
VALUE = st.binary(max_size=40).map(lambda raw: bytes(b for b in raw if b >= 0x20 and b != 0x7F).strip(b" \t"))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=st.lists(st.tuples(TOKEN.map(lambda name: b"x-" + name.encode()), VALUE), max_size=30))
def test_c13_any_fields(relay: Relay, upstream: UpstreamInThread, fields: list[Header]) -> None:
    seen = Seen(upstream)
    recorded = sent_and_received(relay, seen, [one for one in fields if one[0] not in {b"x-request-id"}])
    received = [one for one in own(recorded) if one[0] in {name for name, _ in fields}]
    assert sorted(received) == sorted(fields)
    assert names_by_first_appearance(received) == names_by_first_appearance(fields)
    for name in names_by_first_appearance(fields):
        assert recorded.values(name.decode()) == [value for key, value in fields if key == name]


def test_c13_trace_context_crosses_and_none_is_made_up(relay: Relay, seen: Seen) -> None:
    """W3C Trace Context: whoever takes no part in a trace passes both fields on, a `traceparent` it cannot read too."""
    fields = [
        (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        (b"tracestate", b"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        (b"tracestate", b"last=1"),
        (b"baggage", b"user=alice;level=7, empty="),
    ]
    recorded = sent_and_received(relay, seen, fields)
    for name in ("traceparent", "tracestate", "baggage"):
        assert recorded.values(name) == [value for key, value in fields if key.decode() == name]
    assert relay.request("GET", "/up/echo", [(b"traceparent", b"cc-strange")]).status == 200
    assert seen.last().values("traceparent") == [b"cc-strange"]
    assert relay.request("GET", "/up/echo").status == 200
    assert not seen.last().values("traceparent") + seen.last().values("tracestate")


def test_c13_nothing_is_added(relay: Relay, seen: Seen) -> None:
    """No identity of its own: no User-Agent, Accept, Via, X-Forwarded-For. The request id may be handed on."""
    recorded = sent_and_received(relay, seen, [(b"X-Only", b"1")])
    assert set(recorded.names()) - {b"x-request-id"} == {b"host", b"x-only"}


def test_c14_host_is_the_upstreams_once(relay: Relay, seen: Seen, upstream: UpstreamInThread) -> None:
    recorded = sent_and_received(relay, seen, [(b"Host", b"client.test:99")])
    assert recorded.values("host") == [upstream.authority.encode()]


def test_c14_preserve_host_keeps_the_clients(relay: Relay, seen: Seen) -> None:
    recorded = sent_and_received(relay, seen, [(b"Host", b"Client.Test:99")], "/preserve/echo")
    assert recorded.values("host") == [b"Client.Test:99"]


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [b"a.test", b"b.test"],
        [b"a.test", b"a.test"],
        [b"a b"],
        [b"a/b"],
        [b"u@a.test"],
        [b"a?b"],
    ],
)
@pytest.mark.parametrize("prefix", ["/up", "/preserve"])
def test_c14_none_two_or_invalid_hosts_are_refused(relay: Relay, seen: Seen, prefix: str, hosts: list[bytes]) -> None:
    lines = b"".join(b"Host: %b\r\n" % host for host in hosts)
    with relay.client() as client:
        client.send(b"GET %b/echo HTTP/1.1\r\n%bX-A: 1\r\n\r\n" % (prefix.encode(), lines))
        assert client.read_response().status == 400
    assert not seen.all()


def test_c14_http_1_0_needs_no_host(relay: Relay, seen: Seen, upstream: UpstreamInThread) -> None:
    with relay.client() as client:
        client.send(b"GET /up/echo HTTP/1.0\r\n\r\n")
        assert client.read_response().status == 200
    assert seen.one().values("host") == [upstream.authority.encode()]


FORWARDING = [
    (b"Forwarded", b"for=192.0.2.1"),
    (b"X-Forwarded-For", b"192.0.2.1"),
    (b"X-Forwarded-Proto", b"gopher"),
    (b"X-Forwarded-Host", b"first.test"),
    (b"X-Real-IP", b"192.0.2.1"),
]


def test_c15_off_adds_nothing_and_touches_nothing(relay: Relay, seen: Seen) -> None:
    assert own(sent_and_received(relay, seen, FORWARDING)) == [(name.lower(), value) for name, value in FORWARDING]


def test_c15_append_adds_this_hop_to_what_came(relay: Relay, seen: Seen) -> None:
    recorded = sent_and_received(relay, seen, [(b"Host", b"relay.test"), *FORWARDING], "/append/echo")
    assert recorded.values("x-forwarded-for") == [b"192.0.2.1, 127.0.0.1"]
    (forwarded,) = recorded.values("forwarded")
    first, _, added = forwarded.partition(b", ")
    assert first == b"for=192.0.2.1"
    assert sorted(added.split(b";")) == [b"for=127.0.0.1", b"host=relay.test", b"proto=http"]
    assert recorded.values("x-forwarded-proto") == [b"gopher"]
    assert recorded.values("x-forwarded-host") == [b"first.test"]


def test_c15_append_joins_several_lines_in_their_order(relay: Relay, seen: Seen) -> None:
    lines = [(b"X-Forwarded-For", b"192.0.2.1"), (b"x-forwarded-for", b"192.0.2.2, 192.0.2.3")]
    recorded = sent_and_received(relay, seen, lines, "/append/echo")
    joined = b", ".join(recorded.values("x-forwarded-for"))
    assert joined == b"192.0.2.1, 192.0.2.2, 192.0.2.3, 127.0.0.1"


@pytest.mark.parametrize(("prefix", "came"), [("/append", []), ("/replace", []), ("/replace", FORWARDING)])
def test_c15_alone_or_replacing_only_this_hop_is_told(
    relay: Relay, seen: Seen, prefix: str, came: list[Header]
) -> None:
    recorded = sent_and_received(relay, seen, [(b"Host", b"relay.test:8000"), *came], f"{prefix}/echo")
    assert recorded.values("x-forwarded-for") == [b"127.0.0.1"]
    assert recorded.values("x-forwarded-proto") == [b"http"]
    assert recorded.values("x-forwarded-host") == [b"relay.test:8000"]
    (forwarded,) = recorded.values("forwarded")
    assert sorted(forwarded.split(b";")) == [b"for=127.0.0.1", b'host="relay.test:8000"', b"proto=http"]


def test_c15_an_upstream_of_several_backends_hears_of_a_clients_way_from_trusted_proxies_alone(
    farm: RelayFarm, upstream: UpstreamInThread
) -> None:
    """The log names the client that they name, and the peer otherwise."""
    came = [*FORWARDING, (b"X-Forwarded-Port", b"1")]
    routes = {"/up": {"upstream": "group"}, "/append": {"upstream": "group", "forwarded": "append"}}
    configuration: dict[str, Any] = {"upstreams": {"group": {"backends": [upstream.url]}}, "routes": routes}
    with farm.running(configuration) as relay:
        assert own(sent_and_received(relay, Seen(upstream), came)) == []
        appended = sent_and_received(relay, Seen(upstream), came, "/append/echo")
        assert appended.values("x-forwarded-for") == [b"192.0.2.1, 127.0.0.1"]
        assert appended.values("x-real-ip") == []
        relay.check_flushed_output()
        assert '"client":"127.0.0.1"' in relay.output()
        assert '"client":"192.0.2.1"' not in relay.output()
        relay.configuration["server"]["trusted_proxies"] = ["127.0.0.0/8"]
        relay.write_configuration()
        relay.signal(signal.SIGHUP)
        eventually(lambda: own(sent_and_received(relay, Seen(upstream), came)), what="the proxies that are trusted")
        assert own(sent_and_received(relay, Seen(upstream), came)) == [(name.lower(), value) for name, value in came]
        eventually(lambda: '"client":"192.0.2.1"' in relay.output(), what="the client's own address in the log")


def test_c15_an_ipv6_client_is_quoted(farm: RelayFarm, upstream: UpstreamInThread, seen: Seen) -> None:
    route = {"target": upstream.url, "forwarded": "append"}
    with farm.running({"server": {"host": "::1"}, "routes": {"/append": route}}) as relay:
        assert relay.get("/append/echo").status == 200
    recorded = seen.last()
    assert recorded.values("x-forwarded-for") == [b"::1"]
    assert b'for="[::1]"' in recorded.values("forwarded")[0]


def test_c16_via_is_added_only_when_configured(relay: Relay, upstream: UpstreamInThread) -> None:
    came = (b"Via", b"1.0 earlier")
    assert sent_and_received(relay, Seen(upstream), []).values("via") == []
    assert sent_and_received(relay, Seen(upstream), [came]).values("via") == [b"1.0 earlier"]
    recorded = sent_and_received(relay, Seen(upstream), [came], "/via/echo")
    assert b", ".join(recorded.values("via")) == b"1.0 earlier, 1.1 relaygate"
    assert sent_and_received(relay, Seen(upstream), [], "/via/echo").values("via") == [b"1.1 relaygate"]


EXPECT: Header = (b"Expect", b"100-continue")


def test_c17_100_continue_comes_and_the_body_follows(relay: Relay, seen: Seen) -> None:
    with relay.client() as client:
        client.send(request_bytes("POST", "/up/echo", [EXPECT, (b"Content-Length", b"5")]))
        assert client.socket.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"hello")
        assert client.read_response().status == 200
    assert bytes(seen.one().body) == b"hello"
    assert seen.one().complete


def test_c17_a_client_that_does_not_wait_is_served_as_well(relay: Relay, seen: Seen) -> None:
    response = relay.request("POST", "/up/echo", [EXPECT], b"hello" * 10_000)
    assert response.status == 200
    assert seen.one().body_bytes == 50_000


@pytest.mark.parametrize("status", [401, 413, 417])
@pytest.mark.parametrize("framing", [(b"Content-Length", b"500000"), (b"Transfer-Encoding", b"chunked")])
def test_c17_a_final_status_comes_without_the_body(relay: Relay, status: int, framing: Header) -> None:
    with relay.client() as client:
        target = f"/up/answer?status={status}&body=no&read=none&end=fin"
        client.send(request_bytes("POST", target, [EXPECT, framing]))
        response = client.read_response()
    assert (response.status, response.body, response.end) == (status, b"no", BodyEnd.COMPLETE)


@pytest.mark.parametrize("end", ["keep", "hold"])
def test_c17_a_connection_whose_body_was_never_sent_is_not_reused(
    relay: Relay, upstream: UpstreamInThread, end: str
) -> None:
    """The upstream would take the next request for that body."""
    for framing in ((b"Content-Length", b"500000"), (b"Transfer-Encoding", b"chunked")):
        seen = Seen(upstream)
        with relay.client() as client:
            target = f"/up/answer?status=401&body=no&read=none&end={end}"
            client.send(request_bytes("POST", target, [EXPECT, framing]))
            assert client.read_response().status == 401
        assert relay.get("/up/echo").status == 200
        first, second = seen.all()
        assert second.connection != first.connection


def test_c17_an_unknown_expectation_does_no_harm(relay: Relay) -> None:
    assert relay.request("POST", "/up/echo", [(b"Expect", b"the-unexpected")], b"hello").status in {200, 417}


def test_c17_no_route_is_told_without_the_body(relay: Relay) -> None:
    with relay.client() as client:
        client.send(request_bytes("POST", "/nowhere", [EXPECT, (b"Content-Length", b"500000")]))
        response = client.read_response()
    assert (response.status, response.interim) == (404, [])


def answer_or_close(relay: Relay, headers: list[Header]) -> Response | None:
    with relay.client() as client:
        try:
            client.send(request_bytes("GET", "/up/echo", headers))
            return client.read_response()
        except (ClosedEarlyError, ConnectionResetError, BrokenPipeError):
            return None


def test_c18_ninety_headers_are_relayed(relay: Relay, seen: Seen) -> None:
    fields = [(b"X-N%d" % number, b"v" * 100) for number in range(90)]
    assert own(sent_and_received(relay, seen, fields)) == [(name.lower(), value) for name, value in fields]


@pytest.mark.parametrize(
    "headers",
    [
        [(b"X-N%d" % number, b"v") for number in range(200)],
        [(b"X-Same", b"%d" % number) for number in range(200)],
        [(b"X-Big", b"v" * 65_536)],
        [(b"X-N%d" % number, b"v" * 10_000) for number in range(100)],
        [(b"X-N%d" % number, b"v") for number in range(100_000)],
    ],
    ids=["200 headers", "200 of one name", "one of 64 KB", "1 MB in 100", "1 MB in 100,000"],
)
def test_c18_too_many_or_too_large_headers_are_relayed_or_refused(
    relay: Relay, seen: Seen, headers: list[Header]
) -> None:
    response = answer_or_close(relay, headers)
    if response is not None and response.status == 200:
        assert own(seen.one()) == [(name.lower(), value) for name, value in headers]
    else:
        assert response is None or response.status in {400, 431}
        assert not seen.all()
    assert relay.get("/healthz").status == 200


def test_c18_endless_headers_are_ended_and_memory_is_bounded(relay: Relay) -> None:
    before = relay.memory_bytes()
    sent, deadline_s = 0, time.monotonic() + 10
    with relay.client() as client:
        client.send(b"GET /up/echo HTTP/1.1\r\nHost: a\r\n")
        try:
            while time.monotonic() < deadline_s and sent < 64 << 20:
                client.send(b"X-Again: " + b"v" * 8_000 + b"\r\n")
                sent += 8_000
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert relay.memory_bytes() - before < 8 << 20
    assert sent < 64 << 20, "the relay reads headers without end"


def test_c19_accept_encoding_is_not_ours_to_change(relay: Relay, upstream: UpstreamInThread) -> None:
    for value in (b"gzip, br;q=0.1, zstd", b"identity", b""):
        recorded = sent_and_received(relay, Seen(upstream), [(b"Accept-Encoding", value)])
        assert recorded.values("accept-encoding") == [value]
    assert sent_and_received(relay, Seen(upstream), []).values("accept-encoding") == []
