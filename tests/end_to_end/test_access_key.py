"""One access key for all, `API_ACCESS_KEY`: no Redis, no quota, and never a byte of it upstream."""

import pytest

from loadtests.fake_upstream import UpstreamInThread
from tests.end_to_end.harness import RelayFarm, Seen
from tests.end_to_end.raw_client import Header
from tests.end_to_end.relay_process import CANARY, Relay

KEY = f"access-{CANARY}"


@pytest.fixture(name="gated", scope="module")
def fixture_gated(farm: RelayFarm, upstream: UpstreamInThread) -> Relay:
    routes = {
        "/up": upstream.url,
        "/open": {"target": upstream.url, "access": "public"},
        "/closed": {"target": upstream.url, "access": "token"},
        "/fixed": {"target": upstream.url, "credential": "fixed"},
    }
    environment = {"API_ACCESS_KEY": KEY, "FACTORY_API_KEY": f"fixed-{CANARY}"}
    return farm.start({"routes": routes}, environment=environment)


@pytest.mark.parametrize(
    "field",
    [
        (b"authorization", b"Bearer " + KEY.encode()),
        (b"x-api-key", KEY.encode()),
        (b"x-goog-api-key", KEY.encode()),
        (b"accessToken", KEY.encode()),
        (b"access-token", KEY.encode()),
    ],
)
@pytest.mark.parametrize("prefix", ["/up", "/closed", "/fixed"])
def test_who_shows_it_is_let_in_and_it_stays_here(gated: Relay, seen: Seen, prefix: str, field: Header) -> None:
    response = gated.request("POST", f"{prefix}/echo", [field, (b"x-mine", b"1")], b"hello")
    assert response.status == 200
    request = seen.one()
    assert KEY.encode() not in request.head
    assert request.values("x-mine") == [b"1"]
    assert bytes(request.body) == b"hello"


def test_the_clients_own_credential_passes_beside_it(gated: Relay, seen: Seen) -> None:
    fields = [(b"access-token", KEY.encode()), (b"authorization", b"Bearer sk-own")]
    assert gated.request("GET", "/up/echo", fields).status == 200
    assert seen.one().values("authorization") == [b"Bearer sk-own"]
    assert seen.one().values("access-token") == []


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ([], "no_token"),
        ([(b"authorization", b"Basic dTpw")], "no_token"),
        ([(b"authorization", b"Bearer wrong")], "wrong_token"),
        ([(b"x-api-key", KEY.encode() + b"x")], "wrong_token"),
        ([(b"x-api-key", KEY.encode()), (b"x-api-key", KEY.encode())], "no_token"),
    ],
)
def test_others_are_refused_before_anything_goes_upstream(
    gated: Relay, seen: Seen, fields: list[Header], word: str
) -> None:
    response = gated.request("POST", "/up/echo", fields, b"hello")
    assert (response.status, response.error_type()) == (401, word)
    assert response.values("www-authenticate") == [b"Bearer"]
    assert seen.all() == []


def test_a_public_route_asks_for_nothing(gated: Relay, seen: Seen) -> None:
    assert gated.request("GET", "/open/echo", [(b"authorization", b"Bearer mine")]).status == 200
    assert seen.one().values("authorization") == [b"Bearer mine"]


def test_health_is_open_to_all(gated: Relay) -> None:
    assert gated.get("/healthz").status == 200


def test_a_handshake_needs_it_too(gated: Relay, seen: Seen) -> None:
    fields = [
        (b"upgrade", b"websocket"),
        (b"connection", b"upgrade"),
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-key", b"AAAAAAAAAAAAAAAAAAAAAA=="),
    ]
    response = gated.request("GET", "/up/ws", fields)
    assert (response.status, response.error_type()) == (401, "no_token")
    assert seen.all() == []
