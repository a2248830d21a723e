"""Tasks that run within the call that starts or resumes them, and the loop is as it was afterwards."""

import asyncio
from collections.abc import Iterator

import pytest
import uvloop

from proxy.eager import resolve_now, start_now


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    made: asyncio.AbstractEventLoop = request.param()
    yield made
    made.close()


class Diary:
    """A task that notes its steps."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.steps: list[str] = []
        self.future: asyncio.Future[None] = loop.create_future()

    async def write(self) -> None:
        assert asyncio.current_task() is not None
        self.steps.append("begun")
        self.loop.call_soon(self.steps.append, "a later turn")
        await self.future
        self.steps.append("resumed")
        self.loop.call_soon(self.steps.append, "a later turn")
        await asyncio.sleep(0)
        self.steps.append("ended")


def test_a_task_runs_to_its_first_wait_and_from_wait_to_wait(loop: asyncio.AbstractEventLoop) -> None:
    diary = Diary(loop)
    tasks = []

    def begin() -> None:
        tasks.append(start_now(loop, diary.write()))
        assert diary.steps == ["begun"]
        loop.call_later(0.01, resume)

    def resume() -> None:
        resolve_now(loop, diary.future, None)
        assert diary.steps == ["begun", "a later turn", "resumed"]
        tasks[0].add_done_callback(lambda _: loop.stop())

    loop.call_soon(begin)
    loop.run_forever()
    assert diary.steps == ["begun", "a later turn", "resumed", "a later turn", "ended"]
    assert tasks[0].exception() is None
    assert "call_soon" not in vars(loop)


def test_inside_a_task_they_do_as_the_loop_does(loop: asyncio.AbstractEventLoop) -> None:
    async def main() -> None:
        diary = Diary(loop)
        task = start_now(loop, diary.write())
        assert diary.steps == []
        await asyncio.sleep(0)
        resolve_now(loop, diary.future, None)
        assert diary.steps == ["begun"]
        await task
        assert diary.steps[-1] == "ended"

    loop.run_until_complete(main())


def test_a_future_that_nobody_awaits_leaves_the_loop_as_it_was(loop: asyncio.AbstractEventLoop) -> None:
    later: list[str] = []

    def resolve() -> None:
        resolve_now(loop, loop.create_future(), None)
        loop.call_soon(later.append, "later")
        assert later == []
        loop.call_soon(loop.stop)

    loop.call_soon(resolve)
    loop.run_forever()
    assert later == ["later"]


def test_what_a_task_raises_is_its_own(loop: asyncio.AbstractEventLoop) -> None:
    async def fail() -> None:
        raise ValueError("mine")

    tasks = []

    def begin() -> None:
        tasks.append(start_now(loop, fail()))
        loop.call_soon(loop.stop)

    loop.call_soon(begin)
    loop.run_forever()
    assert isinstance(tasks[0].exception(), ValueError)
