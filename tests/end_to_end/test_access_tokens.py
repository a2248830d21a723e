"""Access tokens through the admin API as it runs: the calls that reference 002 prints, and a life of a token."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtests.fake_upstream import UpstreamInThread
from tests.end_to_end.system import TOKEN, System, serving
from tests.end_to_end.waiting import eventually

CREATE = """
curl -X POST http://localhost:8080/flow/tokens \\
  -H "Authorization: Bearer YOUR_ADMIN_TOKEN" \\
  -H "Content-Type: application/json" \\
  -d '{
    "ws_id": "test_workspace",
    "email": "test@example.com",
    "operation": "unlimited",
    "quota_type": "count",
    "total_quota": 10,
    "rate_limit_per_minute": 60
  }'
"""
QUOTA = """
curl -X GET "http://localhost:8080/flow/tokens/$TOKEN/quota" \\
  -H "Authorization: Bearer YOUR_ADMIN_TOKEN"
"""
LOGS = """
curl -X GET "http://localhost:8080/flow/tokens/$TOKEN/quota/logs?page=1&page_size=10" \\
  -H "Authorization: Bearer YOUR_ADMIN_TOKEN"
"""
FOUND = """
curl -X GET "http://localhost:8080/flow/tokens?token=$TOKEN" \\
  -H "Authorization: Bearer YOUR_ADMIN_TOKEN"
"""

POOL = """
curl -X GET "http://localhost:8080/flow/cache-write-pool/stats" \\
  -H "Authorization: Bearer YOUR_ADMIN_TOKEN"
"""
CLEANUP = """
curl -X GET "http://localhost:8080/flow/quota/cleanup/stats" \\
  -H "Authorization: Bearer YOUR_ADMIN_TOKEN"
"""


@pytest.fixture(name="system")
def fixture_system(tmp_path: Path, upstream: UpstreamInThread) -> Iterator[System]:
    with serving(tmp_path, {"routes": {"/file": upstream.url}}) as system:
        yield system


def said(system: System, printed: str, token: str = "") -> Any:
    """What a printed command answers."""
    command = printed.replace("localhost:8080", f"127.0.0.1:{system.admin_port}").replace("YOUR_ADMIN_TOKEN", TOKEN)
    done = subprocess.run(["bash", "-c", command], env={"TOKEN": token}, capture_output=True, check=True, timeout=20)
    return json.loads(done.stdout)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_printed_calls_work(system: System) -> None:
    made = said(system, CREATE)
    assert made["success"] is True
    wanted = {"quota_type": "count", "total_quota": 10, "remaining_quota": 10}
    assert made["data"] | wanted == made["data"]
    token = made["data"]["access_token"]
    quota = said(system, QUOTA, token)
    assert quota["data"] | wanted | {"consumed_quota": 0} == quota["data"]
    assert [row["action"] for row in said(system, LOGS, token)["data"]["logs"]] == ["init"]
    (found,) = said(system, FOUND, token)["data"]
    assert found | wanted == found
    assert token not in json.dumps(found)
    queue = {"sync_queue_len", "sync_queue_cap", "log_queue_len", "log_queue_cap", "sync_interval", "sync_batch_size"}
    assert said(system, POOL)["data"].keys() >= queue
    kept = {"enabled": True, "retention_days": 180, "cleanup_interval": "24h0m0s", "batch_size": 10000}
    cleanup = said(system, CLEANUP)["data"]
    assert cleanup | kept == cleanup
    left = [path for path in (Path(system.directory) / "data").rglob("*") if path.is_file()]
    assert left
    assert not [path.name for path in left if token.encode() in path.read_bytes()], "its text lies on disk"


def actions_of(system: System, name: str) -> list[str]:
    logs = system.admin("GET", f"/flow/tokens/{name}/quota/logs").body["data"]["logs"]
    return [row["action"] for row in logs]


def test_the_life_of_a_token(system: System) -> None:
    new = {"ws_id": "w", "email": "e@x.test", "operation": "add", "days": 7, "quota_type": "hybrid", "total_quota": 5}
    made = system.admin("POST", "/flow/tokens", new)
    assert made.status == 200, made
    assert made.body["message"] == "Token created.", "Redis has it"
    name, token = made.body["data"]["id"], made.body["data"]["access_token"]
    changed = system.admin("PUT", f"/flow/tokens/{token}", {"quota_operation": "add", "quota_amount": 7})
    assert changed.body["data"] | {"total_quota": 12, "remaining_quota": 12, "live": True} == changed.body["data"]
    eventually(lambda: actions_of(system, name) == ["recharge", "init"], 5, what="the change in the log")
    off = system.admin("PUT", f"/flow/tokens/{name}", {"state": "disabled"})
    assert (off.body["data"]["is_active"], off.body["message"]) == (False, "Token changed.")
    refused = system.admin("PUT", f"/flow/tokens/{name}", {"operation": "sometimes"})
    assert (refused.status, refused.body["error"]["type"]) == (400, "BadRequest")
    assert system.admin("GET", f"/flow/tokens/{token}/quota", token="wrong").status == 401
    assert system.admin("DELETE", f"/flow/tokens/{token}").status == 200
    assert system.admin("DELETE", f"/flow/tokens/{token}").status == 404
    (gone,) = system.admin("GET", "/flow/tokens?state=deleted").body["data"]
    assert (gone["id"], gone["state"]) == (name, "deleted")
    actions = system.admin("GET", "/api/actions").body["actions"]
    assert [(one["action"], one["outcome"]) for one in actions] == [
        ("token.delete", "not_found"),
        ("token.delete", "done"),
        ("token.change", "done"),
        ("token.change", "done"),
        ("token.create", "done"),
    ]
    assert token not in json.dumps(actions)
    assert token not in system.output()
