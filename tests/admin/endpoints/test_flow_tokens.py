"""Access tokens as reference 002 documents them, and what is beyond it."""

import logging
import re
from typing import Any

import pytest

from admin.rules.access_tokens import QuotaType, text_of
from proxy.rules.access_tokens import AMOUNT_MAX, State, Unit
from tests.admin.api import AUTHORIZED, Api, Json, serving
from tests.admin.memory import Memory

NEW = {
    "ws_id": "test_workspace",
    "email": "test@example.com",
    "operation": "unlimited",
    "quota_type": "count",
    "total_quota": 10,
    "rate_limit_per_minute": 60,
}
TEXT = text_of(bytes(range(32)))
SHOWN = "flow_0001...1e1f"
ENVELOPE = {"success", "message", "timestamp", "request_id"}
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}")


def put(api: Api, token: str = "tok_1", text: str = TEXT, **fields: Any) -> str:
    """A token of ten requests that is there."""
    terms = {"total": 10, "quota_type": QuotaType.COUNT, "unit": Unit.REQUESTS, **fields}
    return api.memory.about_tokens.tokens.put(token, text, **terms).id


def refused(answer: Any, status: int, type_: str) -> str:
    said = answer.json()
    assert (answer.status_code, said["success"], said["error"]["type"]) == (status, False, type_)
    assert said.keys() == {"success", "error", "timestamp", "request_id"}
    return str(said["error"]["message"])


# ---- as documented --------------------------------------------------------------------------------------------------


def test_the_documents_own_calls(api: Api) -> None:
    """As its section 5 has them: make one, ask for its quota, its log, the token itself."""
    answer = api.ask("POST", "/flow/tokens", NEW)
    said = answer.json()
    assert (answer.status_code, said.keys()) == (200, ENVELOPE | {"data"})
    assert said["success"] is True
    token = said["data"]["access_token"]
    assert re.fullmatch("flow_[0-9a-f]{64}", token)
    assert said["data"] | {"quota_type": "count", "total_quota": 10, "remaining_quota": 10} == said["data"]
    assert (said["data"]["ws_id"], said["data"]["email"]) == ("test_workspace", "test@example.com")
    quota = api.ask("GET", f"/flow/tokens/{token}/quota").json()
    assert quota["success"] is True
    assert quota["data"] == {
        "quota_type": "count",
        "unit": "requests",
        "total_quota": 10,
        "remaining_quota": 10,
        "consumed_quota": 0,
        "quota_synced_at": said["data"]["created_at"],
        "live": True,
    }
    logs = api.ask("GET", f"/flow/tokens/{token}/quota/logs?page=1&page_size=10").json()
    assert [row["action"] for row in logs["data"]["logs"]] == ["init"]
    found = api.ask("GET", f"/flow/tokens?token={token}").json()
    assert [one["quota_type"] for one in found["data"]] == ["count"]


def test_a_token_is_whole_in_one_answer_only(api: Api) -> None:
    made = api.ask("POST", "/flow/tokens", NEW).json()["data"]
    token, name = made["access_token"], made["id"]
    asked: list[tuple[str, str, Json | None]] = [
        ("GET", f"/flow/tokens?token={token}", None),
        ("GET", "/flow/tokens", None),
        ("PUT", f"/flow/tokens/{token}", {"quota_operation": "add", "quota_amount": 1}),
        ("GET", f"/flow/tokens/{token}/quota", None),
        ("GET", f"/flow/tokens/{token}/quota/logs", None),
        ("DELETE", f"/flow/tokens/{token}", None),
        ("GET", "/api/actions", None),
    ]
    for method, path, body in asked:
        answer = api.ask(method, path, body)
        assert (answer.status_code, token in answer.text) == (200, False), path
    assert api.ask("GET", f"/flow/tokens?token={name}&state=deleted").json()["data"][0]["access_token"] == (
        f"{token[:9]}...{token[-4:]}"
    )


def test_times_and_bounds_are_shown_as_the_reference_does(api: Api) -> None:
    made = api.ask("POST", "/flow/tokens", {**NEW, "quota_type": "hybrid", "operation": "add", "days": 7}).json()
    data = made["data"]
    for name in ("created_at", "updated_at", "expires_at", "quota_synced_at"):
        assert TIME.fullmatch(data[name]), name
    assert TIME.fullmatch(made["timestamp"])
    assert (data["rate_limit_per_minute"], data["rate_limit_burst"], data["rate_limit_window_seconds"]) == (60, 10, 60)
    plain = api.ask("POST", "/flow/tokens", {"ws_id": "w", "email": "e@x.test", "operation": "unlimited"}).json()
    assert (
        plain["data"]
        | {
            "quota_type": "time",
            "unit": None,
            "total_quota": None,
            "remaining_quota": None,
            "consumed_quota": 0,
            "quota_synced_at": None,
            "expires_at": None,
            "deleted_at": None,
            "rate_limit_per_minute": None,
            "rate_limit_burst": None,
            "concurrent": None,
            "is_active": True,
            "live": False,
        }
        == (plain["data"])
    )


