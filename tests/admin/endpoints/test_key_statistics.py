"""Statistics of keys."""

import time

import pytest

from admin.rules.key_records import Status, UsePoint
from admin.rules.periods import DAY_S, HOUR_S, slot_of
from tests.admin.api import Api


@pytest.fixture(autouse=True)
def used(api: Api) -> None:
    keys = api.memory.about_keys.keys
    keys.add("sk-a", requests=10, successes=5, errors=5)
    keys.add("sk-b", requests=10, successes=9, errors=1)
    keys.add("sk-c", status=Status.BANNED)


def test_the_stats_count_keys_by_status(api: Api) -> None:
    data = api.ask("GET", "/admin/stats").json()["data"]
    assert {name: data[name] for name in ("total", "active", "disabled", "banned")} == {
        "total": 3,
        "active": 2,
        "disabled": 0,
        "banned": 1,
    }
    assert (data["total_requests"], data["success_requests"], data["error_requests"]) == (20, 14, 6)
    assert (data["success_rate"], data["algorithm"]) == (70.0, "round-robin")
    assert [group["id"] for group in data["poolGroups"]] == ["default"]


def test_the_summary_ranks_keys_by_success(api: Api) -> None:
    data = api.ask("GET", "/admin/stats/summary?limit=5").json()["data"]
    assert [(key["id"], key["success_rate"]) for key in data["ranking"]] == [("key_2", 90.0), ("key_1", 50.0)]
    assert data["total"] == {"requests": 20, "success": 14, "errors": 6, "success_rate": 70.0}
    assert data["today"]["requests"] == 0


def test_days_and_hours_have_no_gaps(api: Api) -> None:
    today_s, hour_s = slot_of(DAY_S, time.time()).start_s, slot_of(HOUR_S, time.time()).start_s
    api.memory.about_keys.statistics.points = {
        DAY_S: [UsePoint(today_s - 2 * DAY_S, 8, 4, 4), UsePoint(today_s, 3, 3, 0), UsePoint(0, 99, 0, 99)],
        HOUR_S: [UsePoint(hour_s, 3, 3, 0)],
    }
    trend = api.ask("GET", "/admin/stats/trend").json()["data"]
    assert [day["requests"] for day in trend] == [0, 0, 0, 0, 8, 0, 3]
    assert trend[4]["success_rate"] == 50.0
    assert trend[6]["time"].endswith("T00:00:00Z")
    assert len(api.ask("GET", "/admin/stats/trend?days=30").json()["data"]) == 30
    today = api.ask("GET", "/admin/stats/today").json()["data"]
    assert today["total"] == {"requests": 3, "success": 3, "errors": 0, "success_rate": 100.0}
    assert today["hours"][-1]["requests"] == 3
    assert today["hours"][0]["time"] == f"{today['date']}T00:00:00Z"
    assert api.ask("GET", "/admin/stats/trend?days=0").status_code == 400
