"""Edits of every kind leave what they found, and say by what answers they are seen."""

import asyncio
import json
from typing import Any

import pytest

from loadtests.echo_upstream import echo
from loadtests.edit_visibility import MAPPINGS, MOVING, Edit, EditVisibility, RefusedError, Target, edits, move
from loadtests.keep_alive import Answer
from loadtests.processes import free_port

TARGETS = [Target("alpha", "http://127.0.0.1:1"), Target("beta", "http://127.0.0.1:2")]


def apply(edit: Edit, mappings: dict[str, str]) -> None:
    """What the admin API does with an edit."""
    if edit.path.endswith("/batch-delete"):
        for prefix in edit.body["prefixes"]:
            del mappings[prefix]
    elif edit.method == "POST":
        assert edit.body["prefix"] not in mappings
        mappings[edit.body["prefix"]] = edit.body["target"]
    elif edit.method == "PUT":
        prefix = edit.path.removeprefix(MAPPINGS)
        assert mappings[prefix] != edit.body["target"]
        mappings[prefix] = edit.body["target"]
    else:
        del mappings[edit.path.removeprefix(MAPPINGS)]


def answer(mappings: dict[str, str], path: str) -> Answer:
    """What a relay answers to GET."""
    prefix, _, rest = path.rpartition("/")
    if prefix not in mappings:
        return Answer(404, "", b"")
    url, _, base = mappings[prefix].rpartition("/")
    (name,) = (target.name for target in TARGETS if target.url == url)
    return Answer(200, "", echo(name.encode(), b"GET", f"/{base}/{rest}".encode()))


def test_each_edit_is_seen_once_it_is_made_and_not_before() -> None:
    mappings = {MOVING: f"{TARGETS[0].url}/v"}
    methods = set()
    for edit in edits(0, 100, TARGETS):
        assert not edit.seen_in(answer(mappings, edit.asked))
        apply(edit, mappings)
        assert edit.seen_in(answer(mappings, edit.asked))
        methods.add((edit.method, edit.path.endswith("/batch-delete")))
    assert mappings == {MOVING: f"{TARGETS[1].url}/v97"}
    assert methods == {("POST", False), ("PUT", False), ("DELETE", False), ("POST", True)}


class FakeSystem:
    """Two workers and an admin API in one event loop: the workers use an edit after so many more requests."""

    def __init__(self, status: int, delays: list[int]) -> None:
        self._status = status
        self._delays = delays
        self._made: Any = None
        self._connections = 0

    async def admin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"\r\nauthorization: Bearer secret\r\n" in head
        self._made = json.loads(await reader.read(4096))
        writer.write(b"HTTP/1.1 %d -\r\ncontent-length: 3\r\n\r\nwhy" % self._status)
        await reader.read()
        writer.close()

    async def worker(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self._connections % len(self._delays)
        self._connections += 1
        waits = self._delays[number]
        while True:
            try:
                await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                writer.close()
                return
            waits -= self._made is not None
            base = 0 if waits < 0 else 99
            body = echo(b"alpha", b"GET", b"/v%d/x" % base)
            identity = b"%016x00000001" % number
            writer.write(b"HTTP/1.1 200 OK\r\nx-request-id: %b\r\ncontent-length: %d\r\n\r\n" % (identity, len(body)))
            writer.write(body)

    async def edit(self, ports: tuple[int, int]) -> tuple[EditVisibility, Any]:
        async with (
            await asyncio.start_server(self.worker, "127.0.0.1", ports[0]),
            await asyncio.start_server(self.admin, "127.0.0.1", ports[1]),
        ):
            visibility = EditVisibility(*ports, "secret", len(self._delays))
            try:
                await visibility.watch_all()
                return visibility, await visibility.time_s(move(0, TARGETS))
            finally:
                await visibility.close()


def test_an_edit_is_visible_when_the_last_worker_answers_by_it() -> None:
    system = FakeSystem(200, [0, 20])
    visibility, edited = asyncio.run(system.edit((free_port(), free_port())))
    first, last = (edited.visible_s[f"{number:016x}"] for number in range(2))
    assert 0 < first < last == edited.everywhere_s
    assert edited.answered_s > 0
    assert visibility.asked >= 2 + 1 + 21


def test_a_refused_edit_is_not_waited_for() -> None:
    with pytest.raises(RefusedError, match="503 why"):
        asyncio.run(FakeSystem(503, [1000, 1000]).edit((free_port(), free_port())))
