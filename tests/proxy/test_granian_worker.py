"""The one change to Granian's worker: a body is asked for first, and only where asking says nothing to the client."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from proxy.granian_worker import TICK_S, FirstReceived, Starter, has_body_at_hand
from proxy.rules.headers import Header
from tests.proxy.asgi import play


class Receive:
    """Granian's `receive`: counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> Awaitable[Any]:
        self.asked += 1
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        answer.set_result(self.asked)
        return answer


def test_the_first_message_is_the_one_that_was_asked_for_before() -> None:
    async def dialogue() -> None:
        granians = Receive()
        receive = FirstReceived(granians, granians())
        assert granians.asked == 1
        assert [await receive() for _ in range(3)] == [1, 2, 3]
        assert granians.asked == 3

    play(dialogue)


def test_a_first_message_that_nobody_wants_is_no_trouble() -> None:
    async def dialogue() -> None:
        granians = Receive()
        FirstReceived(granians, granians())
        await asyncio.sleep(0)
        assert granians.asked == 1

    play(dialogue)


class Watcher:
    """Granian's word of a request, and the body's first piece, which the test lets come."""

    def __init__(self, headers: list[Header], kind: str = "http") -> None:
        self.scope = {"type": kind, "headers": headers}
        self.proto = self
        self.first: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()

    def receive(self) -> Awaitable[str]:
        return self.first

    def send(self, _message: object) -> None:
        pass

    def taskref(self, task: asyncio.Task[None]) -> None:
        self.task = task

    def done(self) -> None:
        self.ended.set()


class Begun:
    """An application that notes what it was given, and when."""

    def __init__(self) -> None:
        self.scopes: list[object] = []
        self.messages: list[object] = []

    async def __call__(self, scope: object, receive: Receive, _send: object) -> None:
        self.scopes.append(scope)
        self.messages.append(await receive())


def test_a_request_begins_when_its_body_does() -> None:
    async def dialogue() -> None:
        app = Begun()
        announce = announcer(app)
        watcher = Watcher([LENGTH])
        announce(watcher)
        await asyncio.sleep(TICK_S / 10)
        assert app.scopes == []
        watcher.first.set_result("piece")
        await watcher.ended.wait()
        assert app.messages == ["piece"]
        assert app.scopes == [watcher.scope]
        await asyncio.sleep(TICK_S * 1.5)  # the tick does not begin it again
        assert app.scopes == [watcher.scope]

    play(dialogue)


def test_a_request_whose_body_does_not_come_begins_at_the_next_tick() -> None:
    """Its route, its limits and its client's leaving are looked at then."""

    async def dialogue() -> None:
        app = Begun()
        announce = announcer(app)
        watcher = Watcher([LENGTH])
        announce(watcher)
        await asyncio.sleep(TICK_S * 1.5)
        assert app.scopes == [watcher.scope]
        assert app.messages == []
        watcher.first.set_result("piece")
        await watcher.ended.wait()
        assert app.messages == ["piece"]
        assert app.scopes == [watcher.scope]

    play(dialogue)


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_request_without_a_body_begins_at_once(kind: str) -> None:
    async def dialogue() -> None:
        app = Begun()
        announce = announcer(app)
        watcher = Watcher([LENGTH] if kind == "websocket" else [], kind)
        announce(watcher)
        await asyncio.sleep(TICK_S / 10)
        assert app.scopes == [watcher.scope]
        watcher.first.set_result("nothing")
        await watcher.ended.wait()

    play(dialogue)


def announcer(app: Begun) -> Callable[[Watcher], None]:
    return Starter(asyncio.get_running_loop(), app, contextvars.copy_context()).announce


LENGTH = (b"content-length", b"5")
CHUNKED = (b"transfer-encoding", b"chunked")
EXPECT = (b"expect", b"100-continue")


@pytest.mark.parametrize(
    ("headers", "at_hand"),
    [
        ([], False),
        ([(b"host", b"a")], False),
        ([LENGTH], True),
        ([(b"a", b"1"), CHUNKED, (b"a", b"2")], True),
        ([EXPECT, LENGTH], False),
        ([CHUNKED, EXPECT], False),
        ([EXPECT], False),
    ],
)
def test_a_body_is_asked_for_only_where_asking_gives_no_leave_to_send_it(
    headers: list[Header], *, at_hand: bool
) -> None:
    """C17."""
    assert has_body_at_hand({"type": "http", "headers": headers}) is at_hand
    assert not has_body_at_hand({"type": "websocket", "headers": headers})
