"""The wire below a connection, as the tests play it."""

import asyncio

from proxy.upstream.connection import WINDOW_BYTES


class NoSocket:
    """A socket from which nothing can be read."""

    def fileno(self) -> int:
        return -1


class Wire(asyncio.Transport):
    """A transport that notes what it is told; the loss of what was aborted is for the test to tell."""

    def __init__(self) -> None:
        super().__init__({"socket": NoSocket()})
        self.sent = b""
        self._reads = True
        self.aborted = False

    def reads(self) -> bool:
        return self._reads

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == WINDOW_BYTES
        assert low is None

    def pause_reading(self) -> None:
        self._reads = False

    def resume_reading(self) -> None:
        self._reads = True

    def abort(self) -> None:
        self.aborted = True

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol
