"""A client's connection knows who answered, and when it is over."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from loadtests.keep_alive import Answer, KeepAlive, WrongAnswerError

WORKER = "0123456789abcdef"
OK = b"HTTP/1.1 200 OK\r\nX-Request-Id: " + WORKER.encode() + b"0000002a\r\nContent-Length: 2\r\n%b\r\nok"


def against(answer: bytes, story: Callable[[KeepAlive], Coroutine[Any, Any, None]]) -> bytes:
    """Plays with a server that gives this answer to each request, and closes after an empty one.

    Returns what the server received.
    """
    received = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        while data := await reader.read(4096):
            received += data
            writer.write(answer)
            if not answer:
                break
        writer.close()

    async def play() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            wire = await KeepAlive.open(server.sockets[0].getsockname()[1])
            try:
                await story(wire)
            finally:
                await wire.close()

    asyncio.run(play())
    return received


def test_an_answer_and_its_worker() -> None:
    async def story(wire: KeepAlive) -> None:
        assert wire.worker == ""
        assert await wire.ask(b"POST", b"/x", b"body", b"a: b\r\n") == Answer(200, WORKER, b"ok")
        assert wire.worker == WORKER
        assert not wire.ended

    received = against(OK % b"", story)
    assert received.startswith(b"POST /x HTTP/1.1\r\nhost: 127.0.0.1:")
    assert received.endswith(b"\r\ncontent-length: 4\r\na: b\r\n\r\nbody")


def test_the_last_answer_says_so() -> None:
    async def story(wire: KeepAlive) -> None:
        await wire.ask(b"GET", b"/")
        assert wire.ended

    against(OK % b"Connection: close\r\n", story)


def test_a_connection_that_is_closed_without_an_answer() -> None:
    async def story(wire: KeepAlive) -> None:
        with pytest.raises(EOFError):
            await wire.ask(b"GET", b"/")
        assert wire.ended

    against(b"", story)


def test_what_is_no_answer() -> None:
    async def story(wire: KeepAlive) -> None:
        with pytest.raises(WrongAnswerError):
            await wire.ask(b"GET", b"/")

    against(b"SSH-2.0-OpenSSH\r\n\r\n", story)
