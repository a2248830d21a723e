"""A lock in Redis, for what only one of all control planes may do at a time, whatever machine they run on.

It ends by itself, since whoever holds it may die, and is prolonged while it is held. So it is no proof: a Redis that
forgets it, as a replica that takes over may, lets two in at once, and so does a holder that stands still for too long.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from proxy.shared_state.breaker import Guard, StoreUnavailable
from proxy.shared_state.client import Client
from proxy.shared_state.tasks import end

RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"
PROLONG = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) end return 0"


class RedisLock:
    """The lock `key`, which ends `expiry_ms` after its holder is gone. Each object is one holder."""

    def __init__(self, client: Client, guard: Guard, key: str, expiry_ms: int) -> None:
        self._client = client
        self._guard = guard
        self._key = key
        self._expiry_ms = expiry_ms
        self._owner = secrets.token_hex(16)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[bool]:
        """Holds it for the time of the block, if it is free: tells whether it was. Raises StoreUnavailable."""
        if not await self.take():
            yield False
            return
        prolonging = asyncio.get_running_loop().create_task(self._go_on())
        try:
            yield True
        finally:
            await end(prolonging)
            await self.release()

    async def take(self) -> bool:
        """Whether it was free, and is this holder's now. Raises StoreUnavailable; then it may be, until it ends."""
        done = await self._guard.call(
            lambda: self._client.set(self._key, self._owner, nx=True, px=self._expiry_ms)  # type: ignore[arg-type,return-value,unused-ignore]
        )
        return bool(done)

    async def prolong(self) -> bool:
        """Whether it is still this holder's, and is so for as long again. Raises StoreUnavailable."""
        return bool(await self._run(PROLONG, self._expiry_ms))

    async def release(self) -> None:
        """Gives it up, unless it is another's by now. Where Redis does not answer, it ends by itself."""
        with contextlib.suppress(StoreUnavailable):
            await self._run(RELEASE)

    async def _go_on(self) -> None:
        """Prolongs it three times within its life, until it is another's or this is cancelled."""
        is_held = True
        while is_held:
            await asyncio.sleep(self._expiry_ms / 3000)
            with contextlib.suppress(StoreUnavailable):
                is_held = await self.prolong()

    async def _run(self, script: str, *arguments: int) -> Any:
        values: Any = (self._key, self._owner, *arguments)
        return await self._guard.call(lambda: self._client.eval(script, 1, *values))  # type: ignore[arg-type,return-value,unused-ignore]
