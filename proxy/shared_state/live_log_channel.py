"""The live log on its way from the workers to who listens: a batch of lines every 100 ms at most.

Nothing is kept: what nobody hears, and what a worker says while Redis is away, is gone.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from redis.exceptions import RedisError

from proxy.shared_state.breaker import Guard, StoreUnavailable
from proxy.shared_state.client import Client
from proxy.shared_state.keys import LIVE_LOG_CHANNEL
from proxy.shared_state.live_log import Batch, LiveLog
from proxy.shared_state.published import UNREADABLE
from proxy.shared_state.questions import LISTEN, Question, tell

BATCH_S = 0.1
SAY_S = 5.0
"""So often who listens says so."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Batch).decode


async def bring_lines(client: Client, guard: Guard, live_log: LiveLog) -> None:
    """Publishes a worker's lines until it is cancelled."""
    while True:
        await live_log.some.wait()
        batch = live_log.take()
        with contextlib.suppress(StoreUnavailable, RedisError, OSError):  # the guard tells of it
            await guard.call(lambda batch=batch: client.publish(LIVE_LOG_CHANNEL, _encode(batch)))  # type: ignore[misc]
        await asyncio.sleep(BATCH_S)


async def lines(client: Client, guard: Guard) -> AsyncGenerator[bytes, None]:
    """Gives the lines of all workers, in JSON, from about now on; `{"left_out": N}` stands for N that were too many.

    An empty one every 5 s at least says that there is nothing, so that who passes them on can see whether anybody is
    left to read them. Has no end; raises StoreUnavailable, RedisError and OSError where Redis goes away.
    """
    async with client.pubsub(ignore_subscribe_messages=True) as channel:
        await channel.subscribe(LIVE_LOG_CHANNEL)
        await channel.get_message(timeout=SAY_S)  # the confirmation
        while True:
            await tell(client, guard, Question(LISTEN))
            say_at_s = time.monotonic() + SAY_S
            while (left_s := say_at_s - time.monotonic()) > 0:
                message: Any = await channel.get_message(timeout=left_s)
                for line in _lines(message["data"]) if message else ():
                    yield line
            yield b""


def _lines(data: bytes) -> list[bytes]:
    try:
        batch = _decode(data)
    except UNREADABLE:  # of another version
        return []
    left_out = [msgspec.json.encode({"left_out": batch.left_out})] if batch.left_out else []
    return batch.lines + left_out
