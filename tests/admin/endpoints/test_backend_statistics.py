"""Figures of the relay and of backends, and reports, as reference 004 documents them."""

from typing import Any

import msgspec
import pytest

from proxy.config import Backend, Route, Upstream
from proxy.shared_state.backend_reports import BackendReport
from proxy.version import VERSION
from tests.admin.api import Api
from tests.admin.balancing_memory import Health
from tests.admin.counted import delta, row, worker
from tests.admin.memory import Stored, Worker

REPORT: dict[str, Any] = {
    "upstream": "default",
    "backend_id": "backend1",
    "performance": {"cpu_usage": 45.2, "memory_usage": 67.8, "load_avg_1": 2.1},
}
NOW_S = 1_800_000_000.0


@pytest.fixture(autouse=True)
def counted(api: Api) -> None:
    memory = api.memory
    memory.statistics.now_s = NOW_S
    memory.about_balancing.upstreams = {
        "default": Upstream(
            backends=(
                Backend(url="http://127.0.0.1:8081", id="backend1"),
                Backend(url="http://127.0.0.1:8082", id="backend2", weight=50, draining=True),
            )
        ),
        "other": Upstream(backends=(Backend(url="http://127.0.0.1:8081", id="x"),)),
    }
    memory.routes.stored["/"] = Stored("/", Route(upstream="default"), 0, 0)
    memory.statistics.deltas = [
        delta(
            row("/", "127.0.0.1:8081", at_s=NOW_S, seconds=0.25, s2xx=3, s5xx=1, connect_refused=1),
            row("", "", at_s=NOW_S, no_route=2),
            at_s=NOW_S,
        )
    ]


def stats(api: Api, query: str = "") -> list[dict[str, Any]]:
    answer = api.ask("GET", f"/api/v1/stats/backend{query}")
    assert answer.status_code == 200
    found: list[dict[str, Any]] = answer.json()["backends"]
    return found


def test_figures_of_the_relay(api: Api) -> None:
    api.memory.workers.workers = [
        Worker(worker("a", started_s=NOW_S - 60, in_flight=2), alive=True),
        Worker(worker("b", started_s=NOW_S - 30, in_flight=3), alive=True),
        Worker(worker("c", started_s=NOW_S - 900), alive=False),
    ]
    api.memory.stream.rate = 12.5
    shown = api.ask("GET", "/api/v1/stats/server").json()
    assert shown["success"] is True
    performance = shown["stats"].pop("performance")
    assert shown["stats"] == {
        "version": VERSION,
        "configuration": 0,
        "uptime_s": 60.0,
        "upstreams": 2,
        "backends": 3,
        "requests": 7,
        "errors": 4,
    }
    assert (performance["workers"], performance["in_flight"], performance["requests_per_sec"]) == (2, 5, 12.5)
    assert performance["memory_usage_mb"] == 100.0


def test_without_workers_nothing_is_up(api: Api) -> None:
    assert api.ask("GET", "/api/v1/stats/server").json()["stats"]["uptime_s"] == 0.0


def test_figures_of_a_backend(api: Api) -> None:
    about = api.memory.about_balancing
    about.running["default", "backend1"] = 4
    about.health["default", "backend1"] = Health(True, NOW_S - 5, NOW_S, "")
    api.ask("POST", "/api/v1/report", REPORT)
    (shown,) = stats(api, "?upstream=default&backend_id=backend1")
    latencies = [shown.pop(name) for name in ("head", "upstream_duration")]
    assert shown == {
        "upstream": "default",
        "backend_id": "backend1",
        "name": "",
        "weight": 100,
        "active": True,
        "draining": False,
        "health": {"healthy": True, "since": int(NOW_S - 5) * 1000, "checked": int(NOW_S) * 1000, "reason": ""},
        "running": 4,
        "performance": {**REPORT["performance"], "reported_at": int(NOW_S) * 1000},
        "requests": 5,
        "errors": 2,
        "outcomes": {"2xx": 3, "5xx": 1, "connect_refused": 1},
        "last_at": int(NOW_S) * 1000,
    }
    assert {(one["count"], one["mean_ms"]) for one in latencies} == {(5, 250.0)}


