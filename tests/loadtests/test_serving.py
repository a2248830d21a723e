"""A system is handed over once both planes answer right, and each of its processes is known for what it is."""

from pathlib import Path

import pytest

from loadtests import serving as module
from loadtests.cases import WrongAnswerError, exchange, expect
from loadtests.processes import StartError, descendants
from loadtests.serving import memory_by_part, serving, wait_for
from loadtests.upstreams import ANSWER, Upstreams
from loadtests.wrk import REQUEST_PATH


def test_both_planes_answer_and_every_process_has_a_name(origins: Upstreams, tmp_path: Path) -> None:
    routes = {"/more": f"http://127.0.0.1:{origins.http.port}"}
    with serving(origins, tmp_path, 2, routes) as system:
        assert 0 < system.relayed_s <= system.admin_s
        for path in (REQUEST_PATH, "/more/x"):
            expect(exchange(system.port, "GET", path, None, {}), ANSWER)
        assert exchange(system.admin_port, "GET", "/api/mappings", None, {})[0] == 401
        sizes = memory_by_part(system.supervisor)
        parts = {"supervisor", "Redis", "admin API, parent", "admin API, worker", "relay, parent", "relay, worker"}
        assert sizes.keys() == parts
        assert min(sizes.values()) > 1_000_000
        processes = descendants(system.supervisor)
        assert len(processes) == len(parts), "two workers of the relay, and all but the supervisor itself"
    assert not descendants(system.supervisor)


def test_what_never_answers_right_is_given_up_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask() -> None:
        raise WrongAnswerError("status 503")

    monkeypatch.setattr(module, "START_TIMEOUT_S", 0.05)
    with pytest.raises(StartError, match="status 503"):
        wait_for(ask)
