"""Keys one at a time, as reference 001 documents them."""

import pytest

from admin.rules.key_records import Status
from proxy.config import KeyPool, PoolGroup
from tests.admin.api import Api

SECRET = "fk-canary-0123456789abcdef"
MASKED = "fk-c...cdef"


@pytest.fixture(autouse=True)
def pool(api: Api) -> None:
    api.memory.about_keys.pool.settings = KeyPool(groups={"main": PoolGroup(priority=2)})


def filled(api: Api, count: int = 25) -> None:
    for number in range(count):
        api.memory.about_keys.keys.add(f"sk-{number:030}", notes=f"note {number}")


# ---- as documented --------------------------------------------------------------------------------------------------


def test_a_key_is_added_and_shown_by_its_ends_only(api: Api) -> None:
    answer = api.ask("POST", "/admin/keys", {"key": SECRET, "notes": "the main one", "poolGroup": "main"})
    assert answer.status_code == 201
    said = answer.json()
    assert said.keys() == {"success", "message", "data"}
    assert said["success"] is True
    assert (said["data"]["key"], said["data"]["provider"]) == (MASKED, "factory")
    assert (said["data"]["poolGroup"], said["data"]["status"]) == ("main", "active")
    shown = api.ask("GET", f"/admin/keys/{said['data']['id']}")
    assert shown.json()["data"]["notes"] == "the main one"
    assert SECRET not in answer.text + shown.text + api.ask("GET", "/admin/keys").text
    assert api.outcomes() == [("key.create", MASKED, "done")]
    assert list(api.memory.about_keys.keys.secrets.values()) == [SECRET]


def test_the_documented_header_opens_it(api: Api) -> None:
    token = api.ask("GET", "/admin/keys").request.headers["authorization"].removeprefix("Bearer ")
    assert api.client.get("/admin/keys", headers={"x-admin-key": token}).status_code == 200
    for method, path in (("GET", "/admin/keys"), ("DELETE", "/admin/keys/banned"), ("GET", "/admin/logs/stream")):
        refused = api.client.request(method, path, headers={"x-admin-key": "wrong"})
        assert (refused.status_code, refused.json()["success"]) == (401, False)


def test_the_list_has_the_references_pages(api: Api) -> None:
    filled(api)
    first = api.ask("GET", "/admin/keys").json()
    assert first.keys() == {"success", "data"}
    assert len(first["data"]["keys"]) == 10
    assert (
        first["data"]["pagination"] | {"page": 1, "limit": 10, "total": 25, "total_pages": 3}
        == (first["data"]["pagination"])
    )
    for asked, total in (
        ("page=3", 25),
        ("page=4", 25),
        ("limit=25", 25),
        ("limit=100", 25),
        ("q=none", 0),
        ("page=2&q=none", 0),
    ):
        shown = api.ask("GET", f"/admin/keys?{asked}").json()["data"]["pagination"]
        assert (shown["total"], shown["next"]) == (total, None), asked
    third = api.ask("GET", "/admin/keys?page=3&limit=10&status=active").json()["data"]
    assert [key["notes"] for key in third["keys"]] == [f"note {number}" for number in range(20, 25)]
    assert third["pagination"]["next"] is None
    assert api.ask("GET", "/admin/keys?page=4").json()["data"]["keys"] == []


def test_pages_by_key_miss_none_while_others_are_deleted(api: Api) -> None:
    filled(api)
    seen: list[str] = []
    query = "limit=10"
    while query:
        page = api.ask("GET", f"/admin/keys?{query}").json()["data"]
        seen += [key["id"] for key in page["keys"]]
        after = page["pagination"]["next"]
        query = f"limit=10&after={after}" if after else ""
        api.ask("DELETE", f"/admin/keys/{seen[0]}")
    assert seen == [f"key_{number}" for number in range(1, 26)]


def test_a_list_can_be_narrowed_down(api: Api) -> None:
    keys = api.memory.about_keys.keys
    keys.add("sk-ant-aaaaaaaaaaaaaaaaaaaa", group="main")
    keys.add("fk-bbbbbbbbbbbbbbbbbbbbbbbb", status=Status.BANNED, notes="Old ONE")
    keys.add("fk-cccccccccccccccccccccccc", status=Status.DISABLED)

    def ids(query: str) -> list[str]:
        return [key["id"] for key in api.ask("GET", f"/admin/keys?{query}").json()["data"]["keys"]]

    assert ids("status=all") == ["key_1", "key_2", "key_3"]
    assert ids("status=banned") == ["key_2"]
    assert ids("group=main") == ["key_1"]
    assert ids("provider=factory&status=disabled") == ["key_3"]
    assert ids("q=old+one") == ["key_2"]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("status=off", "status"),
        ("page=0", "page"),
        ("limit=501", "limit"),
        ("limit=x", "limit"),
        ("after=key_1", "after"),
        ("q=%00", "q: found control characters"),
    ],
)
def test_a_wrong_parameter_is_refused(api: Api, query: str, says: str) -> None:
    answer = api.ask("GET", f"/admin/keys?{query}")
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")
    assert answer.json()["message"].startswith(says)


