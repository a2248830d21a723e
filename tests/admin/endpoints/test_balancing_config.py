"""The configuration of upstreams as one document, as reference 004 documents it."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from admin.tls_reload import Reloaded
from proxy.config import Backend, Config, ListenerTls, Route, Upstream
from tests.admin.api import Api, serving
from tests.admin.memory import Memory, Stored
from tests.admin.reference_004 import DOCUMENTED, ROUTES, UPSTREAMS

TLS = Config(tls=ListenerTls(certificate="/c.pem", key="/k.pem"))


@pytest.fixture
def with_tls() -> Iterator[Api]:
    memory = Memory()
    memory.about_balancing.config = TLS
    with serving(memory) as client:
        yield Api(client, memory)


def routes(api: Api) -> dict[str, Route]:
    return {prefix: stored.route for prefix, stored in api.memory.routes.stored.items()}


def test_the_documented_update(api: Api) -> None:
    answer = api.ask("PUT", "/api/v1/config", {"config": DOCUMENTED})
    assert answer.status_code == 200
    assert answer.json() == {"success": True, "message": "Changed.", "version": 1}
    assert (api.memory.about_balancing.upstreams, routes(api)) == (UPSTREAMS, ROUTES)


def test_what_is_shown_can_be_sent_back_and_makes_no_version(api: Api) -> None:
    api.ask("PUT", "/api/v1/config", {"config": DOCUMENTED})
    shown = api.ask("GET", "/api/v1/config").json()
    assert (shown["success"], shown["version"]) == (True, 1)
    assert shown["config"].keys() == {"server", "ssl", "backends", "routing", "upstreams", "grpc"}
    assert shown["config"]["server"]["port"] == 8000
    assert shown["config"]["ssl"] == {"enabled": False, "cert_file": None, "key_file": None}
    assert api.ask("PUT", "/api/v1/config", {"config": shown["config"]}).json()["version"] == 1


def test_routes_to_targets_stay_as_they_are(api: Api) -> None:
    api.memory.routes.stored["/x"] = Stored("/x", Route(target="https://x.example"), 0, 0)
    api.ask("PUT", "/api/v1/config", {"config": DOCUMENTED})
    assert routes(api) == {**ROUTES, "/x": Route(target="https://x.example")}
    assert api.ask("GET", "/api/v1/config").json()["config"]["routing"].keys() == {"/"}


REFUSED: list[tuple[Any, str]] = [
    ({"backends": {"default": [{"host": "h", "port": "1"}]}}, "backends.default[0].port: found text"),
    ({"routing": {"x": {"upstream": "absent"}}}, "routing.x.upstream: no upstream is called absent"),
    (
        {"backends": {"default": [{"host": "h", "id": "a"}, {"host": "h2", "id": "a"}]}},
        "upstreams.default.backends.1.id: a is there twice",
    ),
    (
        {"server": {"port": 9000}},
        "server.port: found 9000, in use is 8000, which only the settings file can change",
    ),
    ({"ssl": {"enabled": True}}, "ssl.enabled: found true, in use is false"),
    ({"backend": {}}, "backend: unknown section, the nearest known one is backends"),
    ({}, "config: empty, expected backends, routing or upstreams"),
]


def test_a_document_that_cannot_be_used_changes_nothing(api: Api) -> None:
    api.ask("PUT", "/api/v1/config", {"config": DOCUMENTED})
    for config, says in REFUSED:
        answer = api.ask("PUT", "/api/v1/config", {"config": config})
        assert (answer.status_code, answer.json()["error"]) == (400, "unusable")
        assert answer.json()["message"].startswith(says)
        assert (api.memory.about_balancing.upstreams, routes(api)) == (UPSTREAMS, ROUTES)
        assert len(api.memory.versions.versions) == 1


def test_what_is_no_document_is_refused(api: Api) -> None:
    bodies: list[Any] = [{}, [], {"config": []}, {"config": {}, "more": 1}, {"backends": {}}]
    for body in bodies:
        answer = api.ask("PUT", "/api/v1/config", body)
        assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")


def test_changes_are_recorded_with_the_sections_that_they_name(api: Api) -> None:
    api.ask("PUT", "/api/v1/config", {"config": DOCUMENTED})
    api.ask("PUT", "/api/v1/config", {"config": {"backends": {}}})
    assert api.outcomes() == [
        ("balancing.change", "backends, routing", "done"),
        ("balancing.change", "backends", "unusable"),
    ]


# ---- the listener's certificate -------------------------------------------------------------------------------------


def test_workers_are_asked_to_load_the_certificate_again(with_tls: Api) -> None:
    with_tls.memory.about_balancing.reloaded = Reloaded(2, 2)
    answer = with_tls.ask("POST", "/api/v1/config/reload-ssl")
    assert answer.status_code == 200
    assert answer.json() == {
        "success": True,
        "message": "2 of 2 workers serve what the certificate's file holds now.",
        "workers": 2,
    }
    with_tls.memory.about_balancing.reloaded = Reloaded(1, 2)
    answer = with_tls.ask("POST", "/api/v1/config/reload-ssl").json()
    assert (answer["workers"], "The others do not yet" in answer["message"]) == (1, True)
    with_tls.memory.about_balancing.away = True
    answer = with_tls.ask("POST", "/api/v1/config/reload-ssl")
    assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")
    assert [outcome for _, _, outcome in with_tls.outcomes()] == ["done", "done", "unavailable"]


def test_without_a_certificate_there_is_none_to_load_again(api: Api) -> None:
    answer = api.ask("POST", "/api/v1/config/reload-ssl")
    assert (answer.status_code, answer.json()["error"]) == (409, "no_certificate")
    assert "tls.certificate" in answer.json()["message"]


def test_the_listeners_files_are_told_and_may_be_said(with_tls: Api) -> None:
    config = with_tls.ask("GET", "/api/v1/config").json()["config"]
    assert config["ssl"] == {"enabled": True, "cert_file": "/c.pem", "key_file": "/k.pem"}
    assert with_tls.ask("PUT", "/api/v1/config", {"config": {"ssl": config["ssl"]}}).status_code == 200


def test_a_draining_backend_stays_one_through_a_document_that_says_so(api: Api) -> None:
    draining = Backend(url="http://127.0.0.1:8081", id="b", draining=True)
    api.memory.about_balancing.upstreams = {"default": Upstream(backends=(draining,))}
    shown = api.ask("GET", "/api/v1/config").json()["config"]
    assert api.ask("PUT", "/api/v1/config", {"config": shown}).status_code == 200
    assert api.memory.about_balancing.upstreams["default"].backends == (draining,)
    del shown["backends"]["default"][0]["draining"]
    assert api.ask("PUT", "/api/v1/config", {"config": shown}).status_code == 200
    now = msgspec.structs.replace(draining, draining=False)
    assert api.memory.about_balancing.upstreams["default"].backends == (now,), "active: true ends it"
