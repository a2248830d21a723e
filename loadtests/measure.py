"""What a process tree costs, read from /proc: CPU time and memory of every process in one session.

CPU comes from each thread's schedstat (nanoseconds actually on a CPU). Threads that end take their figure with them, so
the process's own utime + stime, which keeps it, wins where it says clearly more. Memory is PSS: a page shared by n
processes counts one n-th for each.
"""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
# utime and stime are each rounded to ticks at both readings.
TICKS_OF_DOUBT = 2


@dataclass(frozen=True)
class CpuReading:
    """CPU time used so far: nanoseconds by (process, thread), clock ticks by process with its waited-for children."""

    thread_ns: Mapping[tuple[int, int], int]
    process_ticks: Mapping[int, int]


def session_processes(session: int) -> list[int]:
    """Ids of the processes of a session, in order."""
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            # A process may end between the listing and the reading, here and below.
            with contextlib.suppress(OSError):
                if parse_stat(entry.joinpath("stat").read_text()).session == session:
                    found.append(int(entry.name))
    return sorted(found)


def read_cpu(session: int) -> CpuReading:
    thread_ns = {}
    process_ticks = {}
    for process in session_processes(session):
        with contextlib.suppress(OSError):
            process_ticks[process] = parse_stat((PROC / str(process) / "stat").read_text()).ticks
            for task in (PROC / str(process) / "task").iterdir():
                with contextlib.suppress(OSError):
                    thread_ns[process, int(task.name)] = parse_schedstat_ns((task / "schedstat").read_text())
    return CpuReading(thread_ns, process_ticks)


def cpu_spent_ns(before: CpuReading, after: CpuReading) -> int:
    """Nanoseconds on a CPU between two readings of one session."""
    by_threads = sum(ns - before.thread_ns.get(thread, 0) for thread, ns in after.thread_ns.items())
    by_processes = TICK_NS * sum(
        ticks - before.process_ticks.get(process, 0) for process, ticks in after.process_ticks.items()
    )
    doubt = TICK_NS * TICKS_OF_DOUBT * len(after.process_ticks)
    return by_processes if by_processes - by_threads > doubt else by_threads


def read_pss(session: int) -> dict[int, int]:
    """Proportional set size in bytes, by process."""
    sizes = {}
    for process in session_processes(session):
        with contextlib.suppress(OSError):
            sizes[process] = pss_bytes(process)
    return sizes


def pss_bytes(process: int) -> int:
    """Proportional set size of one process. Raises OSError where it is gone."""
    return parse_kb((PROC / str(process) / "smaps_rollup").read_text(), "Pss")


@dataclass(frozen=True)
class KernelMemory:
    """What the kernel of this machine holds for everybody: `tcp_bytes` for data in TCP's queues, `slab_bytes` for its
    own objects, sockets among them.
    """

    tcp_bytes: int
    slab_bytes: int


def read_kernel_memory() -> KernelMemory:
    return KernelMemory(
        tcp_bytes=parse_tcp_pages((PROC / "net" / "sockstat").read_text()) * os.sysconf("SC_PAGE_SIZE"),
        slab_bytes=parse_kb((PROC / "meminfo").read_text(), "Slab"),
    )


@dataclass(frozen=True)
class Stat:
    session: int
    ticks: int


def parse_stat(text: str) -> Stat:
    """/proc/<pid>/stat (proc(5)). The command's name is in parentheses and may hold blanks and parentheses itself."""
    fields = text.rpartition(")")[2].split()
    utime, stime, children_utime, children_stime = map(int, fields[11:15])
    return Stat(session=int(fields[3]), ticks=utime + stime + children_utime + children_stime)


def parse_schedstat_ns(text: str) -> int:
    """The first field of /proc/<pid>/task/<tid>/schedstat: time on a CPU."""
    return int(text.split()[0])


def parse_tcp_pages(sockstat: str) -> int:
    """The figure `mem` of the line `TCP` in /proc/net/sockstat."""
    for line in sockstat.splitlines():
        name, *figures = line.split()
        if name == "TCP:":
            return int(figures[figures.index("mem") + 1])
    raise ValueError("no TCP line in sockstat")


def parse_kb(text: str, wanted: str) -> int:
    """In bytes, a line such as `Pss:   12 kB` of smaps_rollup or meminfo."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == wanted:
            return int(value.split()[0]) * 1024
    raise ValueError(f"no line {wanted}")
