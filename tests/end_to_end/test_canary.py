"""A secret in every place that a secret can sit, and a search for it in everything that comes out.

Searched: what is printed at the level debug with the access log on, the data directory, everything said to Redis and
its append-only file, answers to clients, and every answer of the admin API but those that are asked for secrets.
"""

import json
import os
import re
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from loadtests.fake_provider import FakeProvider
from loadtests.processes import free_port
from tests.end_to_end.canaries import Canaries
from tests.end_to_end.planted import EXCUSED_FILES, Planted
from tests.end_to_end.system import System
from tests.end_to_end.waiting import eventually, settled
from tests.redis_servers import server

TELLS_SECRETS = re.compile(r"export|full|reveal")
ENDLESS = re.compile(r"stream")
LIVE_LOG = "/admin/logs/stream"
GROUP = "canaries"


@pytest.fixture(name="planted")
def fixture_planted(tmp_path: Path, provider: FakeProvider) -> Planted:
    return Planted(tmp_path, provider)


@pytest.mark.timeout(180)
def test_no_secret_is_where_none_may_be(planted: Planted) -> None:
    with planted.running() as system:
        eventually(system.admin_answers, 15, what="the admin API")
        keys = planted.keys()
        import_keys(planted, keys)
        listener = threading.Thread(target=planted.listen, args=(LIVE_LOG,))
        listener.start()
        while listener.is_alive():
            planted.traffic()
        ask_wrongly(planted, keys)
        read_everything(planted)
        kill_some(planted)
        planted.traffic()
        read_everything(planted)
        exported = planted.admin("GET", "/admin/keys/export?status=all")
        planted.answers = [answer for answer in planted.answers if not TELLS_SECRETS.search(answer[0])]
        system.excuse_output()  # of who was killed
    assert_planted(planted, keys, exported)
    assert_not_found(planted)


def import_keys(planted: Planted, keys: list[str]) -> None:
    planted.admin("POST", "/admin/pool-groups", json.dumps({"id": GROUP, "priority": 1}).encode())
    answer = json.loads(planted.admin("POST", "/admin/keys/batch", json.dumps({"keys": keys[1:]}).encode()))
    assert answer["success"] is True, answer
    one = {"key": keys[0], "notes": "the good one", "poolGroup": GROUP}
    answer = json.loads(planted.admin("POST", "/admin/keys", json.dumps(one).encode()))
    assert answer["success"] is True, answer

    def used() -> int:
        planted.traffic()
        return planted.provider.uses()[keys[0]]

    eventually(used, 30, what="the use of a key")


def ask_wrongly(planted: Planted, keys: list[str]) -> None:
    """Requests to the admin API that are refused, with secrets where they hurt."""
    odd = planted.canaries.plant("key-odd")
    for body in (
        json.dumps({"keys": [keys[0], f"{odd} with spaces", f"{odd}\n", f"{odd}\x00"]}).encode(),
        json.dumps({"keys": f"{odd}, {odd}"}).encode(),
        json.dumps({"keys": [{odd: odd}], odd: odd}).encode(),
        f'{{"keys": ["{odd}", '.encode(),
    ):
        planted.admin("POST", "/admin/keys/batch", body)
        planted.admin("POST", "/admin/keys", body)
    planted.admin("POST", "/admin/keys", json.dumps({"key": keys[0]}).encode())
    planted.admin("POST", "/admin/keys/batch", f"{keys[0]}\n{odd} {odd}\n".encode(), "text/plain")
    planted.admin("POST", "/admin/keys/batch", f'key,notes\n{odd} {odd},"{odd}\n'.encode(), "text/csv")
    for path in ("/api/admin/login", "/api/login"):
        wrong = {"token": planted.admin_token + "x", "password": planted.admin_token + "x"}
        planted.admin("POST", path, json.dumps(wrong).encode())
    planted.admin("GET", f"/admin/keys/{keys[0].replace('/', '%2F')}")
    planted.admin("DELETE", f"/admin/keys/{keys[0].replace('/', '%2F')}")


