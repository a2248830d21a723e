"""Two variants of the relay compared where they differ by less than a machine's speed drifts within a second.

The law: both run on one CPU and are loaded at the same time, so that the kernel gives each its turn every few
milliseconds, and whatever else the machine does meets both alike. What comes out is a ratio for each burst of load.
Two equal relays on a busy machine of 2 CPUs came out at 0.99 to 1.02 so (medians of 16 bursts of 1 s), at 0.95 to 1.04
where each had any CPU, and at 0.89 to 1.02 where they were loaded by turns.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from loadtests.measure import CpuReading, cpu_spent_ns, read_cpu
from loadtests.processes import Launch, Running
from loadtests.wrk import WrkError, WrkFigures


def on_one_cpu(launch: Launch) -> Launch:
    """The same program on the first CPU that there is, with all its threads and children."""
    return replace(launch, command=["taskset", "--cpu-list", str(min(os.sched_getaffinity(0))), *launch.command])


def cpu_ratios(ours: Running, theirs: Running, load: Callable[[Running], WrkFigures], bursts: int) -> list[float]:
    """CPU for each request of `ours` divided by that of `theirs`, burst by burst. Raises `WrkError`."""
    found = []
    programs = (ours, theirs)
    with ThreadPoolExecutor(len(programs)) as together:
        for _ in range(bursts):
            before = [read_cpu(program.session) for program in programs]
            figures = together.map(load, programs)
            our_us, their_us = map(cpu_us_per_request, programs, before, figures)
            found.append(our_us / their_us)
    return found


def cpu_us_per_request(program: Running, before: CpuReading, figures: WrkFigures) -> float:
    """Raises `WrkError` for any wrong answer."""
    if figures.errors or not figures.requests:
        raise WrkError("; ".join(figures.errors) or "no request was answered")
    return cpu_spent_ns(before, read_cpu(program.session)) / 1000 / figures.requests
