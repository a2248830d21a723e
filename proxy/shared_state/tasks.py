"""The end of a task that talks to Redis."""

import asyncio
from typing import Any

AGAIN_S = 0.1


async def end(task: asyncio.Task[Any]) -> None:
    """Cancels a task and returns when it has ended.

    One cancellation is not always enough: redis-py writes within `asyncio.wait_for`, which up to Python 3.11 swallows
    one that comes as the write ends (python/cpython#86296), and whoever waited for that task would wait for ever.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=AGAIN_S)
    if not task.cancelled():
        task.exception()
