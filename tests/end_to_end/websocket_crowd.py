"""Many short WebSockets, from many addresses, of which a few are open at once."""

import asyncio
from collections.abc import Sequence

from tests.end_to_end.raw_client import request_bytes
from tests.end_to_end.websocket_frames import CLOSE, TEXT, close_payload, encode_frame

HANDSHAKE = [
    (b"Connection", b"Upgrade"),
    (b"Upgrade", b"websocket"),
    (b"Sec-WebSocket-Version", b"13"),
    (b"Sec-WebSocket-Key", b"AQIDBAUGBwgJCgsMDQ4PEA=="),
]
OPEN_AT_ONCE = 25
ANSWER_S = 10.0


def met_by(port: int, target: str, addresses: Sequence[str]) -> dict[str, set[str]]:
    """Which backends each address has met, with as many WebSockets as it is named. Raises what goes wrong with any."""
    met: dict[str, set[str]] = {address: set() for address in addresses}
    waiting = iter(addresses)

    async def client() -> None:
        for address in waiting:
            met[address].add(await backend_met(port, target, address))

    async def all_of_them() -> None:
        await asyncio.gather(*(client() for _ in range(OPEN_AT_ONCE)))

    asyncio.run(all_of_them())
    return met


async def backend_met(port: int, target: str, address: str) -> str:
    """Opens a WebSocket from an address, hears which backend it is (`backends.py`), is echoed, and closes it."""
    async with asyncio.timeout(ANSWER_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))

        async def message() -> bytes:
            _, size = await reader.readexactly(2)
            return await reader.readexactly(size)

        writer.write(request_bytes("GET", target, HANDSHAKE))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        met = await message()
        writer.write(encode_frame(TEXT, address.encode()))
        assert await message() == address.encode()
        writer.write(encode_frame(CLOSE, close_payload(1000)))
        await reader.read()
        writer.close()
        return met.decode()
