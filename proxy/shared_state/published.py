"""The published configuration: how it lies in Redis and in the file of the last good one.

The control plane writes it (`admin/publisher.py`), workers read it (`config_feed.py`). It comes in sections, each a
msgpack of its own with the version that it had when it last changed, so that an edit moves only what it touched.
"""

import contextlib
import os
from pathlib import Path

import msgspec

from proxy.config import Route

ROUTES = "routes"


class RoutesSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All routes, as of a version of the configuration."""

    version: int
    routes: dict[str, Route]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(RoutesSection)


def encode_routes(section: RoutesSection) -> bytes:
    return _encoder.encode(section)


def decode_routes(data: bytes) -> RoutesSection:
    """Raises msgspec.DecodeError where it is none, or has fields that this version does not know."""
    return _decoder.decode(data)


def version_number(data: object) -> int | None:
    """Returns the version that lies in Redis; None where there is none, or something else."""
    return int(data) if isinstance(data, bytes) and data.isdigit() and len(data) < 20 else None


def store(data: bytes, file: Path) -> None:
    """Keeps a section on disk, whole or not at all. Raises OSError."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        unfinished.replace(file)
    finally:
        with contextlib.suppress(FileNotFoundError):
            unfinished.unlink()


def stored(file: Path) -> RoutesSection | None:
    """Returns the section that a file keeps, None where there is none that can be read."""
    try:
        return decode_routes(file.read_bytes())
    except (OSError, msgspec.DecodeError):
        return None
