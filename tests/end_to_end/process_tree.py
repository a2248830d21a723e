"""Processes and their sockets, read from /proc: descendants, memory, connections to a port."""

from pathlib import Path


def descendants(pid: int) -> set[int]:
    """All children, grandchildren and so on that are alive now."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        fresh = _children(waiting.pop()) - found
        found |= fresh
        waiting.extend(fresh)
    return found


def _children(pid: int) -> set[int]:
    children: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children |= {int(child) for child in task.read_text().split()}
        except (FileNotFoundError, ProcessLookupError):
            continue
    return children


def is_alive(pid: int) -> bool:
    """Whether the process still runs; a zombie does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


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