def test_a_backend_without_requests_has_zeros(api: Api) -> None:
    (shown,) = stats(api, "?upstream=default&backend_id=backend2")
    assert (shown["requests"], shown["outcomes"], shown["running"], shown["head"]["count"]) == (0, {}, 0, 0)
    assert (shown["weight"], shown["draining"], shown["health"], shown["performance"]) == (50, True, None, None)


def test_figures_of_an_upstream_or_of_all(api: Api) -> None:
    assert [one["backend_id"] for one in stats(api, "?upstream=default")] == ["backend1", "backend2"]
    assert [(one["backend_id"], one["requests"]) for one in stats(api)] == [("backend1", 5), ("backend2", 0), ("x", 0)]


def test_of_what_is_not_there_nothing_is_told(api: Api) -> None:
    for query, status, says in (
        ("?upstream=absent", 404, "There is no upstream"),
        ("?upstream=default&backend_id=x", 404, "The upstream has no backend"),
        ("?backend_id=backend1", 400, "upstream: missing"),
    ):
        answer = api.ask("GET", f"/api/v1/stats/backend{query}")
        assert answer.status_code == status
        assert answer.json()["message"].startswith(says)


def test_the_documented_report_is_for_workers_to_read(api: Api) -> None:
    answer = api.ask("POST", "/api/v1/report", REPORT)
    assert (answer.status_code, answer.json()) == (200, {"success": True, "message": "Reported."})
    assert api.memory.about_balancing.reports == {("default", "backend1"): BackendReport(45.2, 67.8, 2.1, NOW_S)}
    assert api.outcomes() == [], "it is no action of an operator"


def test_a_report_counts_for_a_minute(api: Api) -> None:
    for age_s, counts in ((59.9, True), (60.0, False)):
        api.memory.about_balancing.reports["default", "backend1"] = BackendReport(1.0, 2.0, 3.0, NOW_S - age_s)
        assert (stats(api, "?upstream=default&backend_id=backend1")[0]["performance"] is not None) is counts


NO_REPORTS: list[tuple[dict[str, Any], int, str]] = [
    ({"upstream": "absent"}, 404, "There is no upstream"),
    ({"backend_id": "absent"}, 404, "The upstream has no backend"),
    ({"backend_id": ""}, 400, "backend_id: found text, expected text of 1"),
    ({"performance": {"cpu_usage": 101}}, 400, "performance.cpu_usage: found 101, expected a number from 0 to 100"),
    ({"performance": {}}, 400, "performance: expected an object with one of cpu_usage"),
    ({"performance": 5}, 400, "performance: found a number"),
    ({"load": 1}, 400, "load: unknown field"),
]


def test_what_is_no_report_is_told(api: Api) -> None:
    for change, status, says in NO_REPORTS:
        answer = api.ask("POST", "/api/v1/report", REPORT | change)
        assert answer.status_code == status
        assert answer.json()["message"].startswith(says)
    assert api.memory.about_balancing.reports == {}


def test_without_redis_settings_and_counts_are_shown_all_the_same(api: Api) -> None:
    api.memory.about_balancing.away = True
    (shown,) = stats(api, "?upstream=default&backend_id=backend1")
    assert (shown["requests"], shown["performance"]) == (5, None)
    answer = api.ask("POST", "/api/v1/report", REPORT)
    assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")


def test_rows_that_were_counted_are_not_changed_by_being_shown(api: Api) -> None:
    before = msgspec.msgpack.encode(api.memory.statistics.deltas)
    assert stats(api) == stats(api)
    assert msgspec.msgpack.encode(api.memory.statistics.deltas) == before
