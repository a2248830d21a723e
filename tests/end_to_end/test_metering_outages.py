"""Access tokens while something is away: Redis stopped, killed or emptied, a worker killed. The ledger adds up then.

Redis is stopped rather than killed where something is to be seen meanwhile: a killed one is back at once.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from loadtests.fake_provider import FakeProvider
from loadtests.fake_upstream import UpstreamInThread
from loadtests.processes import family
from tests.end_to_end.harness import Places, RelayFarm
from tests.end_to_end.key_pool import client_of_each_worker
from tests.end_to_end.metering import ROWS_S, WORKERS, Metering, Token, configuration
from tests.end_to_end.raw_client import request_bytes
from tests.end_to_end.relay_process import REPOSITORY
from tests.end_to_end.system import System
from tests.end_to_end.waiting import eventually
from tests.end_to_end.websocket_upstream import WebSocketUpstream

ANSWER = "/up/answer?body=ok"
WORKER = r"-m (admin|proxy) proxy"
ALLOWED = 5
"""Requests that each worker admits of a token without Redis."""
LEASE_S = 15
BACK_S = 15.0


@pytest.fixture(name="fragile", scope="module")
def fixture_fragile(
    farm: RelayFarm,
    provider: FakeProvider,
    upstream: UpstreamInThread,
    websockets: WebSocketUpstream,
    places: Places,
) -> Iterator[Metering]:
    settings = configuration(provider, upstream, websockets, places, outage_requests_max=ALLOWED)
    system = System(farm.directory(), settings)
    farm.adopt(system)
    eventually(system.admin_answers, 15, what="the admin API")
    metering = Metering(system, provider)
    metering.begin()
    yield metering
    farm.stop(system)


@contextlib.contextmanager
def redis_stopped(metering: Metering) -> Iterator[None]:
    pid = metering.redis_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def statuses(metering: Metering, token: Token, each: int) -> list[int]:
    """What each worker answers to so many requests."""
    with client_of_each_worker(metering.system) as clients:
        return [metering.ask(ANSWER, token, client=client).status for client in clients for _ in range(each)]


def served_again(metering: Metering, token: Token) -> None:
    """Waits until one request is served."""
    eventually(lambda: metering.ask(ANSWER, token).status == 200, BACK_S, what="an answer")


def assert_adds_up(metering: Metering, token: Token, used: int) -> None:
    """So many units are gone, each with its row, in SQL as in Redis."""
    metering.remains(token, 1000 - used)
    eventually(metering.is_taken, ROWS_S, what="the rows in SQL")
    rows = metering.rows(token)
    assert sum(row["quota_change"] for row in rows) == -used
    assert [row["sequence"] for row in rows] == list(range(2, len(rows) + 2))
    command = [sys.executable, "-m", "admin", "ledger", "verify", "--config", str(metering.system.config_file)]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), **metering.system.environment}
    done = subprocess.run(
        command, env=environment, cwd=metering.system.directory, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_becomes_of_requests_while_redis_is_away(fragile: Metering) -> None:
    strict = fragile.token(1000)
    kind = fragile.token(1000, on_store_outage="allow")
    for token in (strict, kind):
        assert statuses(fragile, token, 1) == [200] * WORKERS
    with redis_stopped(fragile):
        refused = fragile.ask(ANSWER, strict)
        assert (refused.status, refused.error_type()) == (503, "not_metered")
        assert int(refused.value("retry-after")) >= 1
        assert statuses(fragile, strict, 1) == [503] * WORKERS
        assert statuses(fragile, kind, ALLOWED + 2) == ([200] * ALLOWED + [503] * 2) * WORKERS
    for token in (strict, kind):
        served_again(fragile, token)
    assert_adds_up(fragile, strict, WORKERS + 1)
    assert_adds_up(fragile, kind, WORKERS + WORKERS * ALLOWED + 1)
    consumed = {row["request_id"] for row in fragile.rows(kind) if row["action"] == "consume"}
    assert len(consumed) == WORKERS + WORKERS * ALLOWED + 1, "each that was served has a row of its own"


def test_redis_that_is_killed(fragile: Metering) -> None:
    token = fragile.token(1000)
    good = statuses(fragile, token, 5).count(200)
    assert good == 5 * WORKERS
    eventually(fragile.is_taken, ROWS_S, what="the rows in SQL")
    os.kill(fragile.redis_pid(), signal.SIGKILL)
    served_again(fragile, token)
    good += 1 + statuses(fragile, token, 3).count(200)
    assert_adds_up(fragile, token, good)
    fragile.system.excuse_output()


def test_redis_that_is_emptied_is_filled_from_what_remained(fragile: Metering) -> None:
    token = fragile.token(1000)
    good = statuses(fragile, token, 5).count(200)
    eventually(fragile.is_taken, ROWS_S, what="the rows in SQL")
    with fragile.redis() as client:
        client.flushall()
    refused = fragile.ask(ANSWER, token)
    if refused.status == 200:
        good += 1  # it was filled by then
    else:
        assert (refused.status, refused.error_type()) == (503, "not_metered")
    served_again(fragile, token)
    good += 1 + statuses(fragile, token, 3).count(200)
    assert_adds_up(fragile, token, good)


def test_what_a_killed_worker_held_is_free_after_the_lease(fragile: Metering) -> None:
    token = fragile.token(1000, concurrent=1)
    with fragile.system.client() as client:
        client.send(request_bytes("GET", "/up/hold", token.fields))
        eventually(lambda: fragile.remaining(token) == 999, what="its admission")
        assert fragile.system.process is not None
        (parent, *_) = family(fragile.system.process.pid, WORKER)
        killed = family(parent, "")
        assert len(killed) == WORKERS
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        began_s = time.monotonic()
        eventually(lambda: not set(killed) & set(family(parent, "")), what="their end")
    eventually(lambda: is_served(fragile, token), LEASE_S + 10, what="room for another")
    assert time.monotonic() - began_s > LEASE_S - 6, "it had the room for as long as its worker might be alive"
    rows = eventually(lambda: of_two(fragile.rows(token)), ROWS_S, what="both rows")
    assert [row["action"] for row in rows] == ["consume", "consume"]
    assert rows[0]["execution_success"] is None, "nobody knows how it ended"
    fragile.system.excuse_output()


def of_two(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows, where the second request has ended."""
    return rows if len(rows) == 2 and rows[1]["execution_success"] else []


def is_served(metering: Metering, token: Token) -> bool:
    with contextlib.suppress(OSError):
        return metering.ask(ANSWER, token).status == 200
    return False
