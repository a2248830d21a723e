"""Sessions of the admin page: a random name in a cookie, its hash in SQL.

The name is not signed but looked up, so a logout ends a session wherever it is used, and nobody can make one from what
lies in the database. A session is good for one admin token: with a new one, all end.
"""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable

import msgspec

from admin.ports import SettingsService

LIFETIME_S = 7 * 24 * 3600
OPEN_MAX = 1000
"""Sessions at a time; the one that ends first gives way to a new one."""
_INDEX = "sessions"


class Session(msgspec.Struct, frozen=True):
    """What is kept of a session. `expires_s` is seconds since 1970; `token` tells which admin token opened it."""

    expires_s: int
    token: str


_decode_session = msgspec.json.Decoder(Session).decode
_decode_index = msgspec.json.Decoder(dict[str, int]).decode


class Sessions:
    """The open sessions. `token_hash` is the digest of the admin token."""

    def __init__(self, settings: SettingsService, token_hash: str, now_s: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._token = hashlib.sha256(token_hash.encode()).hexdigest()
        self._now_s = now_s
        self._index_lock = asyncio.Lock()

    async def open(self) -> str:
        """Returns the name of a new session."""
        name = secrets.token_urlsafe(32)
        session = Session(expires_s=int(self._now_s()) + LIFETIME_S, token=self._token)
        await self._settings.put(_key(name), msgspec.json.encode(session).decode())
        await self._remember(_key(name), session.expires_s)
        return name

    async def is_open(self, name: str) -> bool:
        found = await self._settings.get(_key(name))
        if found is None:
            return False
        session = _decode_session(found)
        return session.expires_s > self._now_s() and session.token == self._token

    async def close(self, name: str) -> None:
        await self._settings.delete(_key(name))

    async def _remember(self, key: str, expires_s: int) -> None:
        """Notes a session for its end, and removes those that are over.

        Where two processes do so at once, one may be forgotten; that costs a row, since expiry is checked at each use.
        """
        async with self._index_lock:
            found = await self._settings.get(_INDEX)
            index = {} if found is None else _decode_index(found)
            index[key] = expires_s
            by_end = sorted(index, key=index.__getitem__)
            over = [key for key in by_end if index[key] <= self._now_s()]
            for key in {*over, *by_end[: max(len(by_end) - OPEN_MAX, 0)]}:
                await self._settings.delete(key)
                del index[key]
            await self._settings.put(_INDEX, msgspec.json.encode(index).decode())


def label(name: str) -> str:
    """Returns what the log of actions calls a session; one cannot get back to its name."""
    return f"session:{_hash(name)[:8]}"


def _key(name: str) -> str:
    return f"session:{_hash(name)}"


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
