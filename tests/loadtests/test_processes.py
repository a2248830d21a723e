"""What was started is always ended, with its children, and a start that fails says why."""

import sys
import time
from pathlib import Path

import pytest

from loadtests.measure import session_processes
from loadtests.processes import Launch, StartError, free_port, running

# Listens, and has a child that ignores the polite signal.
STUBBORN = """
import signal, socket, subprocess, sys, time
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
subprocess.Popen([sys.executable, "-c", child])
time.sleep(0.3)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
time.sleep(60)
"""


def test_children_end_with_their_parent(tmp_path: Path) -> None:
    port = free_port()
    with running(Launch([sys.executable, "-c", STUBBORN, str(port)], port), tmp_path / "log") as program:
        assert len(session_processes(program.session)) == 2
    deadline = time.monotonic() + 5
    while session_processes(program.session) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert session_processes(program.session) == []


def test_a_program_that_ends_at_once_shows_what_it_printed(tmp_path: Path) -> None:
    launch = Launch([sys.executable, "-c", "raise SystemExit('no such option')"], free_port())
    with pytest.raises(StartError, match="no such option"), running(launch, tmp_path / "log"):
        pass
