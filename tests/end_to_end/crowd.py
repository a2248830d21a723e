"""Hundreds of clients at once, each with a connection that it keeps, in one thread: enough to find lost updates."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from tests.end_to_end.raw_client import Header, request_bytes

ANSWER_S = 30.0
RECONNECT_S = 0.05


class Asked(NamedTuple):
    """A request: its own id, and the status it was answered with; 0 where no answer came, so that nobody knows."""

    request_id: str
    status: int


class Crowd:
    """Clients of several relays, in turn. Each request has an id that the relay keeps."""

    def __init__(self, ports: Sequence[int], path: str, fields: Sequence[Header], name: str) -> None:
        self._ports = ports
        self._path = path
        self._fields = fields
        self._name = name
        self.asked: list[Asked] = []

    def ask(self, clients: int, each: int) -> None:
        """Has each client ask so often. A client whose connection ends takes another one, and goes on."""

        async def all_of_them() -> None:
            await asyncio.gather(*(self._client(number, each) for number in range(clients)))

        asyncio.run(all_of_them())

    def statuses(self) -> Counter[int]:
        return Counter(asked.status for asked in self.asked)

    async def _client(self, number: int, each: int) -> None:
        port = self._ports[number % len(self._ports)]
        streams = None
        for turn in range(each):
            request_id = f"{self._name}-{number}-{turn}"
            status = 0
            try:
                streams = streams or await self._connected(port)
                async with asyncio.timeout(ANSWER_S):
                    status = await self._ask(*streams, request_id)
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                if streams is not None:
                    streams[1].close()
                streams = None
            self.asked.append(Asked(request_id, status))
        if streams is not None:
            streams[1].close()

    async def _connected(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(ANSWER_S):
            while True:
                with contextlib.suppress(OSError):
                    return await asyncio.open_connection("127.0.0.1", port)
                await asyncio.sleep(RECONNECT_S)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request_id: str) -> int:
        fields = [*self._fields, (b"x-request-id", request_id.encode())]
        writer.write(request_bytes("GET", self._path, fields))
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.partition(b":")[2]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
        )
        await reader.readexactly(length)
        return int(head.split(b" ", 2)[1])
