"""The application as a whole: its error answers, its fields, its document."""

import logging
from collections.abc import Iterable

import pytest

from admin.app import SECURITY_FIELDS
from admin.request_bodies import BYTES_MAX
from admin.rules import cookies
from tests.admin.api import AUTHORIZED, TOKEN, Api, serving
from tests.admin.memory import Memory

BODY = {"prefix": "/x", "target": "https://x.test"}


class Outage(Exception):  # noqa: N818 - it says what happened
    """What a service of this test says when its database is away."""


class Broken:
    """A service whose every method raises."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> object:
        async def fail(*_: object, **__: object) -> None:
            raise self._error

        return fail


def broken(error: Exception) -> Memory:
    memory = Memory()
    memory.routes = Broken(error)  # type: ignore[assignment]
    return memory


def test_what_nobody_expected_is_told_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    memory = broken(RuntimeError("password=s3cret"))
    with caplog.at_level(logging.INFO), serving(memory) as client:
        answers = [
            client.get("/api/mappings", headers=AUTHORIZED),
            client.post("/api/mappings", json=BODY, headers=AUTHORIZED),
        ]
    for answer in answers:
        assert answer.status_code == 500
        assert answer.json() == {
            "success": False,
            "error": "internal",
            "message": "The admin API failed; its log says more.",
        }
    assert [record.exc_info for record in caplog.records if record.name == "relaygate"] == [None, None]
    assert "the admin API failed: GET /api/mappings: RuntimeError at Broken." in caplog.text
    assert "s3cret" not in caplog.text
    assert [(one.action, one.outcome) for one in memory.actions.actions] == [("mapping.create", "failed")]


def test_an_outage_of_the_database_is_told_as_such() -> None:
    with serving(broken(Outage("postgresql://10.0.0.1")), outages=[Outage]) as client:
        for method in ("GET", "POST"):
            answer = client.request(method, "/api/mappings", json=BODY, headers=AUTHORIZED)
            assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")
            assert "10.0.0.1" not in answer.text


def test_a_log_of_actions_that_cannot_be_written_undoes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    memory = Memory()
    memory.actions = Broken(Outage("s3cret"))  # type: ignore[assignment]
    with serving(memory) as client:
        assert client.post("/api/mappings", json=BODY, headers=AUTHORIZED).status_code == 201
    assert caplog.messages == ["an action is not in the log of actions: mapping.create by token: Outage"]


@pytest.mark.parametrize(
    ("method", "path", "status", "word"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/api/mappings/%FF", 404, "not_found"),
        ("PATCH", "/api/mappings", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
        ("GET", "/api/versions/x", 404, "not_found"),
    ],
)
def test_what_the_http_layer_refuses_has_the_same_shape(
    api: Api, method: str, path: str, status: int, word: str
) -> None:
    answer = api.ask(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["success"] is False
    assert answer.json()["error"] == word
    assert answer.json().keys() == {"success", "error", "message"}
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize(
    "path",
    [
        "/admin",
        "/admin/nowhere",
        "/admin/keys",
        "/admin/keys/",
        "/admin/keys/batch",
        "/admin/keys/no%20id",
        "/admin/keys/a/b/c",
        "/api",
        "/api/nowhere",
        "/api/mappings",
        "/api/mappings/%FF",
        "/api/versions/x",
        "/api/logout",
    ],
)
def test_who_may_not_use_the_api_hears_that_before_what_is_there(api: Api, method: str, path: str) -> None:
    answer = api.client.request(method, path)
    assert (answer.status_code, answer.json()["error"]) == (401, "unauthorized")
    assert "allow" not in answer.headers
    answer = api.client.request(method, path, headers={"x-admin-key": "wrong"})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "path", ["/api/login", "/api/login/", "/api/admin/login", "/health", "/readyz", "/schema/x", "/"]
)
def test_a_public_path_says_what_is_wrong_with_the_request(api: Api, path: str) -> None:
    assert api.client.request("PATCH", path).status_code in (404, 405)


def test_sessions_that_cannot_be_looked_up_are_an_outage_wherever_a_request_goes() -> None:
    memory = Memory()
    memory.settings = Broken(Outage("postgresql://10.0.0.1"))  # type: ignore[assignment]
    with serving(memory, outages=[Outage]) as client:
        for path in ("/api/nowhere", "/api/mappings"):
            answer = client.get(path, headers={"cookie": f"{cookies.PLAIN_NAME}={'a' * 43}"})
            assert (answer.status_code, answer.json()["error"]) == (503, "unavailable"), path


def test_a_body_over_the_bound_is_refused(api: Api) -> None:
    def chunks() -> Iterable[bytes]:
        yield from [b" " * 65536] * (BYTES_MAX // 65536)
        yield b" "

    for content in (b" " * (BYTES_MAX + 1), chunks()):
        answer = api.client.post("/api/mappings", content=content, headers=AUTHORIZED)
        assert (answer.status_code, answer.json()["error"]) == (413, "body_too_large")


@pytest.mark.parametrize("path", ["/health", "/nowhere", "/api/mappings", "/schema/openapi.json"])
def test_every_answer_has_the_security_fields(api: Api, path: str) -> None:
    for headers in ({}, AUTHORIZED):
        answer = api.client.get(path, headers=headers)
        for name, value in SECURITY_FIELDS:
            assert answer.headers.get_list(name.decode()) == [value.decode()]


def test_nothing_is_switched_on_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITESTAR_DEBUG", "1")
    monkeypatch.setenv("LITESTAR_PDB", "1")
    with serving(broken(RuntimeError("s3cret"))) as client:
        answer = client.get("/api/mappings", headers=AUTHORIZED)
    assert answer.status_code == 500
    assert "s3cret" not in answer.text


def test_the_document_is_served_without_a_login_and_describes_every_body(api: Api) -> None:
    document = api.client.get("/schema/openapi.json").json()
    described = {
        (method, path): operation
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert {(method, path) for (method, path), operation in described.items() if "requestBody" in operation} == {
        ("post", "/api/admin/login"),
        ("post", "/api/login"),
        ("post", "/api/mappings"),
        ("post", "/api/mappings/batch-delete"),
        ("put", "/api/mappings/{prefix}"),
        ("post", "/admin/keys"),
        ("post", "/admin/keys/batch"),
        ("post", "/admin/keys/batch-delete"),
        ("put", "/admin/keys/{key_id}"),
        ("patch", "/admin/keys/{key_id}/notes"),
        ("patch", "/admin/keys/{key_id}/pool"),
        ("patch", "/admin/keys/{key_id}/toggle"),
        ("put", "/admin/config"),
        ("post", "/admin/pool-groups"),
        ("put", "/admin/pool-groups/{group_id}"),
        ("post", "/flow/tokens"),
        ("put", "/flow/tokens/{token}"),
        ("put", "/api/v1/config"),
        ("post", "/api/v1/backends/add"),
        ("put", "/api/v1/backends/update"),
        ("delete", "/api/v1/backends/remove"),
        ("post", "/api/v1/backends/disconnect"),
        ("post", "/api/v1/report"),
    }
    for (_, path), operation in described.items():
        open_to_all = path in ("/health", "/readyz", "/api/login", "/api/admin/login")
        assert (operation["security"] == [{}]) is open_to_all
        assert open_to_all or {"401", "403", "429", "500", "503"} <= operation["responses"].keys()
    assert "$defs" not in str(document)
    assert TOKEN not in str(document)
