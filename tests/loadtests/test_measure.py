"""What /proc prints is read right, and two readings make the CPU time between them."""

import os
import time

import pytest

from loadtests.measure import (
    TICK_NS,
    CpuReading,
    cpu_spent_ns,
    parse_kb,
    parse_schedstat_ns,
    parse_stat,
    parse_tcp_pages,
    pss_bytes,
    read_cpu,
    read_kernel_memory,
    read_pss,
    session_processes,
)

STAT = "41 (a (b) c) S 1 40 39 0 -1 4194560 100 200 0 0 7 5 3 2 20 0 4 0 100 200 300"


def test_stat_survives_blanks_and_parentheses_in_a_name() -> None:
    stat = parse_stat(STAT)
    assert stat.session == 39
    assert stat.ticks == 7 + 5 + 3 + 2


def test_schedstat_is_its_first_field() -> None:
    assert parse_schedstat_ns("27467308 11731864 62\n") == 27467308


def test_pss_is_not_one_of_its_parts() -> None:
    rollup = "5583-7fff ---p 00000000 00:00 0 [rollup]\nRss: 1680 kB\nPss:    212 kB\nPss_Dirty:   112 kB\n"
    assert parse_kb(rollup, "Pss") == 212 * 1024


def test_pss_must_be_there() -> None:
    with pytest.raises(ValueError, match="no line Pss"):
        parse_kb("Rss: 1680 kB\n", "Pss")


def test_tcps_memory_is_that_of_its_own_line() -> None:
    sockstat = "sockets: used 33\nTCP: inuse 11 orphan 0 tw 2 alloc 14 mem 27\nUDP: inuse 0 mem 1\n"
    assert parse_tcp_pages(sockstat) == 27
    with pytest.raises(ValueError, match="no TCP line"):
        parse_tcp_pages("UDP: inuse 0 mem 1\n")


def test_this_very_kernel_is_measured() -> None:
    memory = read_kernel_memory()
    assert memory.tcp_bytes >= 0
    assert memory.slab_bytes > 1_000_000


def test_cpu_is_the_sum_over_threads_old_and_new() -> None:
    before = CpuReading({(1, 1): 100, (1, 2): 50}, {1: 0})
    after = CpuReading({(1, 1): 150, (1, 2): 70, (1, 3): 5}, {1: 0})
    assert cpu_spent_ns(before, after) == 50 + 20 + 5


def test_rounding_of_ticks_does_not_win_over_threads() -> None:
    assert cpu_spent_ns(CpuReading({(1, 1): 0}, {1: 0}), CpuReading({(1, 1): 10}, {1: 2})) == 10


def test_a_thread_that_ended_is_found_in_its_process() -> None:
    before = CpuReading({(1, 1): 0, (1, 2): 0}, {1: 0})
    assert cpu_spent_ns(before, CpuReading({(1, 1): 10}, {1: 50})) == 50 * TICK_NS


def test_without_schedstat_ticks_count() -> None:
    assert cpu_spent_ns(CpuReading({}, {1: 10}), CpuReading({}, {1: 110})) == 100 * TICK_NS


def test_this_very_process_is_measured() -> None:
    session = os.getsid(0)
    assert os.getpid() in session_processes(session)
    before = read_cpu(session)
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    assert cpu_spent_ns(before, read_cpu(session)) >= 40_000_000
    assert read_pss(session)[os.getpid()] > 1_000_000
    assert pss_bytes(os.getpid()) > 1_000_000
