"""What the relay says itself: errors, ids, health, refusals to start; and that it gives nothing away (C80-C84)."""

import re
from pathlib import Path

import pytest

from loadtests.fake_upstream import UpstreamInThread
from loadtests.processes import free_port
from tests.end_to_end.asking import answer, raw
from tests.end_to_end.certificates import Certificates
from tests.end_to_end.harness import BODY_BYTES_MAX, Places, RelayFarm, Seen
from tests.end_to_end.raw_client import Header, Response, request_bytes
from tests.end_to_end.relay_process import REPOSITORY, Relay, refused_start

SECRET = b"Bearer canary-5ecret-0123456789"

# What no answer to a client may tell: where the upstream is, what the code looks like, what the client's secret was.
GIVEAWAYS = re.compile(
    rb"127\.0\.0\.1|localhost|\.py\b|Traceback|line \d|[a-z]Error\b|object at 0x|canary|"
    + re.escape(str(REPOSITORY).encode())
)

ERRORS = {
    "no route": ("GET", "/nowhere/x?key=canary-5ecret", [], None, 404),
    "climbing": ("GET", "/base/../../etc/passwd", [], None, 400),
    "trace": ("TRACE", "/up/echo", [], None, 405),
    "two hosts": ("GET", "/up/echo", [(b"Host", b"a"), (b"Host", b"b")], None, 400),
    "too large": ("POST", "/limited/echo", [], bytes(BODY_BYTES_MAX + 1), 413),
    "refused": ("GET", "/refused/x", [], None, 502),
    "unresolvable": ("GET", "/unresolvable/x", [], None, 502),
    "certificate": ("GET", "/tls-stranger/x", [], None, 502),
    "garbage": ("GET", "/up" + raw(b"canary-5ecret garbage\r\n\r\n", end="fin"), [], None, 502),
    "closed": ("POST", "/up/die", [], b"canary-5ecret", 502),
    "connect timeout": ("GET", "/black-hole/x", [], None, 504),
    "head timeout": ("GET", "/head-timeout/hold", [], None, 504),
}


def provoke(relay: Relay, name: str, *more: Header) -> Response:
    method, target, headers, body, _ = ERRORS[name]
    return relay.request(method, target, [*headers, *more], body)


@pytest.mark.parametrize("name", ERRORS)
def test_c80_every_error_is_json_with_type_message_and_id(relay: Relay, name: str) -> None:
    response = provoke(relay, name, (b"Authorization", SECRET), (b"Cookie", SECRET), (b"x-api-key", SECRET))
    assert response.status == ERRORS[name][4]
    assert response.value("content-type").partition(b";")[0] == b"application/json"
    assert response.framing == "length"
    document = response.json()
    assert set(document) == {"error"}
    assert {"type", "message", "request_id"} <= set(document["error"])
    assert re.fullmatch(r"[a-z][a-z_]*", document["error"]["type"])
    assert document["error"]["message"]
    assert document["error"]["request_id"].encode() == response.value("x-request-id")
    assert not GIVEAWAYS.search(response.body), response.body
    assert not GIVEAWAYS.search(response.head.partition(b"\r\n")[2]), response.head


@pytest.mark.parametrize("target", ["/nowhere", "/refused/x", "/base/../.."])
def test_c80_an_error_to_head_has_no_body(relay: Relay, target: str) -> None:
    with relay.client() as client:
        response = client.request("HEAD", target)
        assert response.status >= 400
        assert response.value("content-type").startswith(b"application/json")
        if not client.is_closed_by_peer():
            assert client.request("GET", "/healthz").status == 200, "an error's body after HEAD"


@pytest.mark.parametrize("name", ERRORS)
def test_c80_an_error_leaves_the_relay_as_it_was(relay: Relay, name: str) -> None:
    workers = relay.pids()
    provoke(relay, name)
    assert relay.get("/up/echo").status == 200
    assert relay.pids() == workers


def test_c80_error_types_tell_whose_fault_it_was(relay: Relay) -> None:
    types = {name: provoke(relay, name).error_type() for name in ERRORS if name not in {"certificate", "two hosts"}}
    assert len(set(types.values())) == len(types), types


