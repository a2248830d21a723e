"""Clients that ask once and then stay connected: what an idle connection costs the proxy.

They connect and ask one after the other, so that the proxy needs no more than a few upstream connections for them. An
address has 28,000 ports for outgoing connections unless the kernel was told otherwise, so many clients have several
addresses of 127.0.0.0/8.
"""

import contextlib
import http.client
import select
import ssl
from collections.abc import Iterator

from loadtests.wrk import REQUEST_BODY, REQUEST_HEADERS, REQUEST_PATH

TIMEOUT_S = 10.0
CLIENTS_PER_ADDRESS = 20_000


class IdleError(Exception):
    """A client got a wrong answer, or none."""


class IdleClients:
    """Open connections, each with one complete exchange behind it."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        self.connections: list[http.client.HTTPConnection] = []

    def add(self, port: int) -> None:
        connection = self._connection(port, (source_address(len(self.connections)), 0))
        self.connections.append(connection)
        try:
            connection.request("POST", REQUEST_PATH, REQUEST_BODY, REQUEST_HEADERS)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise IdleError(f"connection {len(self.connections)}: {type(error).__name__}: {error}") from error
        if answer.status != 200:
            raise IdleError(f"connection {len(self.connections)}: status {answer.status} instead of 200")

    def _connection(self, port: int, source: tuple[str, int]) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S, source_address=source)
        return http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=TIMEOUT_S, source_address=source, context=self._tls
        )

    def closed(self) -> int:
        """How many the proxy has closed: an idle connection has nothing else to report."""
        poll = select.poll()
        gone = 0
        for connection in self.connections:
            if connection.sock is None:
                gone += 1
            else:
                poll.register(connection.sock, select.POLLIN)
        return gone + len(poll.poll(0))

    def close(self) -> None:
        for connection in self.connections:
            connection.close()


def source_address(number: int) -> str:
    """Where a client comes from."""
    return f"127.0.0.{1 + number // CLIENTS_PER_ADDRESS}"


@contextlib.contextmanager
def idle_clients(port: int, count: int, tls: ssl.SSLContext | None = None) -> Iterator[IdleClients]:
    """`count` idle connections to a proxy. Raises `IdleError`."""
    clients = IdleClients(tls)
    try:
        for _ in range(count):
            clients.add(port)
        yield clients
    finally:
        clients.close()
