"""The figures of open connections: measured once, as small as it goes, and shown."""

import shutil
from pathlib import Path

import pytest

from loadtests import idle_load
from loadtests.idle_load import Found, Idle, Loaded, Streamed, Weight, each, main, measure, render
from loadtests.measure import KernelMemory
from loadtests.upstreams import Upstreams


def test_what_each_connection_adds() -> None:
    before, after = Weight(1000, KernelMemory(50, 400)), Weight(3000, KernelMemory(150, 1000))
    assert each(before, after, 10) == (200, 10, 60)


def test_all_of_it_is_measured(origins: Upstreams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which("wrk"):
        pytest.skip("wrk is not installed")
    monkeypatch.setattr(idle_load, "SETTLE_S", 0)
    monkeypatch.setattr(idle_load, "WARM_UP_S", 0.1)
    found = measure(origins, tmp_path, 50, 5, 0.1)
    for figures in (found.alone, found.beside):
        assert all(value > 0 for value in figures)
    assert found.streamed.cpu_us > 0


def test_the_page_has_all_figures() -> None:
    page = render(
        Found(
            10_000,
            500,
            Loaded(20_000, 50, 3, 6, 0.5, 1.5),
            Loaded(19_000, 52, 3.2, 7, 0.6, 1.75),
            Idle(9_000, 0, 8_000, 200, 0.012),
            Idle(25_000, 0, 8_100, 900, 0.001),
            Streamed(33_000, 10_000, 16_000, 20, 2.5),
        )
    )
    for line in (
        "| requests/s on 64 connections | 20,000 | 19,000 |",
        "| p99 of these | 6.00 ms | 7.00 ms |",
        "| p99 at 512/s | 1.50 ms | 1.75 ms |",
        "| PSS | 9.0 KB | 25.0 KB | 33.0 KB |",
        "| kernel objects, all ends | 8.0 KB | 8.1 KB | 16.0 KB |",
        "A connection and its first request take 200 µs of CPU, with TLS 900 µs. All idle connections take 1.20 % of a "
        "CPU while nobody asks.",
        "An event takes 20.0 µs of CPU (50/s on each stream), p99 of its delay is 2.50 ms.",
    ):
        assert line in page.splitlines()


def test_more_connections_than_files_end_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    for program in ("nginx", "wrk"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    assert main(["--connections", "2000000000"]) == 2
    assert "2000001000 open files" in capsys.readouterr().err
