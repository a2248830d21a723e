"""Secrets that exist to be searched for: each has a name, and is found in whatever spelling it has got out.

Pure but for the files that are read.
"""

import base64
import secrets
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.end_to_end.relay_process import CANARY


class Find(NamedTuple):
    """A secret where none may be."""

    name: str
    spelling: str
    where: str
    around: bytes


class Canaries:
    """Secrets by name. Each has characters in it that a URL has to escape."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}

    def plant(self, name: str) -> str:
        return self.known(name, f"{CANARY}-{name}-{secrets.token_hex(4)}+/~{secrets.token_hex(4)}=")

    def known(self, name: str, secret: str) -> str:
        """Search for a secret that was made elsewhere too."""
        self.secrets[name] = secret
        return secret

    def named(self, *names: str) -> "Canaries":
        """Some of them, by the beginnings of their names."""
        some = Canaries()
        some.secrets = {name: secret for name, secret in self.secrets.items() if name.startswith(names)}
        return some

    def in_bytes(self, data: bytes, where: str) -> list[Find]:
        return [
            Find(name, spelling, where, data[max(0, at - 80) : at + 120])
            for name, secret in self.secrets.items()
            for spelling, text in spellings(secret)
            if (at := data.find(text)) >= 0
        ]

    def in_files(self, directory: Path, excused: Iterable[str] = ()) -> list[Find]:
        """Searches all files below a directory, but those of these names."""
        return [
            find
            for file in sorted(directory.rglob("*"))
            if file.is_file() and file.name not in excused
            for find in self.in_bytes(file.read_bytes(), str(file.relative_to(directory)))
        ]


def spellings(secret: str) -> Iterator[tuple[str, bytes]]:
    """A secret as it may stand in a file: as it is, for a URL, in JSON or Lua with escapes, in hex, in base64."""
    plain = secret.encode()
    yield "plain", plain
    yield "percent", urllib.parse.quote(secret, safe="").encode()
    yield "percent in a query", urllib.parse.quote_plus(secret).encode()
    yield "escaped", secret.replace("/", "\\/").encode()
    yield "hex", plain.hex().encode()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for before in range(3):
            yield f"base64 after {before}", _core(encode(bytes(before) + plain), before, len(plain))


def _core(encoded: bytes, before: int, size: int) -> bytes:
    """Those characters of a base64 text that depend on nothing but the secret, which has `before` bytes before it."""
    first = -(-before * 8 // 6)
    return encoded[first : (before + size) * 8 // 6]
