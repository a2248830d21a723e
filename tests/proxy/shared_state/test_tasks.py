"""The end of a task, also of one that swallows what it is told."""

import asyncio
import contextlib

from proxy.shared_state.tasks import end


def test_a_task_that_swallows_a_cancellation_is_cancelled_again() -> None:
    async def main() -> None:
        async def deaf() -> None:
            for _ in range(3):
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(9)

        async def failed() -> None:
            raise OSError

        for work in (deaf, failed):
            task = asyncio.create_task(work())
            await asyncio.sleep(0)
            await end(task)
            assert task.done()

    asyncio.run(main())