@pytest.mark.parametrize(
    ("change", "quota"),
    [
        ({"operation": "unlimited", "quota_operation": "add", "quota_amount": 50}, (60, 57)),
        ({"quota_operation": "set", "quota_amount": 0}, (10, 0)),
        ({"quota_operation": "set", "quota_amount": 20}, (10, 20)),
        ({"quota_operation": "reset"}, (10, 10)),
        ({"operation": "unlimited", "quota_operation": "reset", "quota_amount": 100}, (100, 100)),
    ],
)
def test_each_operation_on_a_quota(api: Api, change: Json, quota: tuple[int, int]) -> None:
    name = put(api)
    api.memory.about_tokens.tokens.quotas[name] = api.memory.about_tokens.tokens.quotas[name]._replace(remaining=7)
    data = api.ask("PUT", f"/flow/tokens/{TEXT}", change).json()["data"]
    assert (data["total_quota"], data["remaining_quota"], data["live"]) == (*quota, True)
    shown = api.ask("GET", f"/flow/tokens/{name}/quota").json()["data"]
    assert (shown["total_quota"], shown["remaining_quota"]) == quota
    assert shown["consumed_quota"] == max(0, quota[0] - quota[1])
    assert api.outcomes() == [("token.change", name, "done")]


def test_a_change_of_terms(api: Api) -> None:
    name = put(api, total=None, quota_type=QuotaType.TIME, unit=None)
    change = {
        "operation": "set",
        "specific_date": "2099-12-31 18:30:00",
        "state": "disabled",
        "routes": ["/openai/"],
        "models": ["gpt-4o*"],
        "networks": ["192.0.2.1"],
        "concurrent": 4,
        "refunds": False,
        "on_store_outage": "allow",
    }
    answer = api.ask("PUT", f"/flow/tokens/{name}", change)
    assert answer.status_code == 200
    data = answer.json()["data"]
    assert data | {
        **change,
        "routes": ["/openai"],
        "networks": ["192.0.2.1/32"],
        "expires_at": "2099-12-31 18:30:00",
        "is_active": False,
    } == data | {"operation": "set", "specific_date": "2099-12-31 18:30:00"}
    assert api.ask("PUT", f"/flow/tokens/{name}", {"state": "active"}).json()["data"]["is_active"] is True
    past = {"operation": "set", "specific_date": "2020-01-01"}
    assert api.ask("PUT", f"/flow/tokens/{name}", past).json()["data"]["is_active"] is False
    kinds = api.ask("GET", "/api/actions?action=token.change").json()["actions"]
    assert [one["detail"] for one in kinds][-1]["specific_date"] == "2099-12-31 18:30:00"


def test_another_type_needs_a_quota_operation(api: Api) -> None:
    name = put(api, total=None, quota_type=QuotaType.TIME, unit=None)
    told = refused(api.ask("PUT", f"/flow/tokens/{name}", {"quota_type": "count"}), 400, "BadRequest")
    assert told.startswith("quota_operation: missing")
    change = {"quota_type": "count", "quota_operation": "reset", "quota_amount": 5, "unit": "tokens"}
    data = api.ask("PUT", f"/flow/tokens/{name}", change).json()["data"]
    assert (data["quota_type"], data["unit"], data["total_quota"], data["live"]) == ("count", "tokens", 5, True)
    assert [one["action"] for one in api.ask("GET", f"/flow/tokens/{name}/quota/logs").json()["data"]["logs"]] == [
        "init"
    ]


def test_deleting_is_soft(api: Api) -> None:
    name = put(api)
    answer = api.ask("DELETE", f"/flow/tokens/{TEXT}")
    assert (answer.status_code, answer.json().keys()) == (200, ENVELOPE)
    assert answer.json()["message"] == "Token deleted."
    for method, path in (("DELETE", name), ("DELETE", TEXT), ("PUT", name)):
        body = {"state": "active"} if method == "PUT" else None
        assert "There is no access token" in refused(api.ask(method, f"/flow/tokens/{path}", body), 404, "NotFound")
    assert api.ask("GET", "/flow/tokens").json()["data"] == []
    (found,) = api.ask("GET", "/flow/tokens?state=deleted").json()["data"]
    assert (found["id"], found["state"], found["is_active"]) == (name, "deleted", False)
    assert TIME.fullmatch(found["deleted_at"])
    assert api.ask("GET", f"/flow/tokens/{name}/quota/logs").json()["data"]["total"] == 1
    assert api.outcomes() == [
        ("token.delete", name, "done"),
        ("token.delete", name, "not_found"),
        ("token.delete", name, "not_found"),
        ("token.change", name, "not_found"),
    ]


