"""The end of a task that talks to Redis."""

import asyncio
from typing import Any

AGAIN_S = 0.1


async def end(task: asyncio.Task[Any]) -> None:
    """Cancels a task and returns when it has ended.

    One cancellation is not always enough: a timeout within redis-py that ends at the same moment can swallow it, and
    whoever waited for that task would wait for ever.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=AGAIN_S)
    if not task.cancelled():
        task.exception()
