"""Two programs are compared burst by burst, and a wrong answer is never a figure."""

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.measure import session_processes
from loadtests.paired import cpu_ratios, on_one_cpu
from loadtests.processes import Launch, Running, free_port, running
from loadtests.wrk import WrkError, WrkFigures

# For each connection it spends as many milliseconds of CPU as it is told, then closes it.
SPENDER = """
import socket, sys, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    client, _ = listener.accept()
    end = time.process_time() + float(sys.argv[2]) / 1000
    while time.process_time() < end:
        pass
    client.close()
"""


@pytest.fixture(name="spenders")
def fixture_spenders(tmp_path: Path) -> Iterator[tuple[Running, Running]]:
    """The first spends four times as much as the second; both on one CPU."""
    ports = free_port(), free_port()
    heavy, light = (
        on_one_cpu(Launch([sys.executable, "-c", SPENDER, str(port), spent_ms], port))
        for port, spent_ms in zip(ports, ("40", "10"), strict=True)
    )
    with running(heavy, tmp_path / "heavy") as first, running(light, tmp_path / "light") as second:
        yield first, second


def ask(program: Running, *errors: str) -> WrkFigures:
    """Five requests, one after the other, each to its end."""
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", program.port)) as client:
            assert client.recv(1) == b""
    return WrkFigures(requests=5, duration_s=1, p50_us=0, p99_us=0, errors=errors)


def test_cpu_is_compared_burst_by_burst(spenders: tuple[Running, Running]) -> None:
    found = cpu_ratios(*spenders, ask, bursts=3)
    assert len(found) == 3
    assert all(3 < ratio < 5 for ratio in found)


def test_all_processes_share_one_cpu(spenders: tuple[Running, Running]) -> None:
    allowed = {
        frozenset(os.sched_getaffinity(process))
        for program in spenders
        for process in session_processes(program.session)
    }
    assert allowed == {frozenset({min(os.sched_getaffinity(0))})}


def test_a_wrong_answer_is_no_figure(spenders: tuple[Running, Running]) -> None:
    with pytest.raises(WrkError, match="3 read errors"):
        cpu_ratios(*spenders, lambda program: ask(program, "3 read errors"), bursts=1)
    with pytest.raises(WrkError, match="no request was answered"):
        cpu_ratios(*spenders, lambda _: WrkFigures(0, 1, 0, 0, ()), bursts=1)