# ---- lists ----------------------------------------------------------------------------------------------------------


def test_lists_by_what_is_asked_in_pages(api: Api) -> None:
    for number in range(5):
        put(
            api,
            f"tok_{number}",
            text_of(bytes([number] * 32)),
            ws_id=f"w{number % 2}",
            email=f"e{number}@x.test",
            state=State.DISABLED if number == 3 else State.ACTIVE,
        )

    def listed(query: str) -> list[str]:
        return [one["id"] for one in api.ask("GET", f"/flow/tokens?{query}").json()["data"]]

    assert listed("") == ["tok_4", "tok_3", "tok_2", "tok_1", "tok_0"]
    assert listed("ws_id=w1") == ["tok_3", "tok_1"]
    assert listed("ws_id=w1&email=e3@x.test") == ["tok_3"]
    assert listed("email=e2@x.test&state=disabled") == []
    assert listed("state=disabled") == ["tok_3"]
    assert listed("token=tok_3&ws_id=w1") == ["tok_3"]
    for query in ("token=tok_3&ws_id=w0", "token=tok_3&state=active", "token=tok_9", "token=tok_3&page=2"):
        assert listed(query) == []
    page = api.ask("GET", "/flow/tokens?page=2&page_size=2").json()
    assert [one["id"] for one in page["data"]] == ["tok_2", "tok_1"]
    assert [page[name] for name in ("count", "total", "page", "page_size", "total_pages")] == [2, 5, 2, 2, 3]
    last = api.ask("GET", "/flow/tokens?page=4&page_size=2").json()
    assert (last["data"], last["count"], last["total"], last["total_pages"]) == ([], 0, 5, 3)


@pytest.mark.parametrize(
    "query", ["state=gone", "page=0", "page_size=0", "page_size=1001", "page=x", "ws_id=%00", "token=a%20b"]
)
def test_lists_that_cannot_be(api: Api, query: str) -> None:
    assert query.partition("=")[0] in refused(api.ask("GET", f"/flow/tokens?{query}"), 400, "BadRequest")


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/flow/tokens"),
        ("GET", f"/flow/tokens?token={TEXT}"),
        ("POST", "/flow/tokens"),
        ("PUT", f"/flow/tokens/{TEXT}"),
        ("DELETE", f"/flow/tokens/{TEXT}"),
        ("GET", f"/flow/tokens/{TEXT}/quota"),
        ("GET", f"/flow/tokens/{TEXT}/quota/logs"),
    ],
)
def test_nobody_gets_in_without_the_admin_token(api: Api, method: str, path: str) -> None:
    put(api)
    for headers in ({}, {"Authorization": f"Bearer {TEXT}"}, {"x-admin-key": "wrong"}):
        refused(api.client.request(method, path, headers=headers), 401, "Unauthorized")


@pytest.mark.parametrize(
    ("body", "message", "field"),
    [
        ({**NEW, "total_quota": 0}, "total_quota: found a number, expected an integer from 1 to", None),
        ({**NEW, "total_quota": AMOUNT_MAX + 1}, "total_quota: found a number, expected an integer from 1 to", None),
        ({**NEW, "total_quota": "10"}, "total_quota: found text, expected an integer", None),
        ({**NEW, "operation": "forever"}, "operation: found text, expected one of add, set, unlimited", None),
        ({**NEW, "quota_type": "free"}, "quota_type: found text, expected one of time, count, hybrid", None),
        ({**NEW, "unit": "eur"}, "unit: found text, expected one of requests, tokens, nano_usd", None),
        ({**NEW, "rate_limit_window_seconds": 30}, "rate_limit_window_seconds: found a number, expected one of", None),
        ({**NEW, "totl_quota": 5}, "totl_quota: unknown field, the nearest known one is total_quota", None),
        ({**NEW, "routes": ["x"]}, "routes[0]: expected a path that starts with /", "routes[0]"),
        ({**NEW, "operation": "add", "days": 3}, "operation: quota_type count has no time", "operation"),
        ({**NEW, "email": "me"}, "email: expected an address", "email"),
        ({"ws_id": "w", "email": "e@x.test"}, "operation: missing", None),
        ([], "the body: found a list, expected an object", None),
    ],
)
def test_a_refusal_names_the_field_and_the_choices(api: Api, body: Any, message: str, field: str | None) -> None:
    answer = api.ask("POST", "/flow/tokens", body)
    assert message.split(",")[0] in refused(answer, 400, "BadRequest")
    assert answer.json()["error"]["details"] == field
    assert api.memory.about_tokens.tokens.tokens == {}


