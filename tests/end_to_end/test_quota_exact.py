"""A quota admits exactly itself: two groups of workers on one Redis, hundreds of clients, and whatever is killed.

The ledger is what is believed: each request that a client saw answered has its row, and `relaygate ledger verify` finds
that rows add up to what remains, in SQL and in Redis.
"""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtests.changes import sqlite_locked
from loadtests.fake_upstream import UpstreamInThread
from loadtests.processes import family
from tests.end_to_end.crowd import Crowd
from tests.end_to_end.relay_process import REPOSITORY, Relay
from tests.end_to_end.system import System
from tests.end_to_end.waiting import eventually

QUOTA = 10_000
CLIENTS = 200
EACH = 100
WORKERS = 2
WORKER = r"-m (admin|proxy) proxy"
TAKEN_S = 30.0
"""How long the ledger may take to be in SQL once all is well again; under load it is 5 s behind at most."""
BACK_S = 30.0
STANDSTILL_S = 30.0
PAUSE_S = 0.5
"""Between one disturbance and the next: all requests take a few seconds."""

pytestmark = [pytest.mark.alone, pytest.mark.timeout(180)]


class Metered:
    """Two groups of workers that share a Redis, and one token with a quota."""

    def __init__(self, directory: Path, upstream: UpstreamInThread) -> None:
        routes = {"/metered": {"target": upstream.url, "access": "token"}}
        server = {"workers": WORKERS, "access_log": False}
        folders = [directory / "first", directory / "second"]
        for folder in folders:
            folder.mkdir()
        self.database = folders[0] / "data" / "relaygate.db"
        self.first = System(folders[0], {"server": server, "routes": routes})
        redis = {"url": f"unix://{folders[0] / 'data' / 'redis' / 'redis.sock'}"}
        self.second = Relay(
            folders[1], {"server": server, "redis": redis, "data_dir": str(folders[1]), "routes": routes}
        )
        self.token: dict[str, Any] = {}

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        relays: list[Relay] = [self.first, self.second]
        try:
            self.first.start()
            eventually(self.first.admin_answers, 15, what="the admin API")
            self.second.start()
            self.token = self.made()
            yield
            self.second.stop()
            self.first.stop()
        except BaseException:
            print(self.first.tail(), self.second.tail())  # pytest shows it with the failure
            raise
        finally:
            for relay in relays:
                if relay.process is not None and relay.process.poll() is None:
                    relay.kill()

    def made(self) -> dict[str, Any]:
        asked = {"ws_id": "w", "email": "a@example.com", "operation": "unlimited"}
        answer = self.first.admin("POST", "/flow/tokens", {**asked, "quota_type": "count", "total_quota": QUOTA})
        assert answer.status == 200, answer
        made: dict[str, Any] = answer.body["data"]
        return made

    def crowd(self, name: str) -> Crowd:
        fields = [(b"authorization", f"Bearer {self.token['access_token']}".encode())]
        return Crowd([self.first.port, self.second.port], "/metered/v1/models", fields, name)

    def remaining(self) -> int:
        answer = self.first.admin("GET", f"/flow/tokens/{self.token['id']}/quota")
        assert answer.status == 200, answer
        return int(answer.body["data"]["remaining_quota"])

    def rows(self) -> list[dict[str, Any]]:
        """The whole ledger of the token."""
        found: list[dict[str, Any]] = []
        while True:
            path = f"/flow/tokens/{self.token['id']}/quota/logs?page={len(found) // 1000 + 1}&page_size=1000"
            answer = self.first.admin("GET", path)
            assert answer.status == 200, answer
            found += answer.body["data"]["logs"]
            if len(answer.body["data"]["logs"]) < 1000:
                return found

    def verified(self) -> str:
        """What `relaygate ledger verify` says, once the stream is empty."""
        eventually(self.is_taken, TAKEN_S, what="the ledger in SQL")
        command = [sys.executable, "-m", "admin", "ledger", "verify", "--config", str(self.first.config_file)]
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), **self.first.environment}
        done = subprocess.run(
            command, env=environment, cwd=self.first.directory, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def is_taken(self) -> bool:
        with contextlib.suppress(OSError):
            answer = self.first.admin("GET", "/flow/cache-write-pool/stats")
            return answer.status == 200 and answer.body["data"]["log_queue_len"] == 0
        return False

    def workers(self) -> list[int]:
        """All worker processes of both groups: those that a parent of a plane has forked."""
        found = []
        for relay in (self.first, self.second):
            assert relay.process is not None
            parents = family(relay.process.pid, WORKER) or [relay.process.pid]
            found += [pid for parent in parents[:1] for pid in family(parent, "")]
        return found


@pytest.fixture(name="metered")
def fixture_metered(tmp_path: Path, upstream: UpstreamInThread) -> Iterator[Metered]:
    metered = Metered(tmp_path, upstream)
    with metered.running():
        yield metered


def assert_exact(metered: Metered, crowd: Crowd) -> None:
    """The quota is used up to the unit, and each answer has its row."""
    assert metered.remaining() == 0
    metered.verified()
    rows = metered.rows()
    consumed = {row["request_id"] for row in rows if row["action"] == "consume"}
    given_back = sum(row["action"] == "refund" for row in rows)
    assert len(consumed) == sum(row["action"] == "consume" for row in rows)
    assert len(consumed) - given_back == QUOTA
    answered = {asked.request_id for asked in crowd.asked if asked.status == 200}
    assert answered <= consumed
    assert len(answered) <= QUOTA


def test_exactly_the_quota_is_admitted(metered: Metered) -> None:
    crowd = metered.crowd("all")
    crowd.ask(CLIENTS, EACH)
    assert crowd.statuses() == {200: QUOTA, 429: CLIENTS * EACH - QUOTA}
    assert_exact(metered, crowd)
    outcomes = {row["execution_success"] for row in metered.rows() if row["action"] == "consume"}
    assert outcomes == {True}


def test_exactly_the_quota_is_admitted_while_sql_stands_still(metered: Metered) -> None:
    crowd = metered.crowd("unwritten")
    with sqlite_locked(metered.database):
        until_s = time.monotonic() + STANDSTILL_S
        crowd.ask(CLIENTS, EACH)
        time.sleep(max(0.0, until_s - time.monotonic()))
    assert crowd.statuses() == {200: QUOTA, 429: CLIENTS * EACH - QUOTA}
    metered.first.excuse_output()
    assert_exact(metered, crowd)


def kill_a_worker(metered: Metered) -> None:
    for pid in metered.workers()[:1]:
        os.kill(pid, signal.SIGKILL)


def kill_redis(metered: Metered) -> None:
    for pid in metered.first.pids_of(r"redis-server|valkey-server"):
        os.kill(pid, signal.SIGKILL)


def kill_the_control_plane(metered: Metered) -> None:
    for pid in metered.first.pids_of(r"-m admin admin"):
        os.kill(pid, signal.SIGKILL)


def stop_sql(metered: Metered) -> None:
    with sqlite_locked(metered.database):
        time.sleep(5)


DISTURBANCES = (kill_a_worker, kill_redis, kill_the_control_plane, stop_sql)


def test_exactly_the_quota_is_admitted_whatever_is_killed(metered: Metered) -> None:
    """One after the other, each once at least, and the first three before the quota is used up."""
    crowd = metered.crowd("disturbed")
    over = threading.Event()
    left: list[int] = []

    def disturbing() -> None:
        for turn, disturb in enumerate(itertools.cycle(DISTURBANCES)):
            if over.wait(PAUSE_S) and turn >= len(DISTURBANCES):
                return
            disturb(metered)
            left.append(QUOTA - sum(asked.status == 200 for asked in crowd.asked))

    thread = threading.Thread(target=disturbing)
    thread.start()
    try:
        crowd.ask(CLIENTS, EACH)
    finally:
        over.set()
        thread.join()
    assert min(left[: len(DISTURBANCES) - 1]) > 0
    metered.first.excuse_output()
    metered.second.excuse_output()
    eventually(metered.first.admin_answers, BACK_S, what="the admin API")
    assert set(crowd.statuses()) <= {0, 200, 429, 503}
    for turn in range(60):  # what is left of the quota, after answers that did not come
        rest = metered.crowd(f"rest-{turn}")
        rest.ask(10, 20)
        crowd.asked += rest.asked
        if set(rest.statuses()) == {429}:
            break
        time.sleep(0.5)
    eventually(lambda: metered.remaining() == 0, 10, what="the last unit")
    assert_exact(metered, crowd)
