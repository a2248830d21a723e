"""What is done again and again goes on, whatever goes wrong."""

import asyncio
from collections.abc import Iterator

import pytest

from admin.database import DatabaseDown
from admin.jobs import repeat
from proxy.shared_state.breaker import StoreUnavailable
from proxy.shared_state.tasks import end


def test_it_goes_on_and_tells_each_problem_once(caplog: pytest.LogCaptureFixture) -> None:
    problems: Iterator[Exception | None] = iter(
        [
            StoreUnavailable("open"),
            DatabaseDown("here", OSError("gone")),
            ValueError("one"),
            ValueError("one"),
            KeyError("two"),
            None,
            ValueError("one"),
            None,
        ]
    )

    async def main() -> None:
        done = asyncio.Event()

        async def work() -> None:
            try:
                problem = next(problems)
            except StopIteration:
                done.set()
                return
            if problem is not None:
                raise problem

        task = asyncio.create_task(repeat("the job", work, 0.001))
        async with asyncio.timeout(30):
            await done.wait()
        assert not task.done()
        await end(task)

    asyncio.run(main())
    assert caplog.messages == [
        "the job failed: ValueError: one",
        "the job failed: KeyError: 'two'",
        "the job failed: ValueError: one",
    ]
    assert all(record.exc_info is None for record in caplog.records)


def test_it_begins_later_if_told_so() -> None:
    async def main() -> None:
        called = asyncio.Event()

        async def work() -> None:
            called.set()

        late = asyncio.create_task(repeat("later", work, 60, first_s=60))
        await asyncio.sleep(0.05)
        assert not called.is_set()
        await end(late)
        soon = asyncio.create_task(repeat("now", work, 60))
        async with asyncio.timeout(30):
            await called.wait()
        await end(soon)

    asyncio.run(main())
