"""The request line: what reaches the upstream is the rest of the target, byte for byte, and nothing else (C1-C8)."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loadtests.fake_upstream import UpstreamInThread
from tests.end_to_end.harness import Seen
from tests.end_to_end.raw_client import ClosedEarlyError, RawClient, Response, request_bytes
from tests.end_to_end.relay_process import Relay

PATH_BYTES = b"abcXYZ019-._~!$&'()*+,;=:@/"
QUERY_BYTES = PATH_BYTES + b"?"

# A path segment that means "up" to no server, so that no example is refused for climbing.
percent_encoded = st.sampled_from(
    [b"%20", b"%2F", b"%2f", b"%C3%A9", b"%00", b"%0d%0a", b"%25", b"%7E", b"%3F", b"%23"]
)


def joined(alphabet: bytes) -> st.SearchStrategy[bytes]:
    plain = st.sampled_from([bytes([byte]) for byte in alphabet])
    return st.lists(plain | percent_encoded, max_size=40).map(b"".join)


def answer_to(relay: Relay, request: bytes) -> Response | None:
    """The response to a request sent as it is; None where the relay closes the connection instead."""
    with relay.client() as client:
        client.send(request)
        try:
            return client.read_response()
        except ClosedEarlyError:
            return None


def is_refused(relay: Relay, request: bytes) -> bool:
    response = answer_to(relay, request)
    return response is None or 400 <= response.status < 500 or response.status == 501


@pytest.mark.parametrize(
    "rest",
    [
        b"/a%2Fb//c;v=1/x?q=%20+&e=%E4%BD%A0&r=a/b?c",
        b"/a%2fb/%2F",
        b"//",
        b"/a//b///c/",
        b"/~user/%7Euser",
        b"/*()'!$&,;=:@",
        b"/x?",
        b"/?",
        b"/?a=1&a=1&&=&b",
        b"/v1beta/models/gemini-pro:streamGenerateContent?alt=sse&key=k",
        b"/%",
        b"/%zz",
        b"/%c0%ae",
        b"/a?b=/../c",
        b"/a?http://elsewhere.test/",
    ],
)
def test_c1_rest_and_query_reach_the_upstream_byte_for_byte(relay: Relay, seen: Seen, rest: bytes) -> None:
    """Granian keeps everything but a `?` with nothing after it, which it drops: `/x?` arrives as `/x`."""
    assert relay.get(b"/up" + rest).status in {200, 404}
    assert seen.one().target == rest.removesuffix(b"?") or seen.one().target == rest


@pytest.mark.parametrize("byte", [b'"', b"<", b">", b"\\", b"^", b"`", b"{", b"|", b"}", b"[", b"]", b"\x80", b"\xff"])
@pytest.mark.parametrize("place", ["path", "query"])
def test_c1_bytes_that_no_uri_has_cross_unchanged_or_are_refused(
    relay: Relay, seen: Seen, byte: bytes, place: str
) -> None:
    rest = b"/a" + byte + b"b" if place == "path" else b"/a?b=" + byte + b"c"
    if not is_refused(relay, request_bytes("GET", b"/up" + rest)):
        assert seen.one().target == rest
    assert set(seen.targets()) <= {rest}


def test_c1_base_path_of_the_target_comes_first(relay: Relay, seen: Seen) -> None:
    relay.get(b"/base/a%2Fb//c?d=e")
    assert seen.one().target == b"/base/a%2Fb//c?d=e"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=joined(PATH_BYTES), query=st.none() | joined(QUERY_BYTES))
def test_c1_any_target(relay: Relay, upstream: UpstreamInThread, path: bytes, query: bytes | None) -> None:
    seen = Seen(upstream)
    # A query that is empty loses its "?" (Granian); a segment of dots only is C2's affair.
    path = path.replace(b".", b"")
    rest = b"/echo/" + path + (b"?" + query if query else b"")
    assert relay.get(b"/up" + rest).status == 200
    assert seen.one().target == rest


@pytest.mark.parametrize(
    "rest",
    [b"/a/./b", b"/./a", b"/a/../b", b"/a/%2e%2e/b", b"/a/b/../../c", b"/.../a", b"/..a/b", b"/a..", b"/%252e%252e/a"],
)
def test_c2_dot_segments_below_the_target_are_kept(relay: Relay, seen: Seen, rest: bytes) -> None:
    relay.get(b"/base" + rest)
    assert seen.one().target == b"/base" + rest


@pytest.mark.parametrize(
    "rest",
    [
        b"/..",
        b"/../",
        b"/../x",
        b"/%2e%2e/x",
        b"/%2E./x",
        b"/.%2e/x",
        b"/a/../../x",
        b"/a/%2e%2e/%2e%2e/x",
        b"/..%2fx",
        b"/%2e%2e%2fx",
        b"/a%2f..%2f..%2fx",
        b"/./../x",
        b"//../../x",
        b"/..%5cx",
        b"/..\\x",
    ],
)
@pytest.mark.parametrize("prefix", [b"/base", b"/up"])
def test_c2_climbing_above_the_target_is_refused(relay: Relay, seen: Seen, prefix: bytes, rest: bytes) -> None:
    assert is_refused(relay, request_bytes("GET", prefix + rest))
    assert not seen.all()


def test_c2_dots_in_the_query_climb_nowhere(relay: Relay, seen: Seen) -> None:
    relay.get(b"/base/x?file=../../etc/passwd")
    assert seen.one().target == b"/base/x?file=../../etc/passwd"


@pytest.mark.parametrize(
    ("requested", "received"),
    [
        (b"/up", b"/"),
        (b"/up/", b"/"),
        (b"/up?x", b"/?x"),
        (b"/up/?x", b"/?x"),
        (b"/base", b"/base"),
        (b"/base/", b"/base/"),
        (b"/base?x", b"/base?x"),
        (b"/up/nested", b"/deeper"),
        (b"/up/nested/a", b"/deeper/a"),
        (b"/up/nestedx", b"/nestedx"),
        (b"/up//nested", b"//nested"),
    ],
)
def test_c3_the_longest_prefix_of_whole_segments_matches(
    relay: Relay, seen: Seen, requested: bytes, received: bytes
) -> None:
    relay.get(requested)
    assert seen.one().target == received


@pytest.mark.parametrize("path", [b"/upx/echo", b"/u", b"/", b"/UP/echo", b"//up/echo", b"/%2fup/echo", b"/up%2fecho"])
def test_c3_anything_else_is_no_route(relay: Relay, seen: Seen, path: bytes) -> None:
    response = relay.get(path)
    assert (response.status, response.error_type()) == (404, "no_route")
    assert not seen.all()


@pytest.mark.parametrize(
    "rest",
    [b"//elsewhere.test/x", b"/http://elsewhere.test/", b"/@elsewhere.test/", b"//elsewhere.test:80@a/x", b"/:80/"],
)
def test_c4_a_path_never_changes_the_authority(
    relay: Relay, seen: Seen, upstream: UpstreamInThread, rest: bytes
) -> None:
    relay.get(b"/up" + rest)
    assert seen.one().target == rest
    assert seen.one().values("host") == [upstream.authority.encode()]


def test_c4_what_follows_the_prefix_is_not_joined_to_the_authority(relay: Relay, seen: Seen) -> None:
    for target in (b"/up@elsewhere.test/", b"/up:80/", b"/up.elsewhere.test/"):
        assert relay.get(target).status == 404
    assert not seen.all()


def test_c5_absolute_form_is_no_open_proxy(relay: Relay, seen: Seen, upstream: UpstreamInThread) -> None:
    target = f"{upstream.url}/echo".encode()
    response = answer_to(relay, request_bytes("GET", target, [(b"Host", upstream.authority.encode())]))
    assert response is not None
    assert response.status in {400, 404, 405}
    assert not seen.all()


def test_c5_absolute_form_with_a_route_goes_to_that_route_only(
    relay: Relay, seen: Seen, upstream: UpstreamInThread
) -> None:
    """A server must understand absolute-form (RFC 9112 §3.2.2); its authority must not become the upstream's."""
    response = answer_to(relay, request_bytes("GET", b"http://elsewhere.test/up/echo"))
    assert response is not None
    assert response.status in {200, 400, 404}
    for recorded in seen.all():
        assert recorded.values("host") == [upstream.authority.encode()]
        assert recorded.target == b"/echo"


