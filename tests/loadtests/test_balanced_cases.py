"""The cases with three backends find a proxy that retries, and one that does not, out; the cases of relaygate alone are
in test_own_cases.py.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.balanced_cases import BalancedFailures, BalancedPost, remarks, started
from loadtests.cases import WrongAnswerError
from loadtests.compare import arguments, group_cases
from loadtests.failures import Damage
from loadtests.group_servers import GroupJob
from loadtests.processes import Launch, StartError
from loadtests.samples import Metric
from loadtests.servers import SERVERS, Server
from loadtests.upstreams import Upstreams


def changed(old: str, new: str) -> Server:
    """An nginx with one thing in its configuration changed, where that stands first."""
    nginx = SERVERS["nginx"]

    def launch(job: GroupJob) -> Launch:
        assert nginx.launch_group is not None
        right = nginx.launch_group(job)
        configuration = job.directory / "nginx.conf"
        configuration.write_text(configuration.read_text().replace(old, new, 1))
        return right

    return replace(nginx, launch_group=launch)


def test_posts_through_three_backends(origins: Upstreams, tmp_path: Path) -> None:
    if not shutil.which("wrk"):
        pytest.skip("wrk is not installed")
    outcome = BalancedPost(1).measure(origins, SERVERS["nginx"], tmp_path)
    assert outcome.errors == []
    assert outcome.values[Metric.CPU_US_PER_UNIT] > 0


def test_a_proxy_that_sends_nothing_twice_fails_requests(origins: Upstreams, tmp_path: Path) -> None:
    careless = changed("proxy_next_upstream error timeout http_503", "proxy_next_upstream off")
    outcome = BalancedFailures(0.2, 8).measure(origins, careless, tmp_path)
    assert outcome.values[Metric.FAILED] > 0
    assert any("status 50" in remark for remark in outcome.remarks)
    for metric in (Metric.UNITS_PER_S, Metric.CPU_US_PER_UNIT, Metric.P99_US, Metric.PSS_BYTES, Metric.RECOVERY_S):
        assert outcome.values[metric] > 0


def test_a_proxy_that_leaves_a_backend_out_is_refused(origins: Upstreams, tmp_path: Path) -> None:
    one_sided = changed("max_fails", "down max_fails")
    with pytest.raises(WrongAnswerError, match=r"no request came to backend-0$"):
        BalancedFailures(0.2, 8).measure(origins, one_sided, tmp_path)


def test_a_server_without_groups_does_not_start(tmp_path: Path) -> None:
    with (
        pytest.raises(StartError, match="naive has no upstreams"),
        started(SERVERS["naive"], (1, 2, 3), tmp_path),
    ):
        pass


def test_the_commonest_failures_are_told() -> None:
    assert remarks(Damage(0, 0, 0, 0, {})) == []
    kinds = {"reset": 1, "status 502": 5, "status 503": 2, "refused": 1}
    assert remarks(Damage(9, 0, 0, 0, kinds)) == [
        "9 requests failed: 5 x status 502; 2 x status 503; 1 x reset; …",
    ]


def test_titles_say_what_is_sent() -> None:
    titles = {case.name: case.title for case in group_cases(arguments(["--fault-seconds", "2"]))}
    assert titles["balanced-http-64"].endswith("64 connections, http upstream of 3 backends, least connections")
    assert titles["balanced-failures"].startswith("1,280 GETs/s on 64 connections to 3 backends: one is killed")
    assert "for 2 s each" in titles["balanced-failures"]
