"""What providers say of balances decides which key is chosen, in all workers, and a failed query changes nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtests.fake_provider import FakeProvider
from loadtests.fake_provider_balances import CHAT_USAGE, Allowance
from tests.end_to_end.key_pool import Pool, configuration
from tests.end_to_end.system import serving
from tests.end_to_end.waiting import eventually

SYNC = "/admin/token/sync"
INTERVAL_S = 10


@pytest.fixture(name="own")
def fixture_own(tmp_path: Path, provider: FakeProvider) -> Iterator[Pool]:
    """A pool of a system of its own, which goes by what remains and asks only when it is told to."""
    query = {
        "url": provider.url + CHAT_USAGE,
        "headers": {"authorization": "Bearer {key}"},
        "used": "/usage/standard/orgTotalTokensUsed",
        "total": "/usage/standard/totalAllowance",
        "period_end": "/usage/endDate",
    }
    settings = configuration(
        provider, groups=1, algorithm="max-remaining", balance_interval_s=None, balance_queries={"own": query}
    )
    provider.moved.clear()
    with serving(tmp_path, settings) as system:
        yield Pool(system, provider, 0)


def test_the_key_with_the_most_left_is_chosen_in_all_workers(own: Pool, provider: FakeProvider) -> None:
    low, high, middle = keys = [own.new_key() for _ in range(3)]
    for key, used in ((low, 90), (high, 10), (middle, 50)):
        provider.allowances[key] = Allowance(used=used, total=100)
    own.imported(keys)
    own.keys += keys
    assert synced(own)["success"] == 3
    eventually(lambda: chosen(own) == {high}, what="the choice of the key with the most left")
    figures = {row["key"][-4:]: (row["used"], row["limit"], row["remaining"]) for row in usage(own)}
    assert figures == {low[-4:]: (90, 100, 10), high[-4:]: (10, 100, 90), middle[-4:]: (50, 100, 50)}

    provider.allowances[high] = Allowance(used=95, total=100)
    synced(own)
    eventually(lambda: chosen(own) == {middle}, what="the choice of the key that has the most left now")
    today = own.system.admin("GET", "/admin/token/history?days=1").body["data"][0]
    assert (today["used"], today["limit"], today["spent"]) == (235, 300, 85)

    provider.allowances[low] = Allowance(used=0, total=100)
    provider.moved.add(CHAT_USAGE)
    assert synced(own)["failed"] == 3
    assert {(row["error"], row["used"] is None) for row in usage(own)} == {("http_404", False)}
    assert chosen(own) == {middle}
    summary = own.system.admin("GET", "/admin/token/summary").body["data"]
    assert (summary["known_keys"], summary["failed_keys"], summary["total_remaining"]) == (3, 3, 65)


def test_an_interval_that_is_set_has_balances_read_without_being_asked(own: Pool, provider: FakeProvider) -> None:
    (key,) = [own.new_key()]
    provider.allowances[key] = Allowance(used=7, total=100)
    own.imported([key])
    answer = own.system.admin("PUT", "/admin/config", {"balance": {"interval_s": INTERVAL_S}})
    assert answer.status == 200, answer
    eventually(lambda: usage(own)[0]["used"] == 7, 2 * INTERVAL_S, what="the first sync")
    provider.allowances[key] = Allowance(used=9, total=100)
    eventually(lambda: usage(own)[0]["used"] == 9, 3 * INTERVAL_S, what="the next sync")


def synced(pool: Pool) -> dict[str, Any]:
    """How a sync ended."""
    begun = pool.system.admin("POST", SYNC)
    assert begun.status == 202, begun
    eventually(lambda: state(pool)["state"] != "running", what="the end of the sync")
    assert state(pool)["state"] == "done"
    return state(pool)


def state(pool: Pool) -> dict[str, Any]:
    found: dict[str, Any] = pool.system.admin("GET", SYNC).body["data"]
    return found


def usage(pool: Pool) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pool.system.admin("GET", "/admin/token/usage").body["data"]["keys"]
    return found


def chosen(pool: Pool) -> set[str]:
    """The keys that each worker takes for a few requests."""
    marker = pool.marker()
    with pool.client_of_each_worker() as clients:
        for client in clients:
            for _ in range(4):
                assert pool.ask(client=client, marker=marker).status == 200
    return {each.key for each in pool.provider.with_marker(marker)}
