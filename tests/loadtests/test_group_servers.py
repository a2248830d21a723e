"""Each rival accepts its configuration for three backends, and has all of them in it."""

import json
import subprocess
from pathlib import Path

import msgspec
import pytest

from loadtests.group_servers import HEALTH_PATH, GroupJob, relaygate_settings
from loadtests.servers import SERVERS
from proxy.config import Balancer, Config
from tests.loadtests.test_servers import CHECKS

PORTS = (9001, 9002, 9003)


@pytest.mark.parametrize("name", CHECKS)
def test_the_rivals_accept_their_configurations(name: str, tmp_path: Path) -> None:
    command, file_name, _ = CHECKS[name]
    server = SERVERS[name]
    assert server.launch_group is not None
    launch = server.launch_group(GroupJob(PORTS, 8001, tmp_path))
    assert launch.port == 8001
    configuration = tmp_path / file_name
    assert all(f"127.0.0.1:{port}" in configuration.read_text() for port in PORTS)
    # The nginx of the community checks nothing by itself.
    assert (HEALTH_PATH in configuration.read_text()) == (name != "nginx")
    if server.missing():
        pytest.skip(f"{name} is not installed")
    ended = subprocess.run([*command, str(configuration)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_relaygate_gets_one_upstream_for_everything(tmp_path: Path) -> None:
    launch = SERVERS["relaygate"].launch_group
    assert launch is not None
    written = json.loads(Path(launch(GroupJob(PORTS, 8001, tmp_path)).command[-1]).read_text())
    assert written["server"]["port"] == 8001
    settings = msgspec.convert({key: written[key] for key in relaygate_settings(PORTS)}, Config)
    [upstream] = settings.upstreams.values()
    assert upstream.balancer is Balancer.LEAST_CONNECTIONS_WEIGHT
    assert [backend.url for backend in upstream.backends] == [f"http://127.0.0.1:{port}" for port in PORTS]
    assert settings.routes["/"].upstream in settings.upstreams


def test_the_naive_proxy_has_one_target_only() -> None:
    assert SERVERS["naive"].launch_group is None
