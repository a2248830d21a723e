"""Many keys at once: taken in, deleted, and given out."""

import json

import pytest

from admin.rules.key_records import Status
from proxy.config import KeyPool, PoolGroup
from tests.admin.api import AUTHORIZED, TOKEN, Api

A, B, C = (f"fk-{letter * 24}" for letter in "abc")


@pytest.fixture(autouse=True)
def pool(api: Api) -> None:
    api.memory.about_keys.pool.settings = KeyPool(groups={"freebies": PoolGroup(), "main": PoolGroup()})


def groups(api: Api) -> dict[str, str]:
    keys = api.memory.about_keys.keys
    return {keys.secrets[one.id]: one.group for one in keys.records.values()}


def sent(api: Api, text: str, kind: str, query: str = "") -> object:
    answer = api.client.post(f"/admin/keys/batch{query}", content=text, headers={**AUTHORIZED, "content-type": kind})
    assert answer.status_code == 200, answer.text
    assert not any(secret in answer.text for secret in (A, B, C))
    return answer.json()["data"]


def test_the_documented_import(api: Api) -> None:
    answer = api.ask("POST", "/admin/keys/batch", {"keys": [A, B], "poolGroup": "freebies"})
    assert answer.status_code == 200
    assert answer.json()["message"] == "Added 2 of 2 keys."
    assert groups(api) == {A: "freebies", B: "freebies"}
    assert [(one.action, one.detail) for one in api.memory.actions.actions] == [
        ("key.import", {"lines": 2, "added": 2, "duplicate": 0, "invalid": 0})
    ]


def test_each_line_has_its_result(api: Api) -> None:
    there = api.memory.about_keys.keys.add(A)
    body = {"keys": [A, {"key": B, "notes": "n", "poolGroup": "main"}, "a b", {"key": C, "poolGroup": "none"}, B]}
    data = api.ask("POST", "/admin/keys/batch", body).json()["data"]
    assert {name: data[name] for name in ("total", "success", "duplicate", "invalid")} == {
        "total": 5,
        "success": 1,
        "duplicate": 2,
        "invalid": 2,
    }
    assert [(one["line"], one["outcome"]) for one in data["results"]] == [
        (1, "duplicate"),
        (2, "added"),
        (3, "invalid"),
        (4, "invalid"),
        (5, "duplicate"),
    ]
    assert data["results"][0]["id"] == there.id
    assert "ASCII text without spaces" in data["results"][2]["error"]
    assert "pool group" in data["results"][3]["error"]
    assert groups(api) == {A: "default", B: "main"}


def test_text_and_csv_are_taken_too(api: Api) -> None:
    assert sent(api, f"# mine\n{A}\n\n{B}\n", "text/plain; charset=utf-8", "?poolGroup=main") == {
        "total": 2,
        "success": 2,
        "duplicate": 0,
        "invalid": 0,
        "results": [
            {"line": 2, "outcome": "added", "id": "key_1", "error": None},
            {"line": 4, "outcome": "added", "id": "key_2", "error": None},
        ],
    }
    sent(api, f"key,notes,poolGroup\n{C},spare,freebies\n", "text/csv")
    assert groups(api) == {A: "main", B: "main", C: "freebies"}
    assert api.memory.about_keys.keys.records["key_3"].notes == "spare"


def test_a_field_that_nobody_knows_is_no_key_s(api: Api) -> None:
    body = {"keys": [{"key": A, "poolGrup": "main"}, {"key": B, "poolGroup": "main"}]}
    data = api.ask("POST", "/admin/keys/batch", body).json()["data"]
    assert data["results"][0]["error"] == "poolGrup: unknown field, the nearest known one is poolGroup"
    assert groups(api) == {B: "main"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "the body is not JSON"),
        ('{"keys": [], "poolGroup": 7}', "poolGroup: expected text"),
        ('{"keys": [], "poolGroup": "a b"}', "poolGroup: there is no"),
        ('{"keys": ["fk-1"], "poolGroup": "nowhere"}', "poolGroup: there is no"),
        ('{"keys": [], "pool": "main"}', "the body: pool: unknown field, the nearest known one is poolGroup"),
        ("[1", "the body: it is not JSON"),
        (f"value,notes\n{A},n", "the body: its first line names columns, but none of keys: found value, notes"),
        (b"\xff", "the body is not UTF-8 text"),
    ],
)
def test_what_is_no_list_is_refused(api: Api, text: str, says: str) -> None:
    answer = api.client.post("/admin/keys/batch", content=text, headers=AUTHORIZED)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(says)


