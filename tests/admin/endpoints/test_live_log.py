"""The live log as server-sent events, straight from the application: a test client would wait for the end."""

import asyncio
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest

from admin.app import create_app
from admin.live_log import LiveLog
from tests.admin.api import AUTHORIZED, TOKEN_HASH, Api, there
from tests.admin.memory import Memory


class Stream:
    """A request for the stream, whose client leaves when told to."""

    def __init__(self, memory: Memory, **query: str) -> None:
        self.messages: list[dict[str, Any]] = []
        self._left = asyncio.Event()
        self._asked = False
        headers = [(name.lower().encode(), value.encode()) for name, value in AUTHORIZED.items()]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/admin/logs/stream",
            "raw_path": b"/admin/logs/stream",
            "query_string": urlencode(query).encode(),
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8001),
            "state": {},
        }
        app: Any = create_app(memory.services, token_hash=TOKEN_HASH, probes={"database": there})
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        self.messages.append(message)
        if message["type"] == "http.response.body" and not message["more_body"]:
            self._left.set()  # as ASGI has it: behind a whole response, nothing else comes

    def leave(self) -> None:
        self._left.set()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    async def until(self, holds: Callable[["Stream"], bool]) -> None:
        async with asyncio.timeout(5):
            while not holds(self):  # noqa: ASYNC110 - ASGI tells by calls
                await asyncio.sleep(0.005)


def told(live_log: LiveLog, **line: object) -> None:
    live_log.tell(json.dumps(line).encode())


def memory_with(live_log: LiveLog) -> Memory:
    memory = Memory()
    memory.about_keys.live_log = live_log
    return memory


def test_lines_are_events_as_they_come_and_leaving_ends_it() -> None:
    async def story() -> None:
        live_log = LiveLog()
        stream = Stream(memory_with(live_log), status="4xx", key="key_1")
        await stream.until(lambda one: b": keep-alive\n\n" in one.body)
        fields = dict(stream.messages[0]["headers"])
        assert stream.messages[0]["status"] == 200
        assert fields[b"content-type"].startswith(b"text/event-stream")
        assert fields[b"x-accel-buffering"] == b"no"
        told(live_log, status=200, credential="key_1")
        told(live_log, status=429, credential="key_1")
        told(live_log, status=429, credential="key_2")
        await stream.until(lambda one: b"data: " in one.body)
        assert stream.body.count(b"data: ") == 1
        assert b'data: {"status":429,"credential":"key_1"}\n\n' in stream.body
        assert live_log.wanted.is_set()
        stream.leave()
        await asyncio.wait_for(stream.task, 5)
        assert not live_log.wanted.is_set()

    asyncio.run(story())


def test_silence_is_told_by_comments_and_it_ends_after_its_time() -> None:
    async def story() -> None:
        live_log = LiveLog(heartbeat_s=0.02, lifetime_s=0.1)
        stream = Stream(memory_with(live_log))
        await asyncio.wait_for(stream.task, 5)
        assert 2 <= stream.body.count(b": keep-alive\n\n") <= 7
        assert stream.messages[-1]["more_body"] is False
        assert not live_log.wanted.is_set()

    asyncio.run(story())


def test_lost_lines_are_told() -> None:
    async def story() -> None:
        live_log = LiveLog(waiting_max=1)
        stream = Stream(memory_with(live_log))
        await stream.until(lambda one: b"keep-alive" in one.body)
        for number in range(3):
            told(live_log, number=number)
        await stream.until(lambda one: b'"number":2' in one.body)
        assert b'event: lost\ndata: {"lines":2}\n\ndata: {"number":2}\n\n' in stream.body
        stream.leave()
        await asyncio.wait_for(stream.task, 5)

    asyncio.run(story())


def test_too_many_listeners_are_429(api: Api) -> None:
    api.memory.about_keys.live_log._listeners_max = 0
    answer = api.ask("GET", "/admin/logs/stream")
    assert (answer.status_code, answer.json()["error"]) == (429, "too_many_listeners")


@pytest.mark.parametrize("query", ["status=600", "status=4x", "route=%00", "model=%1f"])
def test_a_wrong_filter_is_refused(api: Api, query: str) -> None:
    answer = api.ask("GET", f"/admin/logs/stream?{query}")
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(query.partition("=")[0])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["c", "b", "a"]),
        ("?limit=2", ["c", "b"]),
        ("?status=4xx", ["c", "a"]),
        ("?status=429&route=/one", ["a"]),
        ("?key=key_2", ["c"]),
        ("?model=gpt&limit=1", ["b"]),
    ],
)
def test_what_went_before_is_asked_for_by_the_same_words(api: Api, query: str, expected: list[str]) -> None:
    api.memory.about_keys.explanations.lines = [
        {"request_id": "c", "route": "/two", "status": 404, "credential": "key_2", "model": ""},
        {"request_id": "b", "route": "/one", "status": 200, "credential": "key_1", "model": "gpt"},
        {"request_id": "a", "route": "/one", "status": 429, "credential": "key_1", "model": "gpt"},
    ]
    answer = api.ask("GET", f"/admin/logs/history{query}").json()
    assert answer["success"] is True
    assert [line["request_id"] for line in answer["data"]] == expected
