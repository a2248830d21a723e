"""Backends, as reference 004 documents them."""

from typing import Any

import pytest

from proxy.config import Backend, HealthCheck, Upstream
from tests.admin.api import Api
from tests.admin.balancing_memory import Health

BACKENDS = (
    Backend(url="http://127.0.0.1:8081", id="backend1", health_check=HealthCheck()),
    Backend(url="http://127.0.0.1:8082", id="backend2", weight=50),
)
ADDITION = {"upstream": "default", "backend": {"id": "backend3", "host": "127.0.0.1", "port": 8083, "weight": 50}}
NAMED = {"upstream": "default", "backend_id": "backend1"}
QUERY = "upstream=default&backend_id=backend1"


@pytest.fixture(autouse=True)
def upstreams(api: Api) -> None:
    api.memory.about_balancing.upstreams = {"default": Upstream(backends=BACKENDS), "other": Upstream()}


def backends(api: Api, upstream: str = "default") -> dict[str, Backend]:
    return {one.id: one for one in api.memory.about_balancing.upstreams[upstream].backends}


# ---- as documented --------------------------------------------------------------------------------------------------


def test_the_list_of_an_upstream(api: Api) -> None:
    api.memory.about_balancing.health["default", "backend1"] = Health(
        False, 1_800_000_000.0, 1_800_000_030.5, "refused"
    )
    answer = api.ask("GET", "/api/v1/backends?upstream=default")
    assert answer.status_code == 200
    body = answer.json()
    assert (body["success"], list(body["backends"])) == (True, ["default"])
    first, second = body["backends"]["default"]
    assert first == {
        "id": "backend1",
        "name": "",
        "host": "127.0.0.1",
        "port": 8081,
        "scheme": "http",
        "weight": 100,
        "active": True,
        "max_conn": 1000,
        "draining": False,
        "priority": 0,
        "health_check": {
            "path": "/health",
            "interval": "30s",
            "timeout": "5s",
            "failures": 3,
            "successes": 1,
            "statuses": [],
            "body": None,
        },
        "health": {"healthy": False, "since": 1_800_000_000_000, "checked": 1_800_000_030_500, "reason": "refused"},
    }
    assert (second["id"], second["weight"], second["health"]) == ("backend2", 50, None)


def test_without_an_upstream_all_are_listed(api: Api) -> None:
    for path in ("/api/v1/backends", "/api/v1/backends?upstream="):
        assert api.ask("GET", path).json()["backends"].keys() == {"default", "other"}
    assert api.ask("GET", "/api/v1/backends?upstream=absent").json()["error"] == "not_found"


def test_a_backend_is_added(api: Api) -> None:
    answer = api.ask("POST", "/api/v1/backends/add", ADDITION)
    assert answer.status_code == 200
    assert answer.json()["success"] is True
    assert answer.json()["backend"].items() >= ADDITION["backend"].items()  # type: ignore[attr-defined]
    assert backends(api)["backend3"] == Backend(url="http://127.0.0.1:8083", id="backend3", weight=50)
    again = api.ask("POST", "/api/v1/backends/add", ADDITION)
    assert (again.status_code, again.json()["error"]) == (409, "duplicate")


def test_the_first_backend_makes_its_upstream(api: Api) -> None:
    body = {"upstream": "new", "backend": {"host": "b.example"}}
    assert api.ask("POST", "/api/v1/backends/add", body).json()["backend"]["id"] == "new-b.example-80"
    assert list(backends(api, "new")) == ["new-b.example-80"]


def test_a_backend_is_removed(api: Api) -> None:
    for query, body in ((f"?{QUERY}", None), ("", NAMED), ("?upstream=default", NAMED)):
        api.memory.about_balancing.upstreams["default"] = Upstream(backends=BACKENDS)
        answer = api.ask("DELETE", f"/api/v1/backends/remove{query}", body)
        assert (answer.status_code, answer.json()) == (200, {"success": True, "message": "Removed."})
        assert list(backends(api)) == ["backend2"]
        assert api.ask("DELETE", f"/api/v1/backends/remove{query}", body).status_code == 404


