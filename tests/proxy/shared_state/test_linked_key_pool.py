"""The key pool of a worker that has none, and what may be loaded without redis-py."""

import subprocess
import sys

import pytest

from proxy.shared_state.linked_key_pool import LinkedKeyPool, NoKeyPool
from tests.proxy.shared_state.key_pools import BANNED, Told, credential


def test_no_key_pool_takes_all_and_tells_nothing() -> None:
    pools: list[LinkedKeyPool] = [NoKeyPool(), Told()]
    for pool in pools:
        pool.credentials_changed([credential(1)], [])
        pool.ban_changed("k1", "", BANNED)
        assert (pool.figures.take_counts(), pool.figures.take_bans()) == ([], [])


@pytest.mark.parametrize("module", ["linked_key_pool", "live_log", "unavailable", "credential_events"])
def test_a_worker_without_redis_does_not_load_its_client(module: str) -> None:
    script = f"import sys, proxy.shared_state.{module}; sys.exit('redis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=30).returncode == 0
