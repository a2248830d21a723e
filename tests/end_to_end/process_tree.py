"""Processes and their sockets, read from /proc: descendants, memory, connections to a port."""

from pathlib import Path

from loadtests.processes import descendants as descendants
from loadtests.processes import is_alive as is_alive


def pss_bytes(pid: int) -> int:
    """The process's proportional set size: pages that it shares count in parts."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


ESTABLISHED = "01"


def established_to(port: int) -> int:
    """How many open IPv4 sockets of this machine have `port` as their peer's port, both ends still open."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return sum(field[3] == ESTABLISHED and int(field[2].rpartition(":")[2], 16) == port for field in fields)
