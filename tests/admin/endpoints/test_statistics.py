"""Statistics in the shape of reference 003, and whole."""

import pytest

from admin.rules.figures import Dropped
from admin.rules.periods import DAY_S, HOUR_S
from tests.admin.api import Api, serving
from tests.admin.counted import NOW_S, delta, row, worker
from tests.admin.memory import Memory, Worker

DAY_AGO_S = NOW_S - DAY_S


@pytest.fixture(autouse=True)
def something_counted(api: Api) -> None:
    memory = api.memory
    memory.statistics.now_s = NOW_S
    memory.statistics.deltas = [
        delta(row("/old", s2xx=100), at_s=NOW_S - 40 * DAY_S),
        delta(row("/openai", "a.example", at_s=DAY_AGO_S, s2xx=10, s5xx=2), at_s=DAY_AGO_S),
        delta(
            row("/openai", "b.example", at_s=NOW_S, s2xx=2, closed=1, client_left=1),
            row("", "", at_s=NOW_S, no_route=4),
            at_s=NOW_S,
        ),
    ]
    memory.statistics.dropped = [Dropped("statistics", "missing", 2), Dropped("unknown", "undecodable", 1)]
    memory.workers.workers = [Worker(worker("a"), alive=True), Worker(worker("b"), alive=True), Worker(worker(), False)]
    memory.stream.rate = 12.345


def test_the_figures_of_the_reference(api: Api) -> None:
    stats = api.ask("GET", "/stats").json()
    graph = stats.pop("requests")
    assert stats == {
        "total": 120,
        "errors": 7,
        "dropped_events": 3,
        "avg_response": 250.0,
        "today": 8,
        "week": 20,
        "month": 20,
        "endpoints": {
            "/old": figures(100, 0, "2027-01-15T08:00:00Z", 0, 0, 0),
            "/openai": figures(16, 3, "2027-01-15T08:00:00Z", 4, 16, 16),
            "unmatched": figures(4, 4, "2027-01-15T08:00:00Z", 4, 4, 4),
        },
        "performance": {
            "requests_per_sec": 12.35,
            "avg_response_time_ms": 250.0,
            "p50_response_time_ms": 265.625,
            "p95_response_time_ms": 265.625,
            "p99_response_time_ms": 265.625,
            "error_rate": 62.5,
            "memory_usage_mb": 100.0,
            "in_flight": 4,
            "workers": 2,
        },
    }
    assert len(graph) == 24
    assert graph[-1] == {"time": "2027-01-15T08:00:00Z", "count": 8, "errors": 5}
    assert graph[0] == {"time": "2027-01-14T09:00:00Z", "count": 0, "errors": 0}


def figures(count: int, errors: int, last: str, today: int, week: int, month: int) -> dict[str, int | str]:
    return {
        "count": count,
        "error_count": errors,
        "last_request": last,
        "today": today,
        "week": week,
        "month": month,
    }


@pytest.mark.parametrize(
    ("query", "points", "count"),
    [
        ("range=24h", 24, 8),
        ("range=7d", 168, 20),
        ("range=30d", 30, 20),
        ("range=all", 41, 120),
        ("range=7d&endpoint=/openai", 168, 16),
        ("range=all&endpoint=unmatched", 41, 4),
        ("endpoint=/nothing", 24, 0),
    ],
)
def test_a_graph_of_a_range_and_of_one_prefix(api: Api, query: str, points: int, count: int) -> None:
    graph = api.ask("GET", f"/stats?{query}").json()["requests"]
    assert (len(graph), sum(point["count"] for point in graph)) == (points, count)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/stats?range=1h", "range"),
        ("/stats?endpoint=%00", "endpoint"),
        ("/api/statistics?range=1h", "range"),
        ("/api/statistics?since=-1", "since"),
    ],
)
def test_what_cannot_be_asked(api: Api, path: str, name: str) -> None:
    answer = api.ask("GET", path)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(f"{name}: ")


def test_all_there_is_of_a_route(api: Api) -> None:
    answer = api.ask("GET", "/api/statistics").json()
    assert (answer["since"], answer["until"], answer["live"]["total"]) == (None, None, 120)
    assert [(one["route"], one["upstream"]) for one in answer["routes"]] == [
        ("unmatched", ""),
        ("/old", "a.example"),
        ("/openai", "a.example"),
        ("/openai", "b.example"),
    ]
    newest = answer["routes"][3]
    latency = {"count": 4, "mean_ms": 250.0, "p50_ms": 265.625, "p95_ms": 265.625, "p99_ms": 265.625}
    assert newest == {
        "route": "/openai",
        "upstream": "b.example",
        "last_at": int(NOW_S * 1000),
        "requests": 4,
        "errors": 1,
        "outcomes": {
            outcome: {
                "requests": number,
                "request_bytes": 10 * number,
                "response_bytes": 100 * number,
                "retries": 0,
                "truncated": 0,
            }
            for outcome, number in (("2xx", 2), ("client_left", 1), ("closed", 1))
        },
        **dict.fromkeys(("duration", "head", "overhead", "upstream_duration"), latency),
    }


def test_a_range_of_it(api: Api) -> None:
    since, until = int(DAY_AGO_S) * 1000 + 1, int(DAY_AGO_S + HOUR_S) * 1000 - 1
    answer = api.ask("GET", f"/api/statistics?since={since}&until={until}").json()
    assert (answer["since"], answer["until"]) == (int(DAY_AGO_S) * 1000, int(DAY_AGO_S + HOUR_S) * 1000)
    assert [(one["route"], one["requests"]) for one in answer["routes"]] == [("/openai", 12)]
    assert api.ask("GET", "/api/statistics?range=all").json()["since"] is None
    assert api.ask("GET", "/api/statistics?range=7d").json()["since"] > 0


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("since=2000&until=1", "until: found a time before since, expected one behind it"),
        ("range=7d&since=1", "range: found together with since or until, expected either"),
    ],
)
def test_a_range_that_is_none(api: Api, query: str, said: str) -> None:
    answer = api.ask("GET", f"/api/statistics?{query}")
    assert (answer.status_code, answer.json()["message"]) == (400, said)


def test_nothing_counted_is_no_error() -> None:
    memory = Memory()
    with serving(memory) as client:
        api = Api(client, memory)
        stats = api.ask("GET", "/stats?range=all").json()
        assert (stats["total"], stats["avg_response"], stats["performance"]["error_rate"]) == (0, 0.0, 0.0)
        assert len(stats["requests"]) == 1
        assert api.ask("GET", "/api/statistics").json()["routes"] == []
