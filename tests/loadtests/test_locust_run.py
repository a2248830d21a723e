"""A scenario runs with one command, and neither a failure nor an empty run passes for a success."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.locust_run import EXIT_STATUSES, NO_REQUEST, SCENARIOS, relay_configuration
from loadtests.upstreams import REPOSITORY


def test_the_relay_gets_a_route_for_each_upstream() -> None:
    configuration = json.loads(relay_configuration(8000, 2, {"/fake": 1, "/sink": 2}))
    server = {"host": "127.0.0.1", "port": 8000, "workers": 2, "allow_private_targets": True}
    assert configuration["server"] == server
    assert configuration["routes"]["/sink"] == {"target": "http://127.0.0.1:2"}


IDLE_USER = """
import time
from locust import User, task

class IdleUser(User):
    @task
    def wait(self):
        time.sleep(1)
"""
WRONG_USER = IDLE_USER.replace(
    "time.sleep(1)",
    "self.environment.events.request.fire("
    "request_type='X', name='x', response_time=1, response_length=0, exception=OSError(), context={}); time.sleep(1)",
)


@pytest.mark.parametrize(("user", "status"), [(IDLE_USER, NO_REQUEST), (WRONG_USER, 1)])
def test_neither_an_empty_run_nor_a_failure_passes_for_a_success(user: str, status: int, tmp_path: Path) -> None:
    scenario = tmp_path / "locustfile_test.py"
    scenario.write_text(user)
    files = f"{scenario},{REPOSITORY / 'loadtests' / 'locust_verdict.py'}"
    command = [sys.executable, "-m", "locust", "-f", files, "--headless", "--users", "1", "--run-time", "1s"]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=50, check=False)
    assert ended.returncode == status, ended.stderr
    assert EXIT_STATUSES[ended.returncode]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_runs_headless_and_every_answer_is_right(scenario: str) -> None:
    command = [sys.executable, "-m", "loadtests.locust_run", scenario, "--users", "1", "--seconds", "1"]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=50, check=False)
    printed = ended.stdout + ended.stderr
    assert ended.returncode == 0, printed
    assert "Aggregated" in printed
    assert f"every answer was right: {scenario}" in printed