@pytest.mark.parametrize("target", [b"elsewhere.test:443", b"/up/echo", b"127.0.0.1:1"])
def test_c5_connect_opens_nothing(relay: Relay, seen: Seen, target: bytes) -> None:
    response = answer_to(relay, request_bytes("CONNECT", target))
    assert response is None or response.status in {400, 404, 405, 501}
    assert not seen.all()


@pytest.mark.parametrize("target", [b"/up/echo", b"/", b"/healthz"])
def test_c5_trace_is_not_relayed(relay: Relay, seen: Seen, target: bytes) -> None:
    response = relay.request("TRACE", target, [(b"Cookie", b"a=b")])
    assert response.status in {400, 404, 405, 501}
    assert b"a=b" not in response.body
    assert not seen.all()


def test_c6_options_asterisk_is_answered_without_a_fault(relay: Relay) -> None:
    response = answer_to(relay, request_bytes("OPTIONS", b"*"))
    assert response is not None
    assert response.status < 500
    assert is_refused(relay, request_bytes("GET", b"*"))


@pytest.mark.parametrize(
    "method", ["OPTIONS", "PROPFIND", "QUERY", "M-SEARCH", "get", "PURGE", "X-_.~!#$%&'*+^`|", "PATCH", "A" * 100]
)
def test_c6_unknown_but_valid_methods_are_relayed(relay: Relay, seen: Seen, method: str) -> None:
    """Or refused by Granian, never an error of ours and never another method."""
    response = answer_to(relay, request_bytes(method, b"/up/echo"))
    if response is not None and response.status == 200:
        assert seen.one().method == method
    else:
        assert response is not None
        assert response.status in {400, 404, 405, 501}
        assert not seen.all()