def test_an_empty_change_is_refused(api: Api) -> None:
    name = put(api)
    for body in ({}, {"operation": None}):
        assert "the body is empty" in refused(api.ask("PUT", f"/flow/tokens/{name}", body), 400, "BadRequest")


def test_what_is_not_there(api: Api) -> None:
    put(api)
    other = text_of(bytes(32))
    for name in ("tok_9", other, "flow_short"):
        for method, path in (("GET", "/quota"), ("GET", "/quota/logs"), ("DELETE", ""), ("PUT", "")):
            body = {"state": "active"} if method == "PUT" else None
            refused(api.ask(method, f"/flow/tokens/{name}{path}", body), 404, "NotFound")
    targets = {target for _, target, _ in api.outcomes()}
    assert targets == {"tok_9", "flow...0000", "f...t"}


def test_without_redis_a_quota_is_shown_as_sql_has_it_and_not_changed(api: Api) -> None:
    name = put(api)
    tokens = api.memory.about_tokens.tokens
    tokens.quotas[name] = tokens.quotas[name]._replace(remaining=3)
    tokens.is_cut_off = True
    shown = api.ask("GET", f"/flow/tokens/{name}/quota").json()["data"]
    assert (shown["remaining_quota"], shown["live"]) == (10, False)
    assert TIME.fullmatch(shown["quota_synced_at"])
    answer = api.ask("PUT", f"/flow/tokens/{name}", {"quota_operation": "add", "quota_amount": 1})
    assert "same Idempotency-Key" in refused(answer, 503, "Unavailable")
    assert answer.headers["retry-after"] == "1"
    changed = api.ask("PUT", f"/flow/tokens/{name}", {"state": "disabled"}).json()
    assert changed["message"] == "Token changed. Redis has not been told yet, so workers keep to what was before."
    assert api.outcomes() == [("token.change", name, "unavailable"), ("token.change", name, "done")]


def test_a_quota_beyond_what_can_be_counted(api: Api) -> None:
    name = put(api)
    answer = api.ask("PUT", f"/flow/tokens/{name}", {"quota_operation": "add", "quota_amount": AMOUNT_MAX})
    assert refused(answer, 400, "BadRequest") == f"quota_amount: the quota would be more than {AMOUNT_MAX}."


def test_a_change_of_a_quota_is_done_once_for_each_key(api: Api) -> None:
    name = put(api)
    add = {"quota_operation": "add", "quota_amount": 5}

    def remaining(**headers: str) -> int:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return int(api.ask("PUT", f"/flow/tokens/{name}", add, fields).json()["data"]["remaining_quota"])

    assert [remaining(Idempotency_Key="one") for _ in range(3)] == [15, 15, 15]
    assert remaining(Idempotency_Key="two") == 20
    assert [remaining(X_Request_Id="same") for _ in range(2)] == [25, 30]
    logs = api.ask("GET", f"/flow/tokens/{name}/quota/logs").json()["data"]["logs"]
    assert [row["request_id"] for row in logs][2:] == ["two", "one", None]
    actions = api.ask("GET", "/api/actions?action=token.change").json()["actions"]
    assert actions[0]["detail"] == {**add, "request_id": logs[0]["request_id"]}
    answer = api.ask("PUT", f"/flow/tokens/{name}", add, {"Idempotency-Key": "a b"})
    assert refused(answer, 400, "BadRequest").startswith("Idempotency-Key: found other characters")


def test_a_failure_is_logged_without_the_token(caplog: pytest.LogCaptureFixture) -> None:
    memory = Memory()

    async def fail(**_: Any) -> None:
        raise RuntimeError(TEXT)

    memory.about_tokens.tokens.find = fail  # type: ignore[method-assign]
    with caplog.at_level(logging.INFO), serving(memory) as client:
        answer = client.get(f"/flow/tokens/{TEXT}/quota", headers={**AUTHORIZED, "X-Request-Id": "mine"})
    assert answer.json()["error"] == {
        "type": "Internal",
        "message": "The admin API failed; its log says more.",
        "details": None,
    }
    assert (answer.status_code, answer.json()["request_id"], answer.headers["x-request-id"]) == (500, "mine", "mine")
    lines = [record.getMessage() for record in caplog.records if record.name == "relaygate"]
    assert [line.partition(":")[2].split(":")[0] for line in lines] == [" GET /flow/tokens/{token}/quota"]
    assert TEXT not in "".join(lines)
