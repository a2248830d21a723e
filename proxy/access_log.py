"""The access log: one JSON line a request, on standard output.

Lines are written in batches, so that a request never waits for a disk.
"""

import contextlib
import sys
import time
from typing import Any

import msgspec

BATCH_BYTES = 64 * 1024


_encode = msgspec.json.Encoder().encode


def encoded(fields: dict[str, Any]) -> bytes:
    """Returns a line without its end."""
    return _encode({"time": round(time.time(), 3), **fields})


class AccessLog:
    """A worker's part of the access log. `flush` is called on every tick of the worker."""

    def __init__(self) -> None:
        self._lines = bytearray()

    def write(self, fields: dict[str, Any]) -> None:
        """Adds a line; `time` (seconds since 1970) goes first."""
        self._lines += encoded(fields)
        self._lines += b"\n"
        if len(self._lines) > BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes what waits. A reader that is gone costs the log, never a request."""
        if self._lines:
            with contextlib.suppress(OSError):
                sys.stdout.buffer.write(self._lines)
                sys.stdout.buffer.flush()
            self._lines.clear()
