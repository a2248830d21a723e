"""Programs that a load test starts: each in a session of its own, waited for, and always ended with all its children.

The session is what makes a program's whole process tree findable (`measure.py`) and endable, whoever forked what.
"""

import contextlib
import errno
import itertools
import os
import random
import re
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 3.0
LOG_TAIL_LINES = 15
OPEN_FILES_WANTED = 16_384
STARTED = 19
"""Where /proc/<pid>/stat (proc(5)) has the time of the start, counted from behind the command's name."""

PORTS = range(10_241, 32_768, 2)
"""Below those that the kernel gives to whoever asks for any, so that nobody gets one by chance which was found free for
a program that does not listen yet. Odd ones, since Linux gives outgoing connections even ones first: its range may
begin lower, as `sysctl/` has it."""


class StartError(Exception):
    """A program ended, or did not listen in time. The lines after the message's first are what it had printed."""


@dataclass(frozen=True)
class Launch:
    """How a program is started. `port` is where it will listen on 127.0.0.1."""

    command: Sequence[str]
    port: int
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path | None = None

    @property
    def name(self) -> str:
        """The program, or the module that an interpreter runs."""
        program, *arguments = self.command
        return arguments[1] if arguments[:1] == ["-m"] else Path(program).name


@dataclass(frozen=True)
class Running:
    """A started program. `session` is the id of its session, of its process group and of its first process."""

    session: int
    port: int


def ports_in_turn(share: int, shares: int) -> Iterator[int]:
    """Ports without end, from a place made by chance. Of several shares of equal size none has another's ports."""
    own = PORTS[share::shares]
    start = random.randrange(len(own))
    return itertools.cycle([*own[start:], *own[:start]])


# Processes that share a test suite (pytest-xdist) share the ports too.
_PORTS = ports_in_turn(
    int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")),
    int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")),
)


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port of an address of this machine on which nothing listens now."""
    return next(port for port in _PORTS if is_free(port, host))


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
        return True


def raise_open_files_limit(wanted: int = OPEN_FILES_WANTED) -> int:
    """Let this process and its children open enough sockets for the widest case, as far as the hard limit goes; how
    many they may open.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = max(soft, wanted if hard == resource.RLIM_INFINITY else min(wanted, hard))
    if soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def exit_on_signals() -> None:
    """Make these signals leave through the context managers, so that nothing is left running."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, leave)


@contextlib.contextmanager
def running(launch: Launch, log: Path) -> Iterator[Running]:
    """Start the program, hand it over once it accepts connections, end its whole session on leaving.

    Raises `StartError` when it does not get there.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            launch.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **launch.environment},
            cwd=launch.directory,
            start_new_session=True,
        )
    try:
        wait_until_listening(process, launch, log)
        yield Running(session=process.pid, port=launch.port)
    finally:
        stop(process)


def wait_until_listening(process: subprocess.Popen[bytes], launch: Launch, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StartError(f"{launch.name} ended with {process.returncode} at its start\n{log_tail(log)}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", launch.port), timeout=1):
            return
        time.sleep(0.02)
    raise StartError(f"{launch.name} does not listen after {START_TIMEOUT_S:g} s\n{log_tail(log)}")


def log_tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the process group: politely, then for good, which also takes children that outlived their parent."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def descendants(pid: int) -> set[int]:
    """All children, grandchildren and so on that are alive now."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        fresh = children(waiting.pop()) - found
        found |= fresh
        waiting.extend(fresh)
    return found


def children(pid: int) -> set[int]:
    """The processes that it has started and that are alive now."""
    found: set[int] = set()
    with contextlib.suppress(FileNotFoundError):
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found |= {int(child) for child in task.read_text().split()}
    return found


def is_alive(pid: int) -> bool:
    """Whether any thread of the process still runs; a zombie does not. Its sockets are open until none does."""
    try:
        return any(map(_runs, Path(f"/proc/{pid}/task").glob("*/stat")))
    except FileNotFoundError:  # it was there as the search began
        return False


def _runs(stat: Path) -> bool:
    try:
        return stat.read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def family(pid: int, pattern: str) -> list[int]:
    """Those of a process's descendants whose command line holds the regular expression, the oldest first."""
    found = []
    for descendant in descendants(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            words = Path(f"/proc/{descendant}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            if re.search(pattern, words):
                fields = Path(f"/proc/{descendant}/stat").read_text().rpartition(")")[2].split()
                found.append((int(fields[STARTED]), descendant))
    return [descendant for _, descendant in sorted(found)]