@pytest.mark.parametrize("method", ["OPTIONS", "PROPFIND", "QUERY", "PATCH", "get"])
def test_c6_common_extension_methods_are_not_refused(relay: Relay, seen: Seen, method: str) -> None:
    assert relay.request(method, b"/up/echo").status == 200
    assert seen.one().method == method


@pytest.mark.parametrize(
    "rest", [b"/a%0d%0aX-Injected:%201", b"/a?b=%0d%0aX-Injected:%201", b"/%00", b"/%20HTTP/1.1%0d%0a", b"/a%0ab"]
)
def test_c7_encoded_control_bytes_stay_encoded(relay: Relay, seen: Seen, rest: bytes) -> None:
    relay.get(b"/up" + rest)
    assert seen.one().target == rest
    assert not seen.one().values("x-injected")


@pytest.mark.parametrize(
    "rest",
    [
        b"/a\r\nX-Injected: 1\r\n\r\n",
        b"/a\nX-Injected: 1",
        b"/a\rX-Injected: 1",
        b"/a b",
        b"/a\tb",
        b"/a\0b",
        b"/a\x0bb",
        b"/a\x7fb",
        b"/echo HTTP/1.1\r\nHost: a\r\n\r\nGET /up/injected",
    ],
)
def test_c7_raw_control_bytes_make_no_header_and_no_second_request(relay: Relay, seen: Seen, rest: bytes) -> None:
    """The last shape is two visible requests, not an injection: both may arrive, and nothing but them."""
    with relay.client() as client:
        client.send(request_bytes("GET", b"/up" + rest, [(b"Connection", b"close")]))
        client.read_until_closed()
    for recorded in seen.all():
        assert not recorded.malformed
        assert recorded.target in {rest.split(b" ")[0], b"/injected"} if b"injected" in rest else False
        assert not recorded.values("x-injected")


@pytest.mark.parametrize(
    "line",
    [
        b"GET /up/echo",
        b"GET /up/echo HTTP/0.9",
        b"GET /up/echo HTTP/1.2x",
        b"GET /up/echo HTTP/2.0",
        b"GET /up/echo http/1.1",
        b"GET  /up/echo HTTP/1.1",
        b"GET /up/echo  HTTP/1.1",
        b" GET /up/echo HTTP/1.1",
        b"GET /up/echo HTTP/1.1 ",
        b"G\x00T /up/echo HTTP/1.1",
        b"GET\t/up/echo\tHTTP/1.1",
        b"GET up/echo HTTP/1.1",
        b"GET ?x HTTP/1.1",
        b"GET ../up/echo HTTP/1.1",
        b"/up/echo HTTP/1.1",
        b"(GET) /up/echo HTTP/1.1",
    ],
)
def test_c7_malformed_request_lines_are_refused(relay: Relay, seen: Seen, line: bytes) -> None:
    assert is_refused(relay, line + b"\r\nHost: relay.test\r\n\r\n")
    assert not seen.all()


@pytest.mark.parametrize("size", [8_000, 32_000, 60_000, 65_500, 70_000, 200_000])
def test_c8_long_targets_are_relayed_or_too_long(relay: Relay, seen: Seen, size: int) -> None:
    rest = b"/echo?" + b"q" * size
    with RawClient(relay.host, relay.port) as client:
        client.send(request_bytes("GET", b"/up" + rest))
        try:
            response = client.read_response()
        except ClosedEarlyError:
            assert size > 65_536
        else:
            assert response.status in {200, 414, 431}
            if response.status == 200:
                assert seen.one().target == rest
    assert relay.get("/healthz").status == 200


def test_c8_a_target_of_16_kb_is_relayed(relay: Relay, seen: Seen) -> None:
    rest = b"/echo?" + b"q" * 16_384
    assert relay.get(b"/up" + rest).status == 200
    assert seen.one().target == rest
