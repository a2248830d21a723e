"""Reference 004's documents as upstreams and routes, and back."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.rules.speedmimi import seconds
from admin.rules.speedmimi_documents import (
    BackendDocument,
    OptionsDocument,
    RoutingDocument,
    applied,
    authority,
    changed_backend,
    document,
    duration,
    id_in,
    new_backend,
    of_backend,
)
from proxy.config import (
    Access,
    Backend,
    Balancer,
    ConfigError,
    Ejection,
    HealthCheck,
    Protocols,
    Route,
    Upstream,
)
from tests.admin.reference_004 import BACKEND, DOCUMENTED, ROUTES, UPSTREAMS

TUNED = msgspec.structs.replace(
    BACKEND,
    weight=7,
    max_connections=0,
    priority=2,
    draining=True,
    health_check=HealthCheck(path="/up", interval_s=0.5, statuses=(200, 204), body="ok", successes=2),
)


def refusal(given_: dict[str, Any], upstreams: Any = UPSTREAMS, routes: Any = ROUTES) -> str:
    with pytest.raises(ConfigError) as caught:
        applied(given_, upstreams, routes)
    return str(caught.value)


# ---- whole documents ------------------------------------------------------------------------------------------------


def test_the_documented_file_is_an_upstream_and_a_route_to_it() -> None:
    assert applied(DOCUMENTED, {}, {}) == (UPSTREAMS, ROUTES)


def test_what_is_shown_has_the_references_names_and_ours_beside_them() -> None:
    shown = document(UPSTREAMS, ROUTES)
    assert shown["backends"]["default"][0].items() >= {"id": "backend1", "max_conn": 1000, "draining": False}.items()
    check = shown["backends"]["default"][0]["health_check"]
    assert (check["interval"], check["timeout"], check["statuses"]) == ("30s", "5s", [])
    assert shown["routing"] == {"/": DOCUMENTED["routing"]["default"]}
    assert shown["upstreams"] == {}


WHOLE = (
    {
        "default": Upstream(backends=(TUNED, Backend(url="https://[2001:db8::1]:8443", id="v6", active=False))),
        "spare.one": Upstream(balancer=Balancer.WEIGHT, ejection=Ejection(failures=None), slow_start_s=1.5),
    },
    {
        **ROUTES,
        "/api": Route(upstream="default", base="/api", access=Access.TOKEN, head_timeout_s=30.0),
        "/moved": Route(upstream="spare.one", base="/v1", protocols=Protocols()),
        "/bare": Route(upstream="spare.one"),
        "/elsewhere": Route(target="https://x.example"),
    },
)


def test_what_is_shown_changes_nothing_when_it_is_sent_back() -> None:
    shown = msgspec.json.decode(msgspec.json.encode(document(*WHOLE)))
    assert applied(shown, *WHOLE) == WHOLE
    alone = {prefix: route for prefix, route in WHOLE[1].items() if route.upstream is not None}
    assert applied(shown, {}, {}) == (WHOLE[0], alone)


def test_a_path_is_the_base_too_since_the_reference_relays_it_as_it_came() -> None:
    _, routes = applied({"routing": {"a": {"path": "/api/", "upstream": "default"}}}, UPSTREAMS, {})
    assert routes == {"/api": Route(upstream="default", base="/api")}
    assert "base" not in document({}, routes)["routing"]["/api"]
    moved = {"/api": Route(upstream="default", base="")}
    assert document({}, moved)["routing"]["/api"]["base"] == ""


def test_backends_and_routing_are_whole_but_for_routes_to_targets() -> None:
    upstreams, routes = applied({"backends": {"new": [{"host": "b.example"}]}, "routing": {}}, *WHOLE)
    assert upstreams == {"new": Upstream(backends=(Backend(url="http://b.example", id="new-b.example-80"),))}
    assert routes == {"/elsewhere": WHOLE[1]["/elsewhere"]}


def test_what_is_not_given_stays() -> None:
    routing = {"routing": document(*WHOLE)["routing"]}
    assert applied(routing, *WHOLE) == WHOLE
    assert applied({}, *WHOLE) == WHOLE


def test_fields_that_the_reference_does_not_have_stay_where_they_are_not_given_and_its_own_become_defaults() -> None:
    before = {"default": Upstream(backends=(TUNED,), retry_max=7)}
    routes = {"/": Route(upstream="default", balancer=Balancer.WEIGHT, access=Access.TOKEN)}
    plain: dict[str, Any] = {
        "backends": {"default": [{"id": "backend1", "host": "b.example", "health_check": {"timeout": "1s"}}]},
        "routing": {"any": {"upstream": "default"}},
    }
    upstreams, after = applied(plain, before, routes)
    check = HealthCheck(timeout_s=1.0, statuses=(200, 204), body="ok", successes=2)
    backend = Backend(url="http://b.example", id="backend1", priority=2, draining=True, health_check=check)
    assert upstreams == {"default": Upstream(backends=(backend,), retry_max=7)}
    assert after == {"/": Route(upstream="default", access=Access.TOKEN)}
    del plain["backends"]["default"][0]["health_check"]
    assert applied(plain, before, routes)[0]["default"].backends[0].health_check is None


def test_the_further_settings_of_an_upstream_change_as_they_are_given() -> None:
    given_ = {
        "upstreams": {"default": {"retry_max": 1, "health_check": {"path": "/h"}, "ejection": {"failures": None}}}
    }
    upstreams, routes = applied(given_, UPSTREAMS, ROUTES)
    assert routes == ROUTES
    assert upstreams["default"] == Upstream(
        backends=(BACKEND,), retry_max=1, health_check=HealthCheck(path="/h"), ejection=Ejection(failures=None)
    )


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({"backends": []}, "backends: found a list, expected an object"),
        ({"backends": {"default": {}}}, "backends.default: expected a list of backends"),
        ({"backends": {"a b": []}}, "backends.a b: found 'a b', expected 1 to 64 letters, digits"),
        ({"backends": {"u": [1]}}, "backends.u[0]: found a number, expected an object"),
        ({"backends": {"u": [{"port": 1}]}}, "backends.u[0].host: missing"),
        ({"backends": {"u": [{"host": "a/b"}]}}, "backends.u[0].host: found 'a/b', expected a host name"),
        ({"backends": {"u": [{"host": "a", "port": 0}]}}, "backends.u[0].port: found a number, expected an integer"),
        ({"backends": {"u": [{"host": "a", "scheme": "ftp"}]}}, "backends.u[0].scheme: found text, expected one of"),
        ({"backends": {"u": [{"host": "a", "weight": "5"}]}}, "backends.u[0].weight: found text, expected an integer"),
        ({"backends": {"u": [{"host": "a", "wieght": 5}]}}, "backends.u[0].wieght: unknown field, the nearest known"),
        ({"backends": {"u": [{"host": "a", "id": "a b"}]}}, "backends.u[0].id: found 'a b', expected 1 to 400"),
        (
            {"backends": {"u": [{"host": "a", "health_check": {"interval": "30"}}]}},
            "backends.u[0].health_check.interval: found '30', expected a duration such as 30s",
        ),
        (
            {"backends": {"u": [{"host": "a", "health_check": {"interval": "1ms"}}]}},
            "backends.u[0].health_check.interval: found '1ms', expected a number from 0.1",
        ),
        (
            {"backends": {"u": [{"host": "a", "health_check": {"path": "x"}}]}},
            "backends.u[0].health_check.path: found 'x', expected a path",
        ),
        ({"backends": {}}, "routing./.upstream: no upstream is called default, there is none"),
        ({"routing": {"x": {}}}, "routing.x.upstream: missing"),
        ({"routing": {"x": {"upstream": "defalt"}}}, "routing.x.upstream: no upstream is called defalt, the nearest"),
        ({"routing": {"x": {"upstream": "default", "path": "x"}}}, "routing.x.path: found 'x', expected a path that"),
        (
            {"routing": {"x": {"upstream": "default", "load_balancer": "wieght"}}},
            "routing.x.load_balancer: found text, expected one of ip_hash, ",
        ),
        (
            {"routing": {"x": {"upstream": "default", "protocols": {"sse": "x"}}}},
            "routing.x.protocols.sse: found text, expected one of ip_hash, ",
        ),
        ({"routing": {"x": {"upstream": "default", "target": "https://x"}}}, "routing.x.target: unknown field"),
        ({"routing": {"x": {"upstream": "default", "via": "a b"}}}, "routing.x.via: found 'a b', expected a name"),
        ({"routing": {n: {"upstream": "default"} for n in "xy"}}, "routing.y.path: / is there twice"),
        ({"upstreams": {"defalt": {}}}, "upstreams.defalt: no upstream is called defalt, the nearest known one is"),
        ({"upstreams": {"default": {"backends": []}}}, "upstreams.default.backends: unknown field"),
        ({"upstreams": {"default": {"retry_max": -1}}}, "upstreams.default.retry_max: found a number, expected an"),
    ],
)
def test_what_is_wrong_is_named_as_the_document_spells_it(given_: dict[str, Any], says: str) -> None:
    assert refusal(given_).startswith(says)


def test_a_path_that_leads_to_a_target_is_not_taken_away() -> None:
    routes = {"/x": Route(target="https://x.example")}
    wanted = {"routing": {"one": {"path": "/x", "upstream": "default"}}}
    assert refusal(wanted, routes=routes) == "routing.one.path: /x leads to a target, expected another path"


# ---- one backend ----------------------------------------------------------------------------------------------------


def test_the_documented_addition() -> None:
    added = new_backend("default", {"id": "backend3", "host": "127.0.0.1", "port": 8083, "weight": 50}, "backend")
    assert added == Backend(url="http://127.0.0.1:8083", id="backend3", weight=50)
    assert of_backend(added) == {
        "id": "backend3",
        "name": "",
        "host": "127.0.0.1",
        "port": 8083,
        "scheme": "http",
        "weight": 50,
        "active": True,
        "max_conn": 1000,
        "draining": False,
        "priority": 0,
        "health_check": None,
    }


@pytest.mark.parametrize(
    ("given_", "id_", "url", "shown"),
    [
        ({"host": "B.example"}, "u-b.example-80", "http://b.example", ("b.example", 80, "http")),
        ({"host": "b", "port": 80}, "u-b-80", "http://b", ("b", 80, "http")),
        ({"host": "b", "scheme": "https"}, "u-b-443", "https://b", ("b", 443, "https")),
        (
            {"host": "2001:db8::1", "port": 81},
            "u-2001:db8::1-81",
            "http://[2001:db8::1]:81",
            ("2001:db8::1", 81, "http"),
        ),
    ],
)
def test_a_place_is_a_url_and_gives_the_id(given_: Any, id_: str, url: str, shown: tuple[Any, ...]) -> None:
    backend = new_backend("u", given_, "backend")
    assert (backend.id, backend.url) == (id_, url)
    assert tuple(of_backend(backend)[name] for name in ("host", "port", "scheme")) == shown
    assert url.endswith(f"//{authority(backend)}")


def test_the_documented_update_changes_what_it_names() -> None:
    assert changed_backend(TUNED, {"id": "backend1", "weight": 200}, "backend") == msgspec.structs.replace(
        TUNED, weight=200
    )


@pytest.mark.parametrize(
    ("given_", "changes"),
    [
        ({"active": True}, {"draining": False}),
        ({"active": True, "draining": True}, {}),
        ({"active": False}, {"active": False}),
        ({"draining": False}, {"draining": False}),
        ({"port": 9}, {"url": "http://127.0.0.1:9"}),
        ({"host": "b.example"}, {"url": "http://b.example:8081"}),
        ({"scheme": "https"}, {"url": "https://127.0.0.1:8081"}),
        ({"health_check": None}, {"health_check": None}),
        ({"max_conn": -1}, {"max_connections": -1}),
        ({"health": {"healthy": False}}, {}),
    ],
)
def test_each_field_changes_alone(given_: dict[str, Any], changes: dict[str, Any]) -> None:
    assert changed_backend(TUNED, given_, "backend") == msgspec.structs.replace(TUNED, **changes)


def test_a_health_check_changes_by_field_or_begins_with_defaults() -> None:
    changed = changed_backend(TUNED, {"health_check": {"timeout": "1m30s"}}, "backend").health_check
    assert changed == msgspec.structs.replace(TUNED.health_check, timeout_s=90.0)  # type: ignore[type-var]
    without = msgspec.structs.replace(TUNED, health_check=None)
    assert changed_backend(without, {"health_check": {}}, "backend").health_check == HealthCheck()


def test_a_backend_is_named_by_its_id() -> None:
    assert id_in({"id": "b", "weight": 1}, "backend") == "b"
    for wrong, says in (
        ({}, "backend.id: missing"),
        ({"id": ""}, "backend.id: missing"),
        ([], "backend: found a list"),
    ):
        with pytest.raises(ConfigError, match=says):
            id_in(wrong, "backend")


def test_every_field_of_ours_has_a_place_in_the_documents() -> None:
    """So that a new one is not forgotten here."""
    names = {"url": "host", "max_connections": "max_conn"}
    ours = {names.get(name, name) for name in Backend.__struct_fields__}
    assert ours | {"port", "scheme"} == set(BackendDocument.__struct_fields__)
    assert {*OptionsDocument.__struct_fields__, "backends"} == set(Upstream.__struct_fields__)
    elsewhere = {"target", "max_connections", "tls", "balancer", "load_balancer", "path"}
    assert set(RoutingDocument.__struct_fields__) ^ set(Route.__struct_fields__) == elsewhere


# ---- durations ------------------------------------------------------------------------------------------------------


@given(st.floats(0.05, 31_536_000))
def test_a_duration_reads_as_what_it_was_written_from(seconds_: float) -> None:
    assert seconds(duration(seconds_)) == seconds_


def test_durations_are_short() -> None:
    assert [duration(one) for one in (30.0, 0.5, 90.0, 86400.0, 1e-5)] == ["30s", "0.5s", "90s", "86400s", "0.00001s"]
