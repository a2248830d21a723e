"""What the control plane asks all workers, such as what became of a request, and how they answer.

A question goes to all through a channel; whoever hears it adds his answer to a list, an empty one where he knows
nothing. So the asker waits for as many as have heard it, and `wait_s` at most. Both are lost if nobody takes them: the
list ends by itself.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import msgspec
from redis.asyncio import RedisCluster
from redis.exceptions import RedisError

from proxy.shared_state.breaker import Guard, StoreUnavailable
from proxy.shared_state.client import Client
from proxy.shared_state.keys import ANSWERS, QUESTIONS_CHANNEL, WORKERS
from proxy.shared_state.published import UNREADABLE

log = logging.getLogger("relaygate")

EXPLAIN = "explain"
"""Asks what is known of the request with an id, which is the question's data."""
LATEST = "latest"
"""Asks for the traces of the latest requests."""
LISTEN = "listen"
"""Asks for nothing, but says that somebody listens to the live log (`live_log.py`)."""

ANSWERS_S = 30
"""After which the list of answers ends."""
LOOK_S = 0.01
POLL_S = 1.0
RETRY_S = 0.5

Handler: TypeAlias = Callable[[bytes], bytes | None]
"""Answers a question, or knows nothing of it."""


class Question(NamedTuple):
    kind: str
    data: bytes = b""


class _Message(msgspec.Struct, array_like=True, frozen=True):
    """A question as it is sent. Answers go to the list of this id; without an id, none are wanted."""

    id: str
    kind: str
    data: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Message).decode


async def tell(client: Client, guard: Guard, question: Question) -> int:
    """Asks all workers something that wants no answer. Returns how many have heard it, in a cluster some of them."""
    return await _send(client, guard, _Message("", *question))


async def ask(
    client: Client, guard: Guard, question: Question, wait_s: float, enough: int | None = None
) -> list[bytes]:
    """Returns what workers know, once all have answered, or `enough` of them with something, or after `wait_s`.

    Raises StoreUnavailable, RedisError.
    """
    name = os.urandom(8).hex()
    end_s = time.monotonic() + wait_s
    asked = await _send(client, guard, _Message(name, *question))
    if isinstance(client, RedisCluster):  # whose nodes count their own listeners only
        asked = await guard.call(lambda: client.hlen(WORKERS))  # type: ignore[arg-type,unused-ignore]
    heard = 0
    answers: list[bytes] = []
    while heard < asked and (enough is None or len(answers) < enough) and time.monotonic() < end_s:
        await asyncio.sleep(LOOK_S)
        found: Any = await guard.call(lambda: client.lpop(ANSWERS + name, 1000))  # type: ignore[arg-type,return-value,unused-ignore]
        heard += len(found or ())
        answers += [answer for answer in found or () if answer]
    return answers


async def _send(client: Client, guard: Guard, message: _Message) -> int:
    heard: Any = await guard.call(lambda: client.publish(QUESTIONS_CHANNEL, _encode(message)))
    return int(heard)


class QuestionFeed:
    """A worker's ear. `handlers` by kind; what one does not know it leaves to others."""

    def __init__(self, client: Client, guard: Guard, handlers: Mapping[str, Handler]) -> None:
        self._client = client
        self._guard = guard
        self._handlers = handlers

    async def follow(self) -> None:
        """Answers until it is cancelled."""
        while True:
            try:
                await self._listen()
            except (StoreUnavailable, RedisError, OSError):  # the guard tells of it
                await asyncio.sleep(RETRY_S)

    async def _listen(self) -> None:
        async with self._client.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(QUESTIONS_CHANNEL)
            while True:
                message = await channel.get_message(timeout=POLL_S)
                if message is not None:
                    await self._hear(message["data"])

    async def _hear(self, data: bytes) -> None:
        try:
            question = _decode(data)
        except UNREADABLE:  # of another version
            return
        answer = self._answer(question)
        if question.id:
            await self._guard.call(lambda: self._send(ANSWERS + question.id, answer))

    def _answer(self, question: _Message) -> bytes:
        handler = self._handlers.get(question.kind)
        try:
            return (handler(question.data) if handler else None) or b""
        except Exception as error:
            log.error("not answered (%a): %s", question.kind, type(error).__name__)  # noqa: TRY400 - a line
            return b""

    async def _send(self, key: str, answer: bytes) -> None:
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.rpush(key, answer)  # type: ignore[arg-type,unused-ignore]
            pipe.expire(key, ANSWERS_S)
            await pipe.execute()
