"""The one change to Granian's worker: a body is asked for first, and only where asking says nothing to the client."""

import asyncio
import contextvars
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from proxy import granian_worker
from proxy.granian_worker import TICK_S, End, FirstReceived, Starter, closing, has_body_at_hand
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


# ---- the end --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["http.response.start", "websocket.http.response.start"])
def test_the_last_answer_of_a_connection_says_so(kind: str) -> None:
    sent: list[dict[str, Any]] = []
    start = {"type": kind, "status": 200, "headers": [(b"a", b"1")]}
    body = {"type": "http.response.body", "body": b"x"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def dialogue() -> None:
        for message in (start, body):
            await closing(send)(message)

    play(dialogue)
    assert sent == [start | {"headers": [(b"a", b"1"), (b"connection", b"close")]}, body]
    assert start["headers"] == [(b"a", b"1")]


class Holding:
    """An application that holds connections for its first looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks
        self.retired = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError((scope, receive, send))

    def holds_connections(self) -> bool:
        self.looks -= 1
        return self.looks >= 0

    def retiring(self) -> None:
        self.retired += 1

    def stopping(self) -> None:
        """Nothing is to be done."""


class Set:
    """Granian's signal, which counts."""

    def __init__(self) -> None:
        self.times = 0

    def set(self) -> None:
        self.times += 1


def ending(app: Holding) -> tuple[Any, Set]:
    end: Any = End(asyncio.get_running_loop(), app)
    end.signal = Set()
    return end, end.signal


def test_granian_is_told_once() -> None:
    async def dialogue() -> None:
        end, told = ending(Holding(0))
        for _ in range(5):
            end.stop()
        assert told.times == 1

    play(dialogue)


def test_a_retired_worker_waits_for_a_quiet_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds count anew from the last look that found a request."""
    closed: list[int] = []
    slept: list[float] = []

    async def sleep(delay_s: float) -> None:
        slept.append(delay_s)

    async def dialogue() -> None:
        app = Holding(10)
        end, told = ending(app)
        starter = Starter(asyncio.get_running_loop(), app, contextvars.copy_context())
        end.retire(starter, 7, 3.5)
        assert (starter.retired, closed, app.retired) == (True, [7], 1)
        monkeypatch.setattr(asyncio, "sleep", sleep)
        await end._retirement
        assert told.times == 1
        assert slept == [1] * (10 + 6)

    monkeypatch.setattr(granian_worker, "stop_accepting", closed.append)
    play(dialogue)


def test_a_parents_death_that_is_told_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[int] = []
    raised: list[int] = []
    timers: list[float] = []

    async def dialogue() -> None:
        end, _ = ending(Holding(0))
        for _ in range(3):
            end.drain_alone(7, 10.0)

    monkeypatch.setattr(granian_worker, "stop_accepting", closed.append)
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    monkeypatch.setattr(signal, "setitimer", lambda _, seconds: timers.append(seconds))
    play(dialogue)
    assert (closed, raised, timers) == ([7], [signal.SIGTERM], [12.0])
