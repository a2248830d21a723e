"""The file of the last good credentials, of all workers of a machine: written by one of them, read at a start.

It is a row of msgpacks, each behind its length (u32): which version it is, then lists of credentials. Their secrets are
encrypted. Nobody but the owner may read it all the same.
"""

import contextlib
import fcntl
import logging
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from proxy.rules.credentials import Credential
from proxy.shared_state.published import Mark
from proxy.shared_state.published_credentials import Published

log = logging.getLogger("relaygate")

LENGTH = struct.Struct("<I")
HEAD_BYTES_MAX = 256

_encoder = msgspec.msgpack.Encoder()
_head_decoder = msgspec.msgpack.Decoder(tuple[int, int, bytes])
_list_decoder = msgspec.msgpack.Decoder(list[Credential])


class Content:
    """What is in a file, as it is being made."""

    def __init__(self, published: Published) -> None:
        self.published = published
        self.parts: list[bytes] = []
        self._append(_encoder.encode((*published.mark, published.generation)))

    def add(self, credentials: Sequence[Credential]) -> None:
        self._append(_encoder.encode(credentials))

    def _append(self, part: bytes) -> None:
        self.parts += [LENGTH.pack(len(part)), part]


class Found:
    """What was in a file."""

    def __init__(self, published: Published, data: bytes, start: int) -> None:
        self.published = published
        self._data = data
        self._start = start

    def chunks(self) -> Iterator[list[Credential]]:
        """The credentials, some hundreds at a time. Raises msgspec.DecodeError where the file is damaged."""
        at = self._start
        while at < len(self._data):
            part, at = _part(self._data, at)
            yield _list_decoder.decode(part)


class CredentialFile:
    """The file, and a lock beside it, so that one worker at a time writes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._problem = ""

    def content(self, published: Published) -> Content:
        return Content(published)

    def read(self) -> Found | None:
        """Returns what the file has; None where there is none that can be read."""
        try:
            data = self._path.read_bytes()
            head, start = _part(data, 0)
            return Found(_published(head), data, start)
        except (OSError, msgspec.DecodeError):
            return None

    def write(self, content: Content) -> bool:
        """Writes it whole or not at all. Returns whether it is there: it may be by another worker, too.

        What the disk refuses is told in one line.
        """
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked() as locked:
                if not locked:
                    return False
                if self._stored() != content.published:
                    self._replace(content.parts)
        except OSError as error:
            self._tell(f"{type(error).__name__}: {error}")
            return False
        self._problem = ""
        return True

    def _stored(self) -> Published | None:
        """Returns which version the file has."""
        try:
            with self._path.open("rb") as handle:
                return _published(_part(handle.read(HEAD_BYTES_MAX), 0)[0])
        except (OSError, msgspec.DecodeError):
            return None

    def _replace(self, parts: Sequence[bytes]) -> None:
        unfinished = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "wb") as handle:  # noqa: PTH123 - of a descriptor
                handle.writelines(parts)
                handle.flush()
                os.fsync(handle.fileno())
            unfinished.replace(self._path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                unfinished.unlink()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[bool]:
        """Whether no other worker writes. The lock ends with its holder."""
        descriptor = os.open(self._path.with_name(f"{self._path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield True
        except BlockingIOError:
            yield False
        finally:
            os.close(descriptor)

    def _tell(self, problem: str) -> None:
        if problem != self._problem:
            log.warning("the credentials in use cannot be kept on disk: %s", problem)
        self._problem = problem


def _part(data: bytes, at: int) -> tuple[memoryview, int]:
    """Returns the part that begins at a place, and where the next one does. Raises msgspec.DecodeError."""
    start = at + LENGTH.size
    if start > len(data):
        raise msgspec.DecodeError("cut short")
    end = start + LENGTH.unpack_from(data, at)[0]
    if end > len(data):
        raise msgspec.DecodeError("cut short")
    return memoryview(data)[start:end], end


def _published(head: memoryview) -> Published:
    version, made_ms, generation = _head_decoder.decode(head)
    return Published(Mark(version, made_ms), generation)
