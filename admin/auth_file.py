"""`auth.json`: where the OAuth credential's newest state lies for other programs too, and where they may put theirs.

It is written whole or not at all, for its owner alone. Two programs that write it at the same moment are not kept
apart, for the others know of no lock.
"""

import contextlib
import os
import tempfile
from pathlib import Path

import msgspec

from admin.rules import auth_documents
from admin.rules.auth_documents import DocumentError
from admin.rules.oauth import Kept, State, belongs

BYTES_MAX = 1024 * 1024
Signature = tuple[int, int, int, int]


class AuthFileError(Exception):
    """A file that cannot be used. One line: which, and why; nothing of what is in it."""


class AuthFile:
    """The file at `path`; a link is followed. It need not be there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: Signature | None = None
        self._kept: Kept | None = None

    def read(self) -> Kept | None:
        """Returns what it says, read again where it has changed; None where it is absent or says nothing.

        Raises AuthFileError.
        """
        try:
            seen = _signature(self.path)
            if seen != self._seen:
                document = auth_documents.read(_content(self.path))
                self._kept = auth_documents.understood(document, seen[1] // 1_000_000)
                self._seen = seen
        except FileNotFoundError:
            self._seen = self._kept = None
        except (OSError, DocumentError) as error:
            self._seen = None
            raise self._unusable(error) from None
        return self._kept if self._kept and (self._kept.refresh_token or self._kept.api_key) else None

    def write(self, state: State, before: State | None = None) -> None:
        """Has it say the state, and keep its other keys. One that says so already is left alone. Raises AuthFileError.

        So is one that cannot be understood, and one with a token of neither this chain nor that of `before`: somebody
        may still need what is in it.
        """
        kept = self.read()
        token = None if kept is None else kept.token
        if token is not None and not belongs(state, token) and not belongs(before, token):
            raise AuthFileError(f"{self.path}: it holds another login, and is left as it is")
        try:
            document = auth_documents.read(_content(self.path)) if self.path.exists() else {}
            wanted = auth_documents.with_state(document, state)
            if wanted != document:
                _replace(self.path.resolve(), msgspec.json.format(msgspec.json.encode(wanted), indent=2) + b"\n")
        except (OSError, DocumentError) as error:
            raise self._unusable(error) from None

    def _unusable(self, error: OSError | DocumentError) -> AuthFileError:
        reason = (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
        return AuthFileError(f"{self.path}: {reason}")


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(BYTES_MAX + 1)
    if len(data) > BYTES_MAX:
        raise DocumentError(f"it is longer than {BYTES_MAX} bytes")
    return data


def _signature(path: Path) -> Signature:
    """What changes with the file; the second is the time of its last change, in nanoseconds since 1970."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


def _replace(path: Path, data: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600 by its contract
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """A new name is safe from a power cut once its folder is written too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