def test_a_backend_is_updated(api: Api) -> None:
    body = {"upstream": "default", "backend": {"id": "backend1", "weight": 200}}
    answer = api.ask("PUT", "/api/v1/backends/update", body)
    assert (answer.status_code, answer.json()["backend"]["weight"]) == (200, 200)
    assert backends(api)["backend1"] == Backend(
        url="http://127.0.0.1:8081", id="backend1", weight=200, health_check=HealthCheck()
    )


def test_a_disconnected_backend_drains_until_it_is_active_again(api: Api) -> None:
    for query, body in ((f"?{QUERY}", None), ("", NAMED)):
        answer = api.ask("POST", f"/api/v1/backends/disconnect{query}", body)
        assert answer.status_code == 200
        assert (answer.json()["backend"]["draining"], answer.json()["backend"]["active"]) == (True, True)
        assert backends(api)["backend1"].draining
        again = {"upstream": "default", "backend": {"id": "backend1", "active": True}}
        assert api.ask("PUT", "/api/v1/backends/update", again).json()["backend"]["draining"] is False
        assert backends(api) == {one.id: one for one in BACKENDS}


# ---- refusals -------------------------------------------------------------------------------------------------------


REFUSED: list[tuple[str, str, Any, int, str]] = [
    ("POST", "add", {"upstream": "default"}, 400, "backend: missing"),
    ("POST", "add", {"upstream": "default", "backend": {"port": 1}}, 400, "backend.host: missing"),
    ("POST", "add", {"upstream": "default", "backend": 1}, 400, "backend: found a number"),
    ("POST", "add", {"upstream": "a b", "backend": {"host": "h"}}, 400, "backend.a b: found 'a b'"),
    ("POST", "add", {"upstream": "u", "backend": {"host": "h", "wieght": 1}}, 400, "backend.wieght: unknown field"),
    ("PUT", "update", {"upstream": "default", "backend": {"weight": 1}}, 400, "backend.id: missing"),
    ("PUT", "update", {"upstream": "default", "backend": {"id": "backend1", "weight": 0}}, 400, "backend.weight: "),
    ("PUT", "update", {"upstream": "default", "backend": {"id": "x", "weight": 1}}, 404, "The upstream has no"),
    ("PUT", "update", {"upstream": "x", "backend": {"id": "backend1"}}, 404, "There is no upstream"),
    ("DELETE", "remove", None, 400, "upstream: missing"),
    ("DELETE", "remove?upstream=default", None, 400, "backend_id: missing"),
    ("DELETE", "remove?upstream=default&backend_id=x", None, 404, "The upstream has no backend"),
    ("DELETE", "remove?upstream=other", NAMED, 400, "upstream: found one in the query and another one in the body"),
    ("POST", "disconnect", {"upstream": "default", "id": "x"}, 400, "id: unknown field, expected one of upstream"),
    ("POST", "disconnect?upstream=x&backend_id=backend1", None, 404, "There is no upstream"),
]


def test_what_cannot_be_done_is_told(api: Api) -> None:
    for method, path, body, status, says in REFUSED:
        answer = api.ask(method, f"/api/v1/backends/{path}", body)
        assert answer.status_code == status
        assert answer.json()["message"].startswith(says)
        assert backends(api) == {one.id: one for one in BACKENDS}


def test_every_change_is_recorded_with_its_outcome(api: Api) -> None:
    api.ask("POST", "/api/v1/backends/add", ADDITION)
    api.ask("POST", "/api/v1/backends/add", ADDITION)
    api.ask("PUT", "/api/v1/backends/update", {"upstream": "default", "backend": {"id": "backend3", "weight": 1}})
    api.ask("POST", "/api/v1/backends/disconnect?upstream=default&backend_id=backend3")
    api.ask("DELETE", "/api/v1/backends/remove?upstream=default&backend_id=backend3")
    api.ask("DELETE", "/api/v1/backends/remove?upstream=default&backend_id=backend3")
    api.ask("POST", "/api/v1/backends/add", {"upstream": "default", "backend": {}})
    assert api.outcomes() == [
        ("backend.add", "default/backend3", "done"),
        ("backend.add", "default/backend3", "duplicate"),
        ("backend.change", "default/backend3", "done"),
        ("backend.disconnect", "default/backend3", "done"),
        ("backend.remove", "default/backend3", "done"),
        ("backend.remove", "default/backend3", "not_found"),
        ("backend.add", "default", "unusable"),
    ]
    assert api.memory.actions.actions[2].detail == {"fields": ["id", "weight"]}
