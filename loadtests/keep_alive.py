"""A client's connection that tells which worker of the relay answered: the ids of requests begin with its name."""

import asyncio
import contextlib
import re
import ssl
from typing import NamedTuple, Self

WORKER_DIGITS = 16
CLOSE_TIMEOUT_S = 2.0
_FIELD = rb"\r\n%b: *([^\r]*)\r\n"
LENGTH = re.compile(_FIELD % b"content-length", re.IGNORECASE)
REQUEST_ID = re.compile(_FIELD % b"x-request-id", re.IGNORECASE)
LAST = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)


class WrongAnswerError(Exception):
    """What came is no answer, or not to this request."""


class Answer(NamedTuple):
    """`worker` is empty where no worker of the relay answered."""

    status: int
    worker: str
    body: bytes


class KeepAlive:
    """One HTTP/1.1 connection, for one request at a time. Its methods raise OSError, EOFError where it ended."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: bytes) -> None:
        self._reader = reader
        self._writer = writer
        self._host = host
        self._last = False
        self.worker = ""
        """Who answered last."""

    @classmethod
    async def open(cls, port: int, tls: ssl.SSLContext | None = None) -> Self:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        return cls(reader, writer, b"127.0.0.1:%d" % port)

    @property
    def ended(self) -> bool:
        """Whether the other side has closed it, between two requests, or has said that it will."""
        return self._last or self._reader.at_eof() or self._writer.is_closing()

    @property
    def certificate(self) -> bytes:
        """The other side's, in DER; only with TLS."""
        certificate: bytes = self._writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return certificate

    async def ask(self, method: bytes, target: bytes, body: bytes = b"", fields: bytes = b"") -> Answer:
        """Sends a request and returns its answer. Raises WrongAnswerError too."""
        length = b"content-length: %d\r\n" % len(body) if body else b""
        head = b"%b %b HTTP/1.1\r\nhost: %b\r\n%b%b\r\n" % (method, target, self._host, length, fields)
        self._writer.write(head + body)
        received = await self._reader.readuntil(b"\r\n\r\n")
        stated = LENGTH.search(received)
        if not received.startswith(b"HTTP/1.1 ") or stated is None:
            raise WrongAnswerError(repr(received))
        self._last = LAST.search(received) is not None
        named = REQUEST_ID.search(received)
        content = await self._reader.readexactly(int(stated[1]))
        if named is not None:
            self.worker = named[1][:WORKER_DIGITS].decode()
        return Answer(int(received[9:12]), self.worker, content)

    async def close(self) -> None:
        """Returns when it is closed; with TLS, the other side has its say."""
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._writer.wait_closed()
