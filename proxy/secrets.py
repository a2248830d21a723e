"""Short texts that must not lie readable in a table: encrypted here, and nowhere else.

Fernet (AES-128-CBC with HMAC-SHA-256) under one key or several: the first encrypts, all of them decrypt, so a key is
rotated (`rotation.py`) by putting a new one in front and writing every secret anew with `reencrypt`. Keys come from
RELAYGATE_SECRET_KEY or, where that is empty, from a file that the first start makes for its owner alone. The file is
looked at for each secret, so that a process that runs while a key is rotated knows the new one from the start. What was
published under the old one is published anew only after that has left the file, so whoever has used the old one can
decrypt with it for some minutes more.

Each secret has a **purpose**, such as `credential:42`, without which it is not decrypted. Fernet has no associated
data, so the purpose stands in the text that is encrypted and thereby authenticated, before a NUL: whoever can write the
table but has no key cannot put one column's or one row's secret in another's place, where it would be sent elsewhere. A
key derived for each purpose would do as well, and could not be rotated without knowing all purposes.
"""

import contextlib
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from proxy.config import ConfigError

VARIABLE = "RELAYGATE_SECRET_KEY"
KEY_FILE = "secret.key"
"""In the data directory."""
KEPT_S = 300.0
"""How long keys that have left the file still decrypt; to publish 100,000 secrets anew takes seconds."""
_FORM = "expected 32 bytes in URL-safe base64, which is 44 characters"


class SecretError(Exception):
    """A secret that cannot be decrypted. Its text names the purpose and no secret."""


class Secrets:
    """Encrypts with the first of `keys`, decrypts with any. Raises ConfigError, which says of which place they are."""

    def __init__(self, keys: Sequence[str], where: str) -> None:
        self.where = where
        self.keys: Sequence[str] = ()
        self._fernet = self._use(keys)

    def _use(self, keys: Sequence[str]) -> MultiFernet:
        if not keys:
            raise ConfigError(self.where, "no key")
        fernets: list[Fernet] = []
        for position, key in enumerate(keys, 1):
            try:
                fernets.append(Fernet(key))
            except ValueError:
                raise ConfigError(self.where, f"key {position} of {len(keys)} is not a key, {_FORM}") from None
        self.keys = tuple(keys)
        return MultiFernet(fernets)

    def _current(self) -> MultiFernet:
        return self._fernet

    def encrypt(self, text: str, purpose: str) -> str:
        """In ASCII, about 100 + 4/3 of the bytes of text and purpose. ValueError for a purpose with a NUL."""
        return self.encrypt_many([(text, purpose)])[0]

    def encrypt_many(self, texts: Iterable[tuple[str, str]]) -> list[str]:
        """The same for texts with their purposes, all under the key of this moment: to look for it costs as much."""
        key = self._current()
        return [key.encrypt(_frame(purpose) + text.encode()).decode() for text, purpose in texts]

    def decrypt(self, text: str, purpose: str) -> str:
        """Raises SecretError if the key is another, the text is damaged, or it was encrypted for another purpose."""
        try:
            frame = self._current().decrypt(text.encode())
        except (InvalidToken, ValueError):
            raise self._unreadable(purpose) from None
        head = _frame(purpose)
        if not frame.startswith(head):
            raise SecretError(f"secret of {purpose}: it was encrypted for another purpose")
        return frame[len(head) :].decode()

    def reencrypt(self, text: str) -> str:
        """The same secret under the first key. Raises SecretError."""
        try:
            return self._current().rotate(text.encode()).decode()
        except (InvalidToken, ValueError):
            raise self._unreadable("a row") from None

    def _unreadable(self, purpose: str) -> SecretError:
        return SecretError(f"secret of {purpose}: no key of {self.where} is the one that it was encrypted with")


class FileSecrets(Secrets):
    """Secrets whose keys lie in a file, which may be replaced while they are in use. Raises ConfigError, OSError."""

    def __init__(self, path: Path, now_s: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._now_s = now_s
        self._seen = _signature(path)
        self._left: dict[str, float] = {}
        """Keys that have left the file, and until when they decrypt."""
        super().__init__(_split(_read(path)), str(path))

    def decrypt(self, text: str, purpose: str) -> str:
        try:
            return super().decrypt(text, purpose)
        except SecretError:
            left = [key for key, until_s in self._left.items() if self._now_s() < until_s]
            if not left:
                raise
        return Secrets(left, self.where).decrypt(text, purpose)

    def _current(self) -> MultiFernet:
        with contextlib.suppress(OSError):  # of a file that is gone, the keys are still known
            seen = _signature(self._path)
            if seen != self._seen:
                before = self.keys
                self._fernet = self._use(_split(_read(self._path)))
                self._seen = seen
                until_s = self._now_s() + KEPT_S
                self._left |= {key: until_s for key in before if key not in self.keys}
        return self._fernet

    def replace_keys(self, keys: Sequence[str]) -> None:
        """Makes these the keys of the file, whole or not at all, also if the machine loses its power meanwhile."""
        _write(self._path, keys).replace(self._path)
        _sync(self._path.parent)
        self._current()


def new_key() -> str:
    return Fernet.generate_key().decode()


def load_secrets(environment: Mapping[str, str], path: Path) -> Secrets:
    """The secrets of an installation: keys from the environment, else from the file `path`, which is made if absent.

    Raises ConfigError, among others for a file that others than its owner may read.
    """
    given = environment.get(VARIABLE, "").strip()
    if given:
        return Secrets(_split(given), VARIABLE)
    try:
        if not path.exists():
            _make(path)
        return FileSecrets(path)
    except OSError as error:
        raise ConfigError(str(path), error.strerror or type(error).__name__) from None
    except UnicodeError:
        raise ConfigError(str(path), f"not a key, {_FORM}") from None


def known_secrets(environment: Mapping[str, str], path: Path) -> Secrets:
    """As `load_secrets`, for whoever only decrypts: raises ConfigError where there is no key yet."""
    if not environment.get(VARIABLE, "").strip() and not path.exists():
        raise ConfigError(str(path), f"no key: it is the control plane's, or {VARIABLE} names it")
    return load_secrets(environment, path)


def _split(text: str) -> list[str]:
    return [key for key in re.split(r"[,\s]+", text) if key]


def _read(path: Path) -> str:
    with path.open(encoding="ascii") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(str(path), f"others may read it (mode {mode:04o}), expected 0600: chmod 600 {path}")
        return file.read()


def _make(path: Path) -> None:
    """Makes the file with a new key, whole or not at all. Of two starts at once one makes it, and both read it."""
    written = _write(path, [new_key()])
    try:
        try:
            os.link(written, path)  # unlike a rename, it fails where the other start was first
        except FileExistsError:
            return
    finally:
        written.unlink()
    _sync(path.parent)


def _write(path: Path, keys: Sequence[str]) -> Path:
    """Writes keys, a line each, to a new file beside `path`, and returns that."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600 by its contract
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write("".join(f"{key}\n" for key in keys))
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        Path(name).unlink()
        raise
    return Path(name)


def _signature(path: Path) -> tuple[int, int, int]:
    """What changes with the file."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def _sync(folder: Path) -> None:
    """A new name is safe from a power cut once its folder is written too; secrets without their key are lost."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _frame(purpose: str) -> bytes:
    if "\0" in purpose:
        raise ValueError("a purpose has no NUL")
    return purpose.encode() + b"\0"
