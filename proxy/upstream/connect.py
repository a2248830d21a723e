"""From a name to a connected connection: resolution, which of the addresses a target may have, the race between them
(RFC 8305), TLS.

A name is resolved once a connection, and what was judged is what is connected to: a name that leads elsewhere a moment
later (DNS rebinding) gains nothing. Every foreign exception ends here and becomes one of our causes.
"""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from ipaddress import ip_address
from typing import NamedTuple

import aiohappyeyeballs
from aiohappyeyeballs import AddrInfoType

from proxy.config import UpstreamTls
from proxy.errors import (
    CERTIFICATE_INVALID,
    CONNECT_FAILED,
    CONNECT_REFUSED,
    CONNECT_TIMEOUT,
    DNS_FAILED,
    TLS_FAILED,
    Cause,
    RelayError,
    TargetRefused,
)
from proxy.rules.addresses import refusal
from proxy.upstream.connection import Connection
from proxy.upstream.tls import SessionContext

ADDRESS_DELAY_S = 0.25  # RFC 8305 section 5, "Connection Attempt Delay"


class Origin(NamedTuple):
    """Where connections of one pool lead, and on which terms. Two routes with equal origins share a pool.

    `host` is a name or an address without brackets; `tls` is None for plain http. Unless `allow_private_targets`,
    only public addresses are connected to.
    """

    host: str
    port: int
    tls: UpstreamTls | None
    connect_timeout_s: float | None
    response_head_bytes_max: int
    max_connections: int
    pool_wait_s: float
    idle_connection_s: float
    allow_private_targets: bool

    @property
    def server_name(self) -> str:
        """The name that a TLS handshake asks for, and that the certificate must be good for."""
        return (self.tls and self.tls.server_name) or self.host


async def connect(origin: Origin, context: SessionContext | None) -> Connection:
    """Returns a new connection to the origin. Raises RelayError with the cause in one word."""
    try:
        async with asyncio.timeout(origin.connect_timeout_s):
            return await _connect(origin, context)
    except TimeoutError:
        raise RelayError(CONNECT_TIMEOUT) from None
    except OSError as error:
        raise RelayError(cause_of(error)) from None


async def _connect(origin: Origin, context: SessionContext | None) -> Connection:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    addresses = found if origin.allow_private_targets else public(found)
    sock = await aiohappyeyeballs.start_connection(
        addresses, happy_eyeballs_delay=ADDRESS_DELAY_S, interleave=1, loop=loop
    )
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _, connection = await loop.create_connection(
            lambda: Connection(loop, origin.response_head_bytes_max),
            sock=sock,
            ssl=context,
            server_hostname=None if context is None else origin.server_name,
        )
    except BaseException as error:
        sock.close()
        if context is not None and isinstance(error, ConnectionError):
            raise RelayError(TLS_FAILED) from None  # TCP stood, so what the upstream ended is the handshake
        raise
    return connection


def public(addresses: Sequence[AddrInfoType]) -> Sequence[AddrInfoType]:
    """Returns those of a target's addresses that it may have. Raises TargetRefused where it may have none of them."""
    judged = [(info, refusal(ip_address(info[4][0]))) for info in addresses]
    kept = [info for info, word in judged if word is None]
    if not kept:
        examples = {word: info[4][0] for info, word in judged}
        raise TargetRefused(", ".join(f"{address} is {word}" for word, address in examples.items()))
    return kept


def cause_of(error: OSError) -> Cause:
    """Returns what a client is told of a failed connection."""
    if isinstance(error, socket.gaierror):
        return DNS_FAILED
    if isinstance(error, ssl.SSLCertVerificationError):
        return CERTIFICATE_INVALID
    if isinstance(error, ssl.SSLError):
        return TLS_FAILED
    if isinstance(error, ConnectionRefusedError):
        return CONNECT_REFUSED
    return CONNECT_FAILED
