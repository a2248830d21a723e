"""A connection to Redis of the hot path's own.

redis-py makes it: TLS, passwords, Sentinels. Then its transport is given this protocol, since what redis-py does around
each command takes 120 µs of CPU, and this 15. Of a cluster, whose slots move, redis-py is asked as ever.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import hiredis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import InvalidResponse, ReadOnlyError, RedisError

from proxy.eager import resolve_now
from proxy.shared_state.client import Client


class Line(asyncio.Protocol):
    """One connection, from its making to its end."""

    def __init__(self, writer: Any, parse_error: Any) -> None:
        """Takes a connection over from redis-py's `writer`, which would close it at its own end."""
        self.is_lost = False
        self._writer = writer
        self._transport = cast(asyncio.Transport, writer.transport)
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(protocolError=InvalidResponse, replyError=parse_error)
        self._waiters: deque[asyncio.Future[Any]] = deque()
        self._transport.set_protocol(self)
        if self._transport.is_closing():
            self.lose("the connection was closed as it was made")

    def ask(self, words: Sequence[str | bytes | int]) -> asyncio.Future[Any]:
        """Sends a command. Answers come in the order of commands; errors of Redis come as answers."""
        waiter: asyncio.Future[Any] = self._loop.create_future()
        self._waiters.append(waiter)
        self._transport.write(hiredis.pack_command(tuple(words)))  # type: ignore[arg-type]
        return waiter

    def lose(self, why: str) -> None:
        """Gives the connection up at once; who waits is told why."""
        self.is_lost = True
        self._transport.abort()
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(LostError(why))

    # Called by the event loop

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (answer := self._reader.gets()) is not False:
                if isinstance(answer, hiredis.PushNotification):
                    continue
                waiter = self._waiters.popleft()
                if not waiter.done():
                    resolve_now(self._loop, waiter, answer)
        except (RedisError, IndexError):
            self.lose("what came is no answer of redis's, or one that nobody waits for")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lose("the connection was closed" if exc is None else f"the connection was lost: {exc}")


class Direct:
    """A connection that is made again when it is lost."""

    def __init__(self, client: Redis) -> None:
        self._pool: Any = client.connection_pool  # redis-py's annotations stop here
        self._connecting = asyncio.Lock()
        self._line: Line | None = None

    @property
    def is_connected(self) -> bool:
        return self._line is not None and not self._line.is_lost

    async def ask(self, deadline_s: float, *words: str | bytes | int) -> Any:
        """Returns the answer to a command, in bytes. `connect` first.

        Raises redis-py's errors, as its clients do, and TimeoutError. Who is late, or cancelled while he waits, closes
        the connection for all who wait: the answer that comes all the same would be taken for another one's.
        """
        line = self._line
        if line is None or line.is_lost:
            raise LostError("there is no connection")
        waiter = line.ask(words)
        timer = asyncio.get_running_loop().call_later(deadline_s, late, line, waiter)
        try:
            answer = await waiter
        except asyncio.CancelledError:
            line.lose("the connection was given up")
            raise
        finally:
            timer.cancel()
        if isinstance(answer, RedisError):
            if isinstance(answer, ReadOnlyError):
                line.lose("it is no master any more")
            raise answer
        return answer

    def close(self) -> None:
        """Gives the connection up at once. The next command makes another one."""
        if self._line is not None:
            self._line.lose("the connection was given up")

    async def connect(self) -> None:
        """Makes a connection, unless there is one. Raises redis-py's errors; takes as long as it takes."""
        async with self._connecting:
            if self.is_connected:
                return
            made = self._pool.make_connection()
            try:
                await made.connect()
            except BaseException:
                await made.disconnect(nowait=True)
                raise
            parser, writer = made._parser, made._writer  # noqa: SLF001 - it has no other names for them, and is pinned
            made._reader = made._writer = None  # noqa: SLF001 - it is not to close what it has given away
            self._line = Line(writer, parser.parse_error)


def late(line: Line, waiter: asyncio.Future[Any]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError("no answer came in time"))
    line.lose("no answer came in time")


def direct(client: Client) -> Direct | None:
    """Returns a connection of its own to a client's Redis; None to a cluster."""
    return Direct(client) if isinstance(client, Redis) else None
