"""What the control plane does again and again beside answering."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from admin.database import DatabaseDown
from proxy.shared_state.breaker import StoreUnavailable

log = logging.getLogger("relaygate")


async def repeat(name: str, work: Callable[[], Awaitable[object]], every_s: float, first_s: float = 0) -> None:
    """Does `work` after `first_s` and then every so many seconds, until it is cancelled.

    What goes wrong is told in one line, and not again while it stays the same.
    """
    told = ""
    await asyncio.sleep(first_s)
    while True:
        try:
            await work()
            told = ""
        except (StoreUnavailable, DatabaseDown):  # their state is told where it changes
            pass
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            if problem != told:
                log.error("%s failed: %s", name, problem)  # noqa: TRY400 - a line, not a traceback
            told = problem
        await asyncio.sleep(every_s)
