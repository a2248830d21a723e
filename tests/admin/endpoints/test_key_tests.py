"""Tests of keys through the API; what they do to a key is in `tests/admin/test_key_tests.py`."""

from admin import key_tests
from admin.rules import key_records
from admin.rules.key_records import Status
from tests.admin.api import Api


def test_a_test_is_answered_with_what_came_of_it(api: Api) -> None:
    about = api.memory.about_keys
    about.keys.add("sk-one")
    about.keys.add("sk-two")
    refused = key_tests.Tested(key_records.TestResult.FAILED, 402, "http_402", Status.BANNED)
    about.tests.outcomes["key_2"] = refused
    good = api.ask("POST", "/admin/keys/key_1/test")
    assert good.json() == {
        "success": True,
        "message": "The key is good.",
        "data": {"success": True, "status": 200, "error": None, "key_status": "active"},
    }
    bad = api.ask("POST", "/admin/keys/key_2/test")
    assert bad.status_code == 200
    assert bad.json()["data"] == {"success": False, "status": 402, "error": "http_402", "key_status": "banned"}
    about.tests.outcomes["key_2"] = refused._replace(result=key_records.TestResult.SUCCESS, problem=None)
    aside = api.ask("POST", "/admin/keys/key_2/test")
    assert aside.json()["message"] == "The key is good, and still banned: toggle ends that."


def test_a_key_that_no_route_uses_cannot_be_tested(api: Api) -> None:
    api.memory.about_keys.keys.add("sk-one")
    api.memory.about_keys.tests.unroutable.add("key_1")
    answer = api.ask("POST", "/admin/keys/key_1/test")
    assert (answer.status_code, answer.json()["error"]) == (409, "no_route")


def test_the_test_of_all_is_begun_looked_at_and_cancelled(api: Api) -> None:
    for number in range(3):
        api.memory.about_keys.keys.add(f"sk-{number}")
    path = "/admin/keys/test-all"
    assert api.ask("GET", path).json()["data"]["state"] == "idle"
    begun = api.ask("POST", path)
    assert begun.status_code == 202
    assert begun.json()["data"] | {"state": "running", "total": 3, "tested": 0} == begun.json()["data"]
    again = api.ask("POST", path)
    assert (again.status_code, again.json()["error"]) == (409, "running")
    assert api.ask("GET", path).json()["message"] == "0 of 3 tested."
    for message in ("Cancelled.", "Nothing is being tested."):
        cancelled = api.ask("DELETE", path).json()
        assert (cancelled["message"], cancelled["data"]["state"]) == (message, "cancelled")
    assert [one[0] for one in api.outcomes()] == ["key.test-all"] * 2 + ["key.test-all.cancel"] * 2
    assert [one[2] for one in api.outcomes()] == ["done", "running", "done", "done"]
