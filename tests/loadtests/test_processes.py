"""What was started is always ended, with its children, and a start that fails says why."""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE

import pytest

from loadtests.measure import session_processes
from loadtests.processes import PORTS, Launch, StartError, family, free_port, is_alive, ports_in_turn, running
from tests.end_to_end.waiting import eventually

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


def test_shares_of_the_ports_have_none_in_common() -> None:
    shares = [set(itertools.islice(ports_in_turn(share, 3), 100_000)) for share in range(3)]
    assert shares[0] | shares[1] | shares[2] == set(PORTS)
    assert sum(map(len, shares)) == len(PORTS)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_is_free_and_the_next_is_another(host: str) -> None:
    with contextlib.ExitStack() as stack:
        ports = [free_port(host) for _ in range(10)]
        for port in ports:
            listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
            stack.enter_context(listener)
        assert len(set(ports)) == 10


def test_a_family_is_found_by_its_command_lines_and_lives_until_it_is_waited_for() -> None:
    grandchild = "import time; time.sleep(60)"
    child = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {grandchild!r}]).pid, flush=True)"
    command = [sys.executable, "-c", f"{child}; sys.stdin.read()"]
    with subprocess.Popen(command, stdout=PIPE, stdin=PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        # Who has started a program may know so before the kernel shows its command line.
        eventually(lambda: family(os.getpid(), r"^\S+ -c import time; time\.sleep\(60\) $") == [pid])
        assert family(os.getpid(), "python.* -c import") == [process.pid, pid]
        assert is_alive(pid)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not is_alive(pid), what="the end of what is a zombie now")
        process.communicate()
    assert not is_alive(process.pid)
