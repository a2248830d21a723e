"""Each case of relaygate alone runs once, as small as it goes, and reads off what it says."""

import shutil
from pathlib import Path

import pytest

from loadtests import own_cases
from loadtests.balanced_cases import BalancedCost, BalancedServe
from loadtests.compare import arguments
from loadtests.compare import own_cases as all_own_cases
from loadtests.key_pool_cost import KeyPoolCost
from loadtests.ledger_lag import LedgerLag
from loadtests.metering_cost import MeteringCost, UsageCost
from loadtests.metering_lone import MeteringLone
from loadtests.metering_rate import MeteringRate
from loadtests.own_cases import (
    DEEP_PREFIX,
    ColdStart,
    EditVisible,
    OwnCase,
    RoutesCost,
    ServeMemory,
    StatisticsCost,
    many_routes,
)
from loadtests.upstreams import Upstreams
from tests.redis_servers import program

CASES: list[OwnCase] = [
    StatisticsCost(1, 1),
    RoutesCost(1, 1),
    KeyPoolCost(1, 1),
    MeteringCost(1, 1),
    UsageCost(1, 5, 0.3),
    BalancedCost(1, 1),
    BalancedServe(0.2, 8),
    MeteringRate(8, 0.3, 4),
    MeteringLone(5, 0.1),
    LedgerLag(1.0),
    EditVisible(10),
    ColdStart(),
    ServeMemory(),
]
LINES = {
    "statistics-cost": {"CPU/request, counting / not counting"},
    "routes-10000": {"CPU/request, 10,000 prefixes / 1"},
    "key-pool": {"CPU/request, one of 1,000 keys / the client's own"},
    "metering": {"CPU/request of the relay, counted / public", "CPU of Redis for each that is counted"},
    "usage-reading": {"CPU/event, read / not read"},
    "balanced-cost": {"CPU/request, 3 backends / 1 target"},
    "balanced-serve": {"failed requests", "p99 during failures", "recovery", "return"},
    "metering-rate": {
        "admissions, one token",
        "p95 of the wait for one, one token",
        "admissions, 4 tokens with every bound",
        "p95 of the wait for one, 4 tokens with every bound",
    },
    "metering-lone": {"p50, token less public", "p50, token", "p50, public"},
    "ledger-lag": {"longest lag", "longest lag that the admin API told", "requests"},
    "edit-visible": {"p50", "p99", "longest"},
    "cold-start": {"relay, empty data", "admin API, empty data", "relay, existing data", "admin API, existing data"},
    "serve-memory": {
        "all processes",
        "supervisor",
        "Redis",
        "admin API, parent",
        "admin API, worker",
        "relay, parent",
        "relay, worker",
    },
}
MAY_BE_NONE = {("balanced-serve", "failed requests"), ("balanced-serve", "recovery")}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_measures_what_it_says(
    case: OwnCase, origins: Upstreams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program()
    if not shutil.which("wrk"):
        pytest.skip("wrk is not installed")
    monkeypatch.setattr(own_cases, "REST_S", 0)
    readings = case.measure(origins, tmp_path)
    assert {reading.what for reading in readings} == LINES[case.name]
    for reading in readings:
        assert reading.case == case.name
        assert len(reading.values) == 1
        assert reading.values[0] > 0 or (reading.case, reading.what) in MAY_BE_NONE


def test_every_own_case_has_an_example_here() -> None:
    assert {type(case) for case in all_own_cases(arguments([]))} == {type(case) for case in CASES}


def test_ten_thousand_prefixes_share_beginnings_and_no_target() -> None:
    routes = many_routes(8001)
    assert len(routes) == len(set(routes.values())) == 10_000
    assert {prefix.count("/") for prefix in routes} == {2, 3}
    assert DEEP_PREFIX in routes
    assert DEEP_PREFIX.rpartition("/")[0] in routes
