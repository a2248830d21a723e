"""The loop that keeps what is published the newest that there is: of the configuration, and of credentials."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from admin.database import DatabaseDown
from proxy.shared_state.breaker import StoreUnavailable

log = logging.getLogger("relaygate")

CHECK_S = 1.0


async def keep_published(
    publish: Callable[[], Awaitable[None]], wanted: asyncio.Event, line: Callable[[Exception], str]
) -> None:
    """Publishes when it is wanted, and once a second, until it is cancelled.

    What keeps failing is logged once, as `line` words it; that SQL or Redis is away is told elsewhere.
    """
    told = ""
    while True:
        wanted.clear()
        problem = ""
        try:
            await publish()
        except (StoreUnavailable, DatabaseDown):
            problem = told
        except Exception as error:
            problem = line(error)
            if problem != told:
                log.error("%s", problem)  # noqa: TRY400 - a line, not a traceback
        told = problem
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHECK_S):
                await wanted.wait()