def test_c81_secrets_of_any_place_are_in_no_error_and_no_log(relay: Relay) -> None:
    """The harness fails this test if the canary is anywhere in the relay's output."""
    places = [
        (b"Authorization", SECRET),
        (b"Proxy-Authorization", SECRET),
        (b"x-api-key", SECRET),
        (b"x-goog-api-key", SECRET),
        (b"api-key", SECRET),
        (b"Cookie", b"session=" + SECRET),
        (b"X-Auth-Token", SECRET),
        (b"Sec-WebSocket-Protocol", b"openai-insecure-api-key.canary-5ecret"),
    ]
    query = "&".join(f"{name}=canary-5ecret" for name in ("key", "api_key", "access_token", "token", "KEY"))
    more = "&".join(f"{name}=canary-5ecret" for name in ("api-key", "apikey", "client_secret", "password", "sig"))
    for target in (f"/up/echo?{query}&{more}", f"/nowhere?{query}", f"/refused/x?{query}&a=b", f"/up/die?{more}"):
        response = relay.request("POST", target, places, b'{"key":"canary-5ecret"}')
        if response.status != 200:
            assert b"canary" not in response.body
        assert b"canary" not in response.head
    relay.check_flushed_output()


def test_c81_secrets_in_odd_spellings_are_not_logged_either(relay: Relay) -> None:
    for target in (
        "/up/echo?k%65y=canary-5ecret",
        "/up/echo?a=b;key=canary-5ecret",
        "/up/echo?key=canary-5ecret=canary-5ecret",
        "/up/echo?a&key=canary-5ecret#x",
        "/up/echo?key%5B%5D=canary-5ecret",
        "/nowhere?x-goog-api-key=canary-5ecret",
        "/up/echo?X-Amz-Signature=canary-5ecret",
        "/up/echo?Key=canary-5ecret&&",
    ):
        relay.get(target)
    relay.check_flushed_output()


@pytest.mark.parametrize(
    "path", ["/bot123456:canary-5ecret/getMe", "/api/webhooks/1234/canary-5ecret", "/bot1:canary-5ecret"]
)
def test_c81_secrets_that_apis_put_into_paths_are_not_logged(relay: Relay, path: str) -> None:
    """Telegram and Discord, both default prefixes, carry the credential in the path."""
    assert relay.get(f"/up{path}").status == 404
    relay.check_flushed_output()


@pytest.mark.parametrize("request_id", [b"a", b"req_0123-ABC.x~y", b"x" * 128, b"!#$%&'*+-.^_`|~"])
def test_c82_a_sane_request_id_is_kept(relay: Relay, seen: Seen, request_id: bytes) -> None:
    assert relay.request("GET", "/up/echo", [(b"X-Request-Id", request_id)]).value("x-request-id") == request_id
    assert seen.one().values("x-request-id") in ([request_id], [])
    assert relay.request("GET", "/nowhere", [(b"X-Request-Id", request_id)]).value("x-request-id") == request_id


@pytest.mark.parametrize(
    "request_id", [b"", b"x" * 129, b"a b", b"a,b", b"a\tb", b'"a"', b"\xe9", b"<script>", b"a;b", b"{}", b"a/b"]
)
def test_c82_any_other_is_replaced(relay: Relay, request_id: bytes) -> None:
    for target in ("/up/echo", "/nowhere"):
        given = relay.request("GET", target, [(b"X-Request-Id", request_id)]).value("x-request-id")
        assert given != request_id
        assert re.fullmatch(rb"[\w.~-]{8,128}", given)


def test_c82_two_request_ids_are_not_believed(relay: Relay) -> None:
    response = relay.request("GET", "/up/echo", [(b"X-Request-Id", b"one"), (b"X-Request-Id", b"two")])
    assert len(response.values("x-request-id")) == 1


@pytest.mark.parametrize(
    "target", ["/up/echo", "/nowhere", "/refused/x", "/healthz", "/up" + answer(status=500), "/up" + answer(status=304)]
)
def test_c82_every_response_has_one_id_and_no_two_are_equal(relay: Relay, target: str) -> None:
    given = [relay.get(target).value("x-request-id") for _ in range(5)]
    assert len(set(given)) == 5


def test_c82_an_upstreams_own_id_does_not_make_two(relay: Relay) -> None:
    """OpenAI names its own `x-request-id`: support asks for it, so it is the one that must arrive."""
    response = relay.get("/up" + answer(body="x", header="x-request-id:req_upstream"))
    assert response.values("x-request-id") == [b"req_upstream"]


def test_c84_a_cors_preflight_is_relayed(relay: Relay, seen: Seen) -> None:
    fields = [
        (b"Origin", b"https://page.test"),
        (b"Access-Control-Request-Method", b"POST"),
        (b"Access-Control-Request-Headers", b"authorization,content-type"),
    ]
    allowed = ["access-control-allow-origin:https://page.test", "access-control-allow-methods:POST"]
    response = relay.request("OPTIONS", "/up" + answer(status=204, header=allowed, framing="none"), fields)
    assert response.status == 204
    assert response.values("access-control-allow-origin") == [b"https://page.test"]
    assert seen.one().method == "OPTIONS"
    assert seen.one().values("origin") == [b"https://page.test"]


