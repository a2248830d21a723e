"""What is changed of keys holds on all workers at once: a ban, a new key, one that is disabled, enabled or deleted.

Each takes a median of several, for one stall of a busy machine says nothing of the relay.
"""

import time
from statistics import median

import pytest

from loadtests.fake_provider_keys import Behaviour, Does
from tests.end_to_end.calls import Call, bad
from tests.end_to_end.key_pool import Pool, Pools
from tests.end_to_end.raw_client import RawClient
from tests.end_to_end.waiting import eventually, never

AT_ONCE_S = 0.1
AT_LAST_S = 2.0
LOOK_S = 0.005
TIMES = 5
MODELS = Call("openai", "/v1/models", {})


@pytest.mark.parametrize("does", [Does.PAYMENT_REQUIRED, Does.OUT_OF_QUOTA])
def test_a_ban_holds_everywhere_at_once(pool: Pool, does: Does) -> None:
    *failing, _ = pool.add(TIMES + 1)
    spreads_s = []
    for key in failing:
        pool.plan([key], Behaviour(does))
        assert bad(pool.crowd(each=5)) == []
        used = [each for each in pool.used(key) if each.does is does]
        assert used[0].ended_s is not None
        spreads_s.append(used[-1].began_s - used[0].ended_s)
        assert bad(pool.crowd(clients=4)) == []
        assert pool.used(key)[-1] is used[-1], "it was used again"
        eventually(lambda key=key: pool.status_of(key) == "banned", what="the ban in the list")  # type: ignore[misc]
    assert median(spreads_s) <= AT_ONCE_S, spreads_s
    assert max(spreads_s) <= AT_LAST_S, spreads_s


def test_a_ban_tells_its_reason_in_the_list(pool: Pool) -> None:
    failing, good = pool.add(2)
    pool.plan([failing], Behaviour(Does.PAYMENT_REQUIRED))
    assert bad(pool.crowd(clients=4)) == []
    eventually(lambda: pool.status_of(failing) == "banned")
    row = pool.rows()[failing]
    assert row["banned_at"]
    assert row["banned_reason"]
    assert pool.status_of(good) == "active"


def test_a_new_key_is_used_at_once(pools: Pools) -> None:
    waits_s = []
    for _ in range(TIMES):
        pool = pools.new()
        with pool.client_of_each_worker() as clients:
            assert {pool.ask(MODELS, client=client, method="GET").status for client in clients} == {503}
            pool.imported([pool.new_key()])
            imported_s = time.monotonic()
            for client in clients:
                wait_until(pool, client, 200)
            waits_s.append(time.monotonic() - imported_s)
    assert median(waits_s) <= AT_ONCE_S, waits_s


def test_a_key_is_disabled_and_enabled_at_once(pools: Pools) -> None:
    off_s: list[float] = []
    on_s: list[float] = []
    pool = pools.new()
    (key,) = pool.add(1)
    name = pool.id_of(key)
    with pool.client_of_each_worker() as clients:
        for _ in range(TIMES):
            for status, wanted, waits_s in (("disabled", 503, off_s), ("active", 200, on_s)):
                answer = pool.system.admin("PATCH", f"/admin/keys/{name}/toggle", {"status": status})
                assert answer.status == 200, answer
                told_s = time.monotonic()
                for client in clients:
                    wait_until(pool, client, wanted)
                waits_s.append(time.monotonic() - told_s)
                assert pool.status_of(key) == status
    assert median(off_s) <= AT_ONCE_S, off_s
    assert median(on_s) <= AT_ONCE_S, on_s


def wait_until(pool: Pool, client: RawClient, status: int) -> None:
    end_s = time.monotonic() + AT_LAST_S
    while (told := pool.ask(MODELS, client=client, method="GET").status) != status:
        assert time.monotonic() < end_s, f"still {told}"
        time.sleep(LOOK_S)


def test_a_key_that_is_deleted_is_used_no_more(pool: Pool) -> None:
    gone, stays = pool.add(2)
    answer = pool.system.admin("DELETE", f"/admin/keys/{pool.id_of(gone)}")
    assert answer.status == 200, answer
    time.sleep(2 * AT_ONCE_S)
    seen = len(pool.used(gone))
    assert bad(pool.crowd()) == []
    assert len(pool.used(gone)) == seen
    assert pool.used(stays)
    assert set(pool.rows()) == {stays}


def test_requests_lose_nothing_while_keys_come_and_go(pool: Pool) -> None:
    """Half of the keys are disabled and enabled again and again under load."""
    keys = pool.add(4)
    names = [pool.id_of(key) for key in keys[:2]]
    told = []
    for _ in range(5):
        for status in ("disabled", "active"):
            for name in names:
                assert pool.system.admin("PATCH", f"/admin/keys/{name}/toggle", {"status": status}).status == 200
            told += pool.crowd(clients=8)
    assert bad(told) == []
    assert all(pool.provider.processed(each.marker) == 1 for each in told)


def test_a_banned_key_that_is_enabled_by_hand_is_used_again(pool: Pool) -> None:
    """An operator has paid the bill, and does not want to wait."""
    paid, _ = pool.add(2)
    pool.plan([paid], Behaviour(Does.PAYMENT_REQUIRED))
    assert bad(pool.crowd()) == []
    eventually(lambda: pool.status_of(paid) == "banned")
    pool.plan([paid])
    seen = len(pool.used(paid))
    name = pool.id_of(paid)
    assert pool.system.admin("PATCH", f"/admin/keys/{name}/toggle", {"status": "active"}).status == 200
    eventually(lambda: bad(pool.crowd(clients=4)) == [] and len(pool.used(paid)) > seen, what="its use")
    assert pool.status_of(paid) == "active"
    never(lambda: pool.status_of(paid) == "banned", 1.5, what="the old ban")