def test_a_status_is_given_or_flipped(api: Api) -> None:
    banned = api.memory.about_keys.keys.add(SECRET, id="key_b", status=Status.BANNED, banned_at=5, ban_cause="dead")
    path = "/admin/keys/key_b/toggle"
    lifted = api.ask("PATCH", path).json()["data"]
    assert (lifted["status"], lifted["banned_at"], lifted["banned_reason"]) == ("active", None, None)
    assert api.ask("PATCH", path).json()["data"]["status"] == "disabled"
    assert api.ask("PATCH", path, {"status": "disabled"}).json()["data"]["status"] == "disabled"
    assert api.ask("PATCH", path, {"status": "active"}).json()["data"]["status"] == "active"
    refused = api.ask("PATCH", path, {"status": "banned"})
    assert (refused.status_code, refused.json()["error"]) == (400, "bad_request")
    assert api.outcomes() == [("key.toggle", banned.id, "done")] * 4


def test_notes_and_group_are_changed_alone_or_together(api: Api) -> None:
    api.memory.about_keys.keys.add(SECRET, id="key_1")
    assert api.ask("PATCH", "/admin/keys/key_1/notes", {"notes": "spare"}).json()["data"]["notes"] == "spare"
    assert api.ask("PATCH", "/admin/keys/key_1/pool", {"poolGroup": "main"}).json()["data"]["poolGroup"] == "main"
    changed = api.ask("PUT", "/admin/keys/key_1", {"notes": "", "poolGroup": "default"}).json()["data"]
    assert (changed["notes"], changed["poolGroup"], changed["status"]) == ("", "default", "active")


def test_a_key_is_deleted(api: Api) -> None:
    api.memory.about_keys.keys.add(SECRET, id="key_1")
    answer = api.ask("DELETE", "/admin/keys/key_1")
    assert answer.json() == {"success": True, "message": "Deleted.", "data": {"id": "key_1"}}
    assert api.ask("GET", "/admin/keys/key_1").status_code == 404


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("PUT", "", {"notes": "x"}),
        ("DELETE", "", None),
        ("PATCH", "/notes", {"notes": "x"}),
        ("PATCH", "/toggle", None),
        ("PATCH", "/toggle", {"status": "active"}),
        ("PATCH", "/pool", {"poolGroup": "main"}),
        ("POST", "/test", None),
        ("GET", "/full", None),
    ],
)
def test_one_that_is_absent_is_404(api: Api, method: str, path: str, body: object) -> None:
    answer = api.ask(method, f"/admin/keys/key_absent{path}", body)
    assert (answer.status_code, answer.json()["error"]) == (404, "not_found")


def test_one_that_is_there_is_not_added_again(api: Api) -> None:
    api.memory.about_keys.keys.add(SECRET)
    answer = api.ask("POST", "/admin/keys", {"key": f" {SECRET}\n"})
    assert (answer.status_code, answer.json()["error"]) == (409, "duplicate")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "key: missing"),
        ({"key": ""}, "key: found text, expected text of 1 to 8192 characters"),
        ({"key": "a b"}, "key: expected ASCII text without spaces"),
        ({"key": "fk-ü"}, "key: expected ASCII text"),
        ({"key": SECRET, "poolGroup": "none"}, "poolGroup: there is no pool group of this id"),
        ({"key": SECRET, "notes": "x" * 1001}, "notes: found text, expected text of 0 to 1000 characters"),
        ({"key": SECRET, "note": "x"}, "note: unknown field, the nearest known one is notes"),
    ],
)
def test_what_is_no_key_is_told_without_it(api: Api, body: object, says: str) -> None:
    answer = api.ask("POST", "/admin/keys", body)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(says)
    assert "canary" not in answer.text
    assert api.memory.about_keys.keys.records == {}


def test_a_status_that_nobody_gives_a_key_is_refused_with_those_that_one_may_give(api: Api) -> None:
    api.memory.about_keys.keys.add(SECRET, id="key_1")
    answer = api.ask("PATCH", "/admin/keys/key_1/toggle", {"status": "banned"})
    assert answer.status_code == 400
    assert answer.json()["message"] == "status: found text, expected one of active, disabled"


def test_an_unknown_group_an_empty_change_and_nul_are_refused(api: Api) -> None:
    api.memory.about_keys.keys.add(SECRET, id="key_1")
    for method, path, body in (
        ("PATCH", "/pool", {"poolGroup": "none"}),
        ("PUT", "", {}),
        ("PATCH", "/notes", {"notes": "\0"}),
    ):
        assert api.ask(method, f"/admin/keys/key_1{path}", body).status_code == 400