def test_c84_the_relay_adds_no_cors_of_its_own(relay: Relay) -> None:
    for target in ("/up/echo", "/nowhere"):
        response = relay.request("GET", target, [(b"Origin", b"https://page.test")])
        assert not [name for name, _ in response.headers if name.lower().startswith(b"access-control")]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_is_answered_by_the_relay_itself(relay: Relay, seen: Seen, path: str) -> None:
    assert relay.get(path).status == 200
    assert relay.get(f"{path}?verbose").status == 200
    assert relay.request("HEAD", path).status == 200
    assert relay.get(f"{path}/x").status == 404
    assert not seen.all()


def test_health_moves_with_its_prefix(farm: RelayFarm, upstream: UpstreamInThread) -> None:
    """So that it can hide no route: with a prefix, `/healthz` belongs to the routes again."""
    configuration = {"server": {"health_prefix": "/_relay"}, "routes": {"/": upstream.url}}
    seen = Seen(upstream)
    with farm.running(configuration) as relay:
        assert relay.get("/_relay/healthz").status == 200
        assert relay.get("/_relay/readyz").status == 200
        before = len(seen.all())
        assert relay.get("/healthz").status == 404
        assert [recorded.target for recorded in seen.all()[before:]] == [b"/healthz"]


def test_a_root_route_takes_what_no_other_takes(farm: RelayFarm, upstream: UpstreamInThread) -> None:
    routes = {"/": f"{upstream.url}/root", "/echo": f"{upstream.url}/echo"}
    with farm.running({"routes": routes}) as relay:
        seen = Seen(upstream)
        relay.get("/")
        relay.get("/a/b")
        relay.get("/echo/c")
        assert seen.targets() == [b"/root/", b"/root/a/b", b"/echo/c"]


def test_start_says_where_it_listens(relay: Relay) -> None:
    assert f"http://127.0.0.1:{relay.port}" in relay.output()


def test_a_busy_port_is_refused_in_one_line(relay: Relay, tmp_path: Path) -> None:
    configuration = {"server": {"port": relay.port}, "routes": {"/a": "http://a.test"}}
    assert str(relay.port) in refused_start(tmp_path, configuration)
    assert relay.get("/healthz").status == 200


@pytest.mark.parametrize(
    ("configuration", "told"),
    [
        ({"routes": {"/a": {"target": "http://a.test", "timeout_s": 5}}}, "timeout_s"),
        ({"routes": {"/a": "ftp://a.test"}}, "ftp"),
        ({"routes": {"no-slash": "http://a.test"}}, "no-slash"),
        ({"sever": {"port": 1}}, "sever"),
        ({"server": {"port": "many"}}, "port"),
        ("routes: [", "relaygate.yaml"),
    ],
)
def test_bad_yaml_is_refused_in_one_line(tmp_path: Path, configuration: object, told: str) -> None:
    assert told in refused_start(tmp_path, configuration)


@pytest.mark.parametrize("content", ["", "this is no certificate"])
def test_an_unusable_certificate_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    file = tmp_path / "server.pem"
    file.write_text(content)
    configuration = {
        "server": {"port": free_port()},
        "tls": {"certificate": str(file), "key": str(file)},
        "routes": {"/a": "http://a.test"},
    }
    refused_start(tmp_path, configuration)


def test_a_certificate_and_a_key_that_do_not_fit_are_refused_in_one_line(
    tmp_path: Path, certificates: Certificates
) -> None:
    tls = {"certificate": str(certificates.good.certificate), "key": str(certificates.misnamed.key)}
    refused_start(tmp_path, {"server": {"port": free_port()}, "tls": tls, "routes": {"/a": "http://a.test"}})


@pytest.mark.parametrize("field", ["ca", "certificate"])
def test_unusable_tls_files_of_a_route_are_refused_in_one_line(tmp_path: Path, field: str) -> None:
    route = {"target": "https://a.test", "tls": {field: str(tmp_path / "absent.pem")}}
    configuration = {"server": {"port": free_port()}, "routes": {"/a": route}}
    assert "absent.pem" in refused_start(tmp_path, configuration)


def test_a_dead_upstream_does_not_keep_the_relay_from_starting(farm: RelayFarm, places: Places) -> None:
    with farm.running({"routes": {"/dead": f"http://{places.refused}"}}) as relay:
        assert relay.get("/readyz").status == 200


def test_two_workers_serve_and_stop_together(farm: RelayFarm, upstream: UpstreamInThread) -> None:
    with farm.running({"server": {"workers": 2}, "routes": {"/up": upstream.url}}) as relay:
        assert len(relay.pids()) >= 3
        for _ in range(20):
            with relay.client() as client:
                client.send(request_bytes("GET", "/up/echo"))
                assert client.read_response().status == 200
