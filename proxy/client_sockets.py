"""The clients' sockets, found among this process's own descriptors by the addresses of their peers.

Granian cannot end a WebSocket without a close frame, and reports one that broke off (1006) as it reports one that was
closed without a code (1005). The kernel can do the one and tell the other. Nothing here reads or writes a socket.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable

Client = tuple[str, str]
"""ASGI's `client` as Granian gives it: the address and the port, both as text."""

ESTABLISHED = 1  # tcpi_state, the first byte of Linux's tcp_info
SLICE = 100
"""Descriptors that are looked at without a pause, in about half a millisecond."""
REST = 10
"""A scan is followed by a rest of so many times its length, so a crowd of endings costs a tenth of the time at most."""


class ClientSockets:
    """What can be asked of a client's connection, and done to it, below Granian; needed where a tunnel breaks off."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._descriptors: dict[Client, int] = {}
        self._scanning = asyncio.Lock()
        self._scanned_s = 0.0  # when the last scan began
        self._next_scan_s = 0.0

    async def stands(self, client: Client) -> bool:
        """Tells whether the client is still connected: it has neither closed its side nor reset the connection."""
        found = await self._find(client)
        if found is None or not hasattr(socket, "TCP_INFO"):
            return False
        with found, contextlib.suppress(OSError):
            return found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == ESTABLISHED
        return False

    async def cut(self, client: Client) -> bool:
        """Ends the client's connection: what has been sent arrives, then the end, and no close frame between.

        Tells whether the connection was found.
        """
        found = await self._find(client)
        if found is None:
            return False
        with found, contextlib.suppress(OSError):
            found.shutdown(socket.SHUT_RDWR)
        return True

    async def _find(self, client: Client) -> socket.socket | None:
        """Returns a duplicate of the socket, so that its number cannot come to mean another connection meanwhile."""
        found = self._duplicate(client)
        if found is not None:
            return found
        asked_s = self._clock()
        async with self._scanning:
            if self._scanned_s < asked_s:
                await self._scan()
        return self._duplicate(client)

    def _duplicate(self, client: Client) -> socket.socket | None:
        try:
            copy = os.dup(self._descriptors[client])
        except (KeyError, OSError):
            return None
        if peer_at(copy) == client:
            return socket_at(copy)
        os.close(copy)
        return None

    async def _scan(self) -> None:
        """Notes the peers of all connected sockets; costs about 7 µs a descriptor."""
        await asyncio.sleep(self._next_scan_s - self._clock())
        self._scanned_s = self._clock()
        found: dict[Client, int] = {}
        for number, descriptor in enumerate(open_descriptors()):
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            if (peer := peer_at(descriptor)) is not None:
                found[peer] = descriptor
        self._descriptors = found
        ended_s = self._clock()
        self._next_scan_s = ended_s + REST * (ended_s - self._scanned_s)


def open_descriptors() -> list[int]:
    """Returns the descriptors of this process."""
    with os.scandir("/dev/fd") as entries:
        return [int(entry.name) for entry in entries]


def socket_at(descriptor: int) -> socket.socket:
    """Returns an object for a socket that is there already. Raises OSError where the descriptor is none."""
    # The widest family, since the one given only says how long an address may be.
    return socket.socket(socket.AF_INET6, socket.SOCK_STREAM, fileno=descriptor)


def peer_at(descriptor: int) -> Client | None:
    """Returns the address of a socket's peer as Granian would give it, or None where there is none."""
    try:
        probe = socket_at(descriptor)
    except OSError:
        return None
    try:
        address = probe.getpeername()
    except OSError:
        return None
    finally:
        probe.detach()
    return (address[0], str(address[1])) if len(address) > 1 else None
