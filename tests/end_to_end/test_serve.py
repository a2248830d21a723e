"""`relaygate serve`: everything on one machine, with nothing installed."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.fake_upstream import UpstreamInThread
from tests.end_to_end.process_tree import is_alive
from tests.end_to_end.raw_client import ClosedEarlyError
from tests.end_to_end.relay_process import START_DEADLINE_S
from tests.end_to_end.system import System
from tests.end_to_end.waiting import eventually

REDIS = r"redis-server|valkey-server"
ADMIN = r"-m admin admin"
PROXY = r"-m admin proxy"


@pytest.fixture(name="system")
def fixture_system(tmp_path: Path, upstream: UpstreamInThread) -> Iterator[System]:
    system = System(tmp_path, {"routes": {"/file": upstream.url}})
    system.start()
    try:
        eventually(system.admin_answers, 10, what="the admin API")
        yield system
    finally:
        if system.process is not None and system.process.poll() is None:
            system.kill()


def status(system: System, path: str) -> int:
    """What the relay says, 0 where it does not answer."""
    try:
        return system.get(path).status
    except (OSError, ClosedEarlyError):
        return 0


def add(system: System, prefix: str, target: str) -> None:
    answer = system.admin("POST", "/api/mappings", {"prefix": prefix, "target": target})
    assert answer.status == 201, answer


def test_it_serves_the_file_and_what_the_admin_api_adds(system: System, upstream: UpstreamInThread) -> None:
    eventually(lambda: status(system, "/file/echo") == 200)
    assert status(system, "/added/echo") == 404
    began_s = time.monotonic()
    add(system, "/added", upstream.url)
    eventually(lambda: status(system, "/added/echo") == 200, 2)
    assert time.monotonic() - began_s < 2
    system.stop()


def test_edits_and_the_token_survive_a_restart(system: System, upstream: UpstreamInThread) -> None:
    add(system, "/added", upstream.url)
    eventually(lambda: status(system, "/added/echo") == 200)
    system.stop()
    system.start()
    eventually(lambda: status(system, "/added/echo") == 200)
    assert status(system, "/file/echo") == 200
    eventually(system.admin_answers, 10)
    assert system.admin("GET", "/api/mappings", token="another").status == 401
    assert system.admin("GET", "/api/mappings").body["count"] == 2
    system.stop()


@pytest.mark.parametrize("part", [ADMIN, PROXY])
def test_a_parent_that_is_killed_alone_is_started_again(system: System, part: str) -> None:
    """Its workers have let the address go by then."""
    eventually(lambda: status(system, "/file/echo") == 200)
    killed = system.pids_of(part)
    os.kill(min(killed), signal.SIGKILL)  # workers are younger
    eventually(lambda: not any(map(is_alive, killed)), 15, what="the end of the workers")
    eventually(system.admin_answers, 15)
    eventually(lambda: status(system, "/file/echo") == 200, 15)
    system.excuse_output()
    system.stop()


@pytest.mark.parametrize("part", [REDIS, ADMIN, PROXY])
def test_what_is_killed_is_started_again(system: System, upstream: UpstreamInThread, part: str) -> None:
    eventually(lambda: status(system, "/file/echo") == 200)
    killed = system.pids_of(part)
    assert killed
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: system.pids_of(part) - killed, 10, what="another process")
    eventually(system.admin_answers, 15)
    eventually(lambda: status(system, "/file/echo") == 200)
    add(system, "/after", upstream.url)
    eventually(lambda: status(system, "/after/echo") == 200)
    system.excuse_output()
    system.stop()


def test_the_relay_serves_on_while_the_control_plane_and_redis_are_gone(
    system: System, upstream: UpstreamInThread
) -> None:
    add(system, "/added", upstream.url)
    eventually(lambda: status(system, "/added/echo") == 200)
    for pid in system.pids_of(REDIS) | system.pids_of(ADMIN):
        os.kill(pid, signal.SIGKILL)
    for _ in range(50):
        assert status(system, "/added/echo") == 200
    system.excuse_output()
    eventually(system.admin_answers, 15)
    system.stop()


def test_nothing_outlives_a_supervisor_that_is_killed(system: System) -> None:
    family = system.pids()
    assert system.process is not None
    os.kill(system.process.pid, signal.SIGKILL)
    system.process.wait()
    eventually(lambda: not any(map(is_alive, family)), 10, what="the end of all processes")


def test_the_first_start_makes_a_token_and_prints_it_once(tmp_path: Path) -> None:
    system = System(tmp_path, {"routes": {}}, environment={"ADMIN_TOKEN": ""})
    system.start()
    try:
        eventually(system.admin_answers, START_DEADLINE_S, what="the admin API")
        (token,) = [word for word in system.output().split() if word.startswith("rga_")]
        assert system.admin("GET", "/api/mappings", token=token).status == 200
        system.stop()
        system.start()
        eventually(system.admin_answers, 10)
        assert system.output().count("rga_") == 1
        assert system.admin("GET", "/api/mappings", token=token).status == 200
        system.stop()
    finally:
        if system.process is not None and system.process.poll() is None:
            system.kill()


def test_a_hangup_applies_the_file_and_leaves_what_was_edited_otherwise(
    system: System, upstream: UpstreamInThread
) -> None:
    add(system, "/added", upstream.url)
    system.configuration["routes"] = {"/file2": upstream.url}
    system.write_configuration()
    system.signal(signal.SIGHUP)
    eventually(lambda: status(system, "/file2/echo") == 200, what="the file's new route")
    eventually(lambda: status(system, "/file/echo") == 404, what="the end of the route that left the file")
    eventually(lambda: status(system, "/added/echo") == 200)
    eventually(system.admin_answers, 10)
    assert system.admin("GET", "/api/mappings").body["count"] == 2
    system.stop()


def test_a_hangup_with_a_file_that_cannot_be_used_changes_nothing(system: System) -> None:
    eventually(lambda: status(system, "/file/echo") == 200)
    system.config_file.write_text("routes: {/file: 7}")
    system.signal(signal.SIGHUP)
    eventually(lambda: system.output().count("configuration not reloaded") == 2, what="a line of each plane")
    assert status(system, "/file/echo") == 200
    assert system.admin_answers()
    system.stop()
