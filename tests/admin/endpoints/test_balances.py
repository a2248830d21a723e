"""Balances through the API; how they are read is in `tests/admin/test_key_balances.py`."""

import time

from admin.rules.balances import Day
from admin.rules.key_records import Status
from admin.rules.periods import DAY_S
from proxy.config import BalancePreset, BalanceQuery, KeyPool
from tests.admin.api import Api


def today_s() -> int:
    return int(time.time()) // DAY_S * DAY_S


def test_what_keys_have_used_is_listed_masked_and_by_pages(api: Api) -> None:
    keys = api.memory.about_keys.keys
    known = {"tokens_used": 5, "tokens_total": 20, "tokens_at": 7, "tokens_begin": 1, "tokens_end": 9}
    keys.add("fk-0123456789-0123456789-canary", group="main", **known)
    keys.add("fk-two-0123456789-0123456789", status=Status.BANNED, tokens_error="http_401", tokens_error_at=8)
    keys.add("sk-three-0123456789-0123456789", tokens_used=5)
    answer = api.ask("GET", "/admin/token/usage?limit=2")
    first, second = answer.json()["data"]["keys"]
    assert first == {
        "id": "key_1",
        "key": "fk-0...nary",
        "provider": "factory",
        "poolGroup": "main",
        "status": "active",
        "used": 5,
        "limit": 20,
        "remaining": 15,
        "percentage": 25.0,
        "period_begin": 1,
        "period_end": 9,
        "last_sync": 7,
        "error": None,
        "error_at": None,
    }
    assert (second["used"], second["remaining"], second["percentage"]) == (None, None, None)
    assert (second["error"], second["error_at"]) == ("http_401", 8)
    pagination = answer.json()["data"]["pagination"]
    assert (pagination["total"], pagination["total_pages"]) == (3, 2)
    (third,) = api.ask("GET", f"/admin/token/usage?after={pagination['next']}").json()["data"]["keys"]
    assert (third["used"], third["limit"], third["remaining"], third["percentage"]) == (5, None, None, None)
    assert "canary" not in answer.text
    banned = api.ask("GET", "/admin/token/usage?status=banned").json()["data"]["keys"]
    assert [one["id"] for one in banned] == ["key_2"]


def test_one_key_alone(api: Api) -> None:
    api.memory.about_keys.keys.add("fk-one", tokens_used=0, tokens_total=0)
    shown = api.ask("GET", "/admin/token/usage/key_1").json()["data"]
    assert (shown["id"], shown["used"], shown["limit"], shown["percentage"]) == ("key_1", 0, 0, None)
    for path in ("usage", "history"):
        answer = api.ask("GET", f"/admin/token/{path}/key_2")
        assert (answer.status_code, answer.json()["error"]) == (404, "not_found")


def test_the_sums(api: Api) -> None:
    keys = api.memory.about_keys.keys
    assert api.ask("GET", "/admin/token/summary").json()["data"]["percentage"] == 0.0
    keys.add("fk-one", tokens_used=5, tokens_total=20, tokens_at=7)
    keys.add("fk-two", tokens_used=5, tokens_total=30, tokens_at=9, tokens_error="timeout")
    keys.add("fk-three")
    assert api.ask("GET", "/admin/token/summary").json() == {
        "success": True,
        "data": {
            "total_keys": 3,
            "known_keys": 2,
            "failed_keys": 1,
            "total_used": 10,
            "total_limit": 50,
            "total_remaining": 40,
            "percentage": 20.0,
            "oldest_sync": 7,
            "last_sync": 9,
        },
    }


def test_the_history_has_every_day(api: Api) -> None:
    about = api.memory.about_keys
    about.keys.add("fk-one")
    began_s = None
    while began_s != today_s():  # a day may end meanwhile
        began_s = today_s()
        about.balances.days[""] = [Day(began_s - 2 * DAY_S, 90, 200, 7), Day(began_s, 120, 200, 30)]
        about.balances.days["key_1"] = [Day(began_s, 20, None, 3)]
        days = api.ask("GET", "/admin/token/history?days=3").json()["data"]
        of_one = api.ask("GET", "/admin/token/history/key_1").json()["data"]
    assert [(day["used"], day["limit"], day["remaining"], day["spent"]) for day in days] == [
        (90, 200, 110, 7),
        (None, None, None, None),
        (120, 200, 80, 30),
    ]
    assert days[-1]["date"] == time.strftime("%Y-%m-%d", time.gmtime(began_s))
    assert (len(of_one), of_one[-1]["used"], of_one[-1]["remaining"], of_one[-1]["spent"]) == (30, 20, None, 3)
    assert api.ask("GET", "/admin/token/history?days=0").status_code == 400


def test_a_sync_is_begun_looked_at_and_cancelled(api: Api) -> None:
    about = api.memory.about_keys
    about.keys.add("fk-one")
    path = "/admin/token/sync"
    refused = api.ask("POST", path)
    assert (refused.status_code, refused.json()["error"]) == (409, "no_query")
    about.pool.settings = KeyPool(balance_queries={"factory": BalanceQuery(preset=BalancePreset.FACTORY)})
    assert api.ask("GET", path).json()["data"]["state"] == "idle"
    begun = api.ask("POST", path)
    assert begun.status_code == 202
    assert begun.json()["data"] | {"state": "running", "total": 1, "success": 0} == begun.json()["data"]
    again = api.ask("POST", path)
    assert (again.status_code, again.json()["error"]) == (409, "running")
    assert api.ask("GET", path).json()["message"] == "0 of 1 done."
    assert api.ask("DELETE", path).json()["data"]["state"] == "cancelled"
    assert api.outcomes() == [
        ("balances.sync", "all keys", "no_query"),
        ("balances.sync", "all keys", "done"),
        ("balances.sync", "all keys", "running"),
        ("balances.sync.cancel", "all keys", "done"),
    ]


def test_a_cleanup_says_how_many_rows_went(api: Api) -> None:
    api.memory.about_keys.balances.old = 12
    assert api.ask("POST", "/admin/token/cleanup").json() == {
        "success": True,
        "message": "12 removed.",
        "data": {"deleted": 12},
    }
    assert api.ask("POST", "/admin/token/cleanup").json()["data"] == {"deleted": 0}
