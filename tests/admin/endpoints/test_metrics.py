"""Prometheus' metrics, read as Prometheus reads them."""

import pytest

from admin.readiness import Health, View
from admin.rules.figures import Dropped
from admin.rules.metrics import SERIES_MAX
from proxy.version import VERSION
from tests.admin.api import Api, serving, there
from tests.admin.counted import delta, row, worker
from tests.admin.memory import Memory, Worker
from tests.admin.prometheus import parse

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scraped(api: Api) -> Values:
    answer = api.ask("GET", "/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (name.removeprefix("relaygate_"), frozenset(labels.items())): value
        for family in parse(answer.text)
        for name, labels, value in family.samples
    }


def of(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


@pytest.fixture(autouse=True)
def something_counted(api: Api) -> None:
    api.memory.statistics.deltas = [
        delta(
            row("/a", "a.example", s2xx=3, client_left=1), row('/"\\', "b.example:81", s5xx=2), row("", "", no_route=1)
        )
    ]
    api.memory.statistics.dropped = [Dropped("statistics", "missing", 2)]
    api.memory.workers.workers = [Worker(worker("a", unsent=5), alive=True), Worker(worker("b"), alive=True)]
    api.memory.stream.known = (3, 0.5)
    api.memory.about_tokens.ledger.known = (4, 1.5)


def test_what_is_counted_and_what_is_now(api: Api) -> None:
    values = scraped(api)
    assert values[of("requests_total", route="/a", upstream="a.example", outcome="2xx")] == 3
    assert values[of("requests_total", route="/a", upstream="a.example", outcome="client_left")] == 1
    assert values[of("requests_total", route='/"\\', upstream="b.example:81", outcome="5xx")] == 2
    assert values[of("requests_total", route="unmatched", upstream="none", outcome="no_route")] == 1
    route = {"route": "/a", "upstream": "a.example"}
    assert values[of("request_bytes_total", **route)] == 40
    assert values[of("response_bytes_total", **route)] == 400
    assert values[of("retries_total", **route)] == values[of("truncated_total", **route)] == 0
    for name in ("request_duration", "overhead", "upstream_duration", "stream_first_byte"):
        assert values[of(f"{name}_seconds_count", **route)] == 4
        assert values[of(f"{name}_seconds_sum", **route)] == 1
        assert values[of(f"{name}_seconds_bucket", **route, le="0.25")] == 0
        assert values[of(f"{name}_seconds_bucket", **route, le="0.5")] == 4
    assert {name: value for (name, labels), value in values.items() if not labels} == {
        "workers": 2,
        "requests_in_flight": 4,
        "workers_memory_bytes": 100 * 1024 * 1024,
        "requests_unsent": 5,
        "events_waiting": 3,
        "events_lag_seconds": 0.5,
        "ledger_waiting": 4,
        "ledger_lag_seconds": 1.5,
        "configuration_version": 7,
    }
    assert values[of("events_dropped_total", kind="statistics", reason="missing")] == 2
    assert values[of("events_dropped_total", kind="statistics", reason="undecodable")] == 0
    assert values[of("build_info", version=VERSION)] == 1
    assert values[of("component_up", component="database")] == 1


def test_while_the_database_is_down_counters_are_the_last_ones(api: Api) -> None:
    before = scraped(api)
    api.memory.statistics.deltas.append(delta(row(s2xx=100)))
    api.memory.statistics.down = True
    after = scraped(api)
    down = of("component_up", component="database")
    assert (before.pop(down), after.pop(down)) == (1, 0)
    assert after == before


def test_before_anything_is_known_there_is_still_an_answer(api: Api) -> None:
    api.memory.statistics.down = True
    api.memory.stream.known = api.memory.about_tokens.ledger.known = None
    values = scraped(api)
    assert values[of("workers")] == 2
    assert of("events_waiting") not in values


def test_labels_are_bounded_and_nothing_is_lost_by_it(api: Api) -> None:
    rows = [row(f"/{number:04}", "up.example", s2xx=1, s5xx=2) for number in range(SERIES_MAX + 20)]
    api.memory.statistics.deltas = [delta(*rows)]
    for _ in range(2):
        values = scraped(api)
        series = {labels for name, labels in values if name == "request_bytes_total"}
        assert len(series) == SERIES_MAX + 1
        assert values[of("requests_total", route="other", upstream="other", outcome="2xx")] == 20
        assert values[of("request_duration_seconds_count", route="other", upstream="other")] == 60
        assert sum(value for (name, _), value in values.items() if name == "requests_total") == 3 * len(rows)


def test_components_that_do_not_decide_are_shown_too() -> None:
    views = {"workers": lambda: View(Health.DOWN, {}), "events": lambda: View(Health.OK, {})}
    memory = Memory()
    with serving(memory, probes={"database": there, "redis": there}, views=views) as client:
        values = scraped(Api(client, memory))
    assert {dict(labels)["component"]: value for (name, labels), value in values.items() if name == "component_up"} == {
        "database": 1,
        "redis": 1,
        "workers": 0,
        "events": 1,
    }
