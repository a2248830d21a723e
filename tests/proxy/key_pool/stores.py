"""A store of bans that several workers of a test share, and a clock that they all read."""

import asyncio

from proxy.key_pool.ban_book import Field
from proxy.key_pool.pool import KeyPool
from proxy.rules.credentials import Ban, Credential
from proxy.shared_state.linked_key_pool import Put
from tests.proxy.asgi import no_secrets


class Clock:
    """Seconds since 1970, as a test sets them."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


class Away(Exception):  # noqa: N818 - it says where the store is
    """The store is not there."""


class SharedStore:
    """As Redis: whoever expects what is there wins. `workers` hear of each change when `announce` is called."""

    def __init__(self) -> None:
        self.bans: dict[Field, Ban] = {}
        self.workers: list[KeyPool] = []
        self.away = False
        self.puts = 0
        self._heard: list[tuple[Field, Ban | None]] = []

    async def put(self, credential: str, model: str, expected: Ban | None, new: Ban | None) -> Put:
        await asyncio.sleep(0)
        if self.away:
            raise Away
        self.puts += 1
        field = (credential, model)
        if self.bans.get(field) != expected:
            return Put(False, self.bans.get(field))
        if new is None:
            self.bans.pop(field, None)
        else:
            self.bans[field] = new
        self._heard.append((field, new))
        return Put(True, new)

    def announce(self) -> None:
        for field, ban in self._heard:
            for worker in self.workers:
                worker.ban_changed(*field, ban)
        self._heard.clear()


def worker(store: SharedStore | None, clock: Clock, *credentials: Credential) -> KeyPool:
    """A worker with some credentials, which chooses the first where it would draw."""
    pool = KeyPool(no_secrets, clock, lambda: 0.0)
    if store is not None:
        pool.share(store, Away)
        store.workers.append(pool)
    pool.credentials_changed(credentials, [])
    pool.complete = True
    return pool


def keys(*names: str, group: str = "default") -> list[Credential]:
    return [Credential(name, f"secret-{name}", group) for name in names]
