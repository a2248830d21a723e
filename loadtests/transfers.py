"""curl as the client of long bodies: one download, one upload, or many downloads that are read slowly.

Every transfer is checked: curl must have succeeded with status 200 and moved exactly the bytes of the file.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loadtests.upstreams import BIG_FILE

# On a line of its own, after the answer's body where that goes to the output too.
WRITE_OUT = '\n{"status":%{http_code},"down":%{size_download},"up":%{size_upload},"seconds":%{time_total}}'
UPLOAD_PATH = "/upload"
WATCH_INTERVAL_S = 0.1


class TransferError(Exception):
    """curl failed, or what it moved is not what it should have moved."""


@dataclass(frozen=True)
class Transfer:
    """What curl reports of one exchange."""

    answer: str
    status: int
    downloaded_bytes: int
    uploaded_bytes: int
    seconds: float


def download(port: int, body_bytes: int, timeout_s: float) -> Transfer:
    """The big file, as fast as it comes. Raises `TransferError`."""
    return finish_download(start_download(port, timeout_s), body_bytes)


def upload(port: int, file: Path, timeout_s: float) -> Transfer:
    """A file, to the upstream that counts. Raises `TransferError`."""
    # Without the empty Expect, curl would first wait for a 100 that not every proxy passes on.
    process = start_curl(port, UPLOAD_PATH, timeout_s, "--request", "POST", "--header", "Expect:", "-T", str(file))
    transfer = finish(process)
    body_bytes = file.stat().st_size
    if transfer.uploaded_bytes != body_bytes or transfer.answer != json.dumps({"bytes": body_bytes}):
        raise TransferError(f"{transfer.uploaded_bytes} of {body_bytes} bytes sent, answered {transfer.answer!r}")
    return transfer


def download_slowly(
    port: int, clients: int, bytes_per_s: int, body_bytes: int, watch: Callable[[], None]
) -> list[Transfer]:
    """The big file to several clients that read no faster than so; `watch` is called all the while.

    Raises `TransferError`.
    """
    timeout_s = 30 + 2 * body_bytes / bytes_per_s
    processes: list[subprocess.Popen[str]] = []
    try:
        while len(processes) < clients:
            processes.append(start_download(port, timeout_s, "--limit-rate", str(bytes_per_s)))
        while any(process.poll() is None for process in processes):
            watch()
            time.sleep(WATCH_INTERVAL_S)
        return [finish_download(process, body_bytes) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def start_download(port: int, timeout_s: float, *options: str) -> subprocess.Popen[str]:
    return start_curl(port, BIG_FILE, timeout_s, "--output", os.devnull, *options)


def finish_download(process: subprocess.Popen[str], body_bytes: int) -> Transfer:
    transfer = finish(process)
    if transfer.downloaded_bytes != body_bytes:
        raise TransferError(f"{transfer.downloaded_bytes} of {body_bytes} bytes came")
    return transfer


def start_curl(port: int, path: str, timeout_s: float, *options: str) -> subprocess.Popen[str]:
    command = [
        "curl",
        "--silent",
        "--show-error",
        "--http1.1",
        "--max-time",
        f"{timeout_s:g}",
        "--write-out",
        WRITE_OUT,
    ]
    command += [*options, f"http://127.0.0.1:{port}{path}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> Transfer:
    """Wait for curl, which bounds its own time, and read its report. Raises `TransferError` unless it is a 200."""
    printed, complaint = process.communicate()
    if process.returncode:
        raise TransferError(f"curl ended with {process.returncode}: {complaint.strip()}")
    transfer = parse_transfer(printed)
    if transfer.status != 200:
        raise TransferError(f"status {transfer.status} instead of 200")
    return transfer


def parse_transfer(printed: str) -> Transfer:
    """An answer's body, if curl printed it, and the line of `WRITE_OUT`. Raises `TransferError`."""
    answer, _, report = printed.rpartition("\n")
    try:
        raw = json.loads(report)
        return Transfer(answer, raw["status"], raw["down"], raw["up"], raw["seconds"])
    except (ValueError, TypeError, KeyError) as error:
        raise TransferError(f"curl printed {printed!r}") from error
