"""Bans and keys outlive whatever is restarted or killed; while Redis is gone, keys are used all the same."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.fake_provider import FakeProvider
from loadtests.fake_provider_keys import Behaviour, Does
from tests.end_to_end.calls import bad
from tests.end_to_end.key_pool import Pool, configuration
from tests.end_to_end.process_tree import is_alive
from tests.end_to_end.raw_client import ClosedEarlyError
from tests.end_to_end.system import serving
from tests.end_to_end.waiting import eventually

REDIS = r"redis-server|valkey-server"
ADMIN = r"-m admin admin"
PROXY = r"-m admin proxy"
ON_DISK_S = 1.5
"""The append-only file is synced each second."""
BACK_S = 20.0


@pytest.fixture(name="pool")
def fixture_pool(tmp_path: Path, provider: FakeProvider) -> Iterator[Pool]:
    """A system of its own, with two good keys and one that has been banned."""
    with serving(tmp_path, configuration(provider, 1)) as system:
        pool = Pool(system, provider, 0)
        failing, *_ = pool.add(3)
        pool.plan([failing], Behaviour(Does.PAYMENT_REQUIRED))
        assert bad(pool.crowd()) == []
        eventually(lambda: pool.status_of(failing) == "banned", what="the ban in SQL")
        time.sleep(ON_DISK_S)
        yield pool


def answers(pool: Pool) -> bool:
    try:
        return pool.ask().status == 200
    except (OSError, ClosedEarlyError):
        return False


def assert_ban_holds(pool: Pool) -> None:
    failing, *good = pool.keys
    seen = {key: len(pool.used(key)) for key in pool.keys}
    assert bad(pool.crowd()) == []
    assert len(pool.used(failing)) == seen[failing], "the banned key was used"
    assert all(len(pool.used(key)) > seen[key] for key in good)


def test_a_restart_of_all(pool: Pool) -> None:
    pool.system.stop()
    pool.system.start()
    eventually(lambda: answers(pool), BACK_S, what="an answer")
    assert_ban_holds(pool)
    eventually(pool.system.admin_answers, BACK_S)
    assert pool.status_of(pool.keys[0]) == "banned"


@pytest.mark.parametrize(
    "parts", [PROXY, f"{REDIS}|{PROXY}", f"{REDIS}|{ADMIN}|{PROXY}"], ids=["relay", "redis", "all"]
)
def test_what_is_killed_comes_back_with_its_bans(pool: Pool, parts: list[str]) -> None:
    """Where Redis is killed, the relay is too, so that no worker knows of the ban any more."""
    killed = pool.system.pids_of("|".join(parts))
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not any(map(is_alive, killed)), BACK_S)
    eventually(lambda: answers(pool), BACK_S, what="an answer")
    pool.system.excuse_output()
    eventually(pool.system.admin_answers, BACK_S)
    assert_ban_holds(pool)


def test_keys_are_used_while_redis_and_the_control_plane_are_gone(pool: Pool) -> None:
    for pid in pool.system.pids_of(REDIS) | pool.system.pids_of(ADMIN):
        os.kill(pid, signal.SIGKILL)
    assert_ban_holds(pool)
    pool.system.excuse_output()
    eventually(pool.system.admin_answers, BACK_S)
    assert_ban_holds(pool)


def test_a_ban_that_is_made_without_redis_holds_in_its_worker(pool: Pool) -> None:
    """Each worker finds out by itself, and no client sees an error."""
    _, failing, _ = pool.keys
    for pid in pool.system.pids_of(REDIS) | pool.system.pids_of(ADMIN):
        os.kill(pid, signal.SIGKILL)
    pool.plan([failing], Behaviour(Does.PAYMENT_REQUIRED))
    assert bad(pool.crowd()) == []
    pool.system.excuse_output()
    eventually(pool.system.admin_answers, BACK_S)
    assert bad(pool.crowd()) == []


def test_a_good_key_that_was_banned_comes_back_after_all(tmp_path: Path, provider: FakeProvider) -> None:
    """Every ban ends, also one that a restart lies in."""
    settings = configuration(provider, 1, ban_s=4.0)
    with serving(tmp_path, settings) as system:
        pool = Pool(system, provider, 0)
        failing, _ = pool.add(2)
        pool.plan([failing], Behaviour(Does.PAYMENT_REQUIRED, for_s=2.0))
        assert bad(pool.crowd()) == []
        system.stop()
        system.start()
        eventually(lambda: answers(pool), BACK_S)
        seen = len(pool.used(failing))
        eventually(lambda: bad(pool.crowd(clients=4)) == [] and len(pool.used(failing)) > seen, 15, what="its use")
        eventually(system.admin_answers, BACK_S)
        eventually(lambda: pool.status_of(failing) == "active", what="the end of the ban in the list")