def read_everything(planted: Planted) -> None:
    """Every GET of the OpenAPI document, each parameter with whatever it may be; tests of keys and balances."""
    rows = listed(planted)
    request_id = "nobody"
    for where, answer in planted.answers:
        found = re.search(rb"x-(?:relaygate-)?request-id: (\S{24})\r\n", answer)
        if where.startswith("client of /pool") and found:
            request_id = found[1].decode()
    wanted = [str(row["id"]) for row in rows] + [request_id, GROUP, "1", "2", "pool%2Fopenai"]
    document = json.loads(planted.admin("GET", "/schema/openapi.json"))
    for path, operations in document["paths"].items():
        if "get" in operations and not TELLS_SECRETS.search(path) and not ENDLESS.search(path):
            for value in wanted if "{" in path else [""]:
                planted.admin("GET", re.sub(r"\{[^}]+\}", value, path))
    sync_balances(planted)
    for row in rows:
        planted.admin("POST", f"/admin/keys/{row['id']}/test")
    planted.admin("POST", "/admin/keys/test-all")
    planted.answers.append(("GET /stats of the relay", planted.system.get("/stats").body))


def sync_balances(planted: Planted) -> None:
    """Those of keys that the provider does not know are refused in words that have the key in them."""
    path = "/admin/token/sync"
    planted.admin("POST", path)
    eventually(lambda: b'"running"' not in planted.admin("GET", path), what="the end of the sync")
    planted.admin("GET", "/admin/token/usage?limit=100")


def listed(planted: Planted) -> list[dict[str, Any]]:
    data = json.loads(planted.admin("GET", "/admin/keys?limit=100"))["data"]
    rows: list[dict[str, Any]] = data if isinstance(data, list) else data["keys"]
    return rows


def kill_some(planted: Planted) -> None:
    """A worker of the relay and the whole control plane, in the middle of traffic."""
    system = planted.system
    busy = threading.Thread(target=planted.traffic)
    busy.start()
    for pid in [max(system.pids_of(r"-m admin proxy")), *system.pids_of(r"-m admin admin")]:
        os.kill(pid, signal.SIGKILL)
    busy.join()
    eventually(system.admin_answers, 20, what="the admin API")
    system.signal(signal.SIGHUP)


def assert_planted(planted: Planted, keys: list[str], exported: bytes) -> None:
    """The canaries were in use, or there would be nothing to find."""
    used = set(planted.provider.uses())
    assert planted.canaries.secrets["fixed"] in used
    assert any(key.startswith("access-") for key in used), "OAuth was not used"
    assert set(keys) <= used
    assert {key for _, key in planted.provider.balances_asked} >= {*keys, planted.canaries.secrets["key-odd"]}
    assert {find.name for find in planted.canaries.in_bytes(exported, "export")} >= {"key-good"}
    assert len(planted.commands) > 1000
    assert any(LIVE_LOG in where and b"/pool/openai" in answer for where, answer in planted.answers)


def assert_not_found(planted: Planted) -> None:
    canaries = planted.canaries
    finds = canaries.in_files(planted.directory, EXCUSED_FILES)
    finds += canaries.in_bytes(bytes(planted.commands), "commands to Redis")
    for where, answer in planted.answers:
        finds += canaries.in_bytes(answer, where)
    assert finds == []


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_database_that_is_not_there_is_told_without_its_password(tmp_path: Path, scheme: str) -> None:
    canaries = Canaries()
    password = canaries.known("database", "canary-5ecret-d%2Fb%2B1")
    canaries.known("decoded", "canary-5ecret-d/b+1")
    url = f"{scheme}://relay:{password}@127.0.0.1:{free_port()}/relaygate"
    assert_fails_silently(tmp_path, {"DATABASE_URL": url}, canaries)


def test_a_redis_that_refuses_is_told_without_its_password(tmp_path: Path) -> None:
    canaries = Canaries()
    password = canaries.known("redis", "canary-5ecret-r%2Fs%2B1")
    canaries.known("decoded", "canary-5ecret-r/s+1")
    with server(tmp_path, "--requirepass", "another") as port:
        assert_fails_silently(tmp_path, {"REDIS_URL": f"redis://:{password}@127.0.0.1:{port}/0"}, canaries)


def assert_fails_silently(directory: Path, environment: dict[str, str], canaries: Canaries) -> None:
    """It may serve on or end; what it says of why has no secret in it."""
    system = System(directory, {"server": {"log_level": "debug"}, "routes": {}}, environment=environment)
    system.launch()
    assert system.process is not None
    try:
        eventually(lambda: has_complained(system), 20, what="a line about the store")
        settled(system.output, 1.0)
    finally:
        if system.process.poll() is None:
            system.kill()
    assert canaries.in_files(directory) == []


def has_complained(system: System) -> bool:
    assert system.process is not None
    said = system.output().lower()
    return system.process.poll() is not None or any(word in said for word in ("database", "redis"))