def test_a_body_of_many_mib_is_taken_and_too_many_keys_are_not(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [{"key": f"fk-{number:060}", "notes": "n" * 900} for number in range(10_000)]
    assert len(json.dumps(keys)) > 8 * 1024 * 1024
    data = api.ask("POST", "/admin/keys/batch", {"keys": keys}).json()["data"]
    assert (data["success"], len(data["results"])) == (10_000, 10_000)
    ids = [one["id"] for one in data["results"]]
    gone = api.ask("POST", "/admin/keys/batch-delete", {"ids": ids}).json()["data"]
    assert (len(gone["deleted"]), gone["absent"]) == (10_000, [])
    monkeypatch.setattr("admin.endpoints.key_batches.BATCH_MAX", 2)
    answer = api.ask("POST", "/admin/keys/batch", {"keys": [A, B, C]})
    assert (answer.status_code, answer.json()["message"]) == (400, "found 3 keys, expected 2 at most")


def test_other_paths_take_1_mib_still(api: Api) -> None:
    answer = api.ask("POST", "/admin/keys", {"key": A, "notes": "n" * 1024 * 1024})
    assert (answer.status_code, answer.json()["error"]) == (413, "body_too_large")


def test_keys_are_deleted_by_id_and_by_status(api: Api) -> None:
    keys = api.memory.about_keys.keys
    for number, status in enumerate([Status.ACTIVE, Status.BANNED, Status.DISABLED, Status.BANNED]):
        keys.add(f"fk-{number}", status=status)
    assert api.ask("DELETE", "/admin/keys/banned").json() == {
        "success": True,
        "message": "Deleted 2 banned keys.",
        "data": {"count": 2},
    }
    assert api.ask("DELETE", "/admin/keys/disabled").json()["data"] == {"count": 1}
    gone = api.ask("POST", "/admin/keys/batch-delete", {"ids": ["key_1", "key_9", "key_1"]}).json()
    assert gone["data"] == {"deleted": ["key_1"], "absent": ["key_9"]}
    assert keys.records == {}


# ---- what shows secrets ---------------------------------------------------------------------------------------------


def test_the_documented_export(api: Api) -> None:
    keys = api.memory.about_keys.keys
    keys.add(A)
    keys.add(B, status=Status.BANNED)
    keys.add(C, group="main")
    answer = api.client.get("/admin/keys/export?status=active", headers={"x-admin-key": TOKEN})
    assert answer.text == f"{A}\n{C}\n"
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["content-disposition"].startswith('attachment; filename="keys_active_2')
    assert api.ask("GET", "/admin/keys/export").text == f"{A}\n{B}\n{C}\n"
    assert api.ask("GET", "/admin/keys/export?group=main").text == f"{C}\n"
    assert [(one.action, one.target, one.detail["keys"]) for one in api.memory.actions.actions] == [
        ("key.export", "active", 2),
        ("key.export", "all", 3),
        ("key.export", "all", 1),
    ]


@pytest.mark.parametrize("path", ["/admin/keys/export", "/admin/keys/key_1/full"])
def test_a_session_has_to_give_the_token_once_more(api: Api, path: str) -> None:
    api.memory.about_keys.keys.add(A)
    assert api.client.post("/api/login", json={"password": TOKEN}).status_code == 200
    asked = api.client.get(path)
    assert (asked.status_code, asked.json()["error"]) == (403, "confirmation_required")
    wrong = api.client.get(path, headers={"x-admin-confirm": "wrong"})
    assert (wrong.status_code, wrong.json()["error"]) == (401, "unauthorized")
    assert A not in asked.text + wrong.text
    right = api.client.get(path, headers={"x-admin-confirm": TOKEN})
    assert A in right.text
    assert [one.outcome for one in api.memory.actions.actions if one.action != "login"] == ["done"]


def test_one_key_is_shown_whole(api: Api) -> None:
    api.memory.about_keys.keys.add(A)
    answer = api.ask("GET", "/admin/keys/key_1/full")
    assert answer.json() == {"success": True, "data": {"id": "key_1", "key": A}}
    assert answer.headers["cache-control"] == "no-store"


def test_a_session_may_send_json_and_csv_and_what_a_form_can_send_it_may_not(api: Api) -> None:
    assert api.client.post("/api/login", json={"password": TOKEN}).status_code == 200
    origin = {"origin": "http://127.0.0.1:8001"}
    for kind, status in (("application/json", 200), ("text/csv", 200), ("text/plain", 415)):
        answer = api.client.post("/admin/keys/batch", content=f'["{A}"]', headers={**origin, "content-type": kind})
        assert answer.status_code == status


@pytest.mark.parametrize("body", ["{}", '{"keys": "sk-1"}'])
def test_a_body_without_a_list_is_refused(api: Api, body: str) -> None:
    headers = {**AUTHORIZED, "content-type": "application/json"}
    assert api.client.post("/admin/keys/batch", content=body, headers=headers).status_code == 400


def test_keys_whose_secret_key_is_gone_are_a_conflict_that_says_so(api: Api) -> None:
    keys = api.memory.about_keys.keys
    keys.unreadable.add(keys.add(A).id)
    for path in (f"/admin/keys/{next(iter(keys.unreadable))}/full", "/admin/keys/export"):
        answer = api.ask("GET", path)
        assert (answer.status_code, answer.json()["error"]) == (409, "undecryptable")
        assert "RELAYGATE_SECRET_KEY" in answer.json()["message"]
