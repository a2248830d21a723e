"""Calls of the control plane's own to upstreams, guarded as the relay's are. No error and no log line has a URL."""

import asyncio
import errno
import ssl
from enum import Enum
from ipaddress import ip_address
from typing import NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from admin.rules.key_calls import Call, may_pass
from proxy.config import UpstreamTls
from proxy.rules.addresses import refusal, target_refusal
from proxy.upstream.tls import client_context

BODY_BYTES_MAX = 64 * 1024
"""Of an answer, so that its connection can be used again. One that is longer is cut off."""


ATTEMPTS = 3
"""Of one call: what passes (429, 5xx, the network) is tried again twice."""
LASTS = frozenset(("target_refused", "certificate_invalid"))
"""What kept an answer away and will not be gone the next time."""


class Answered(NamedTuple):
    """The status of an answer; 0 where there was none, and then why, in a word. `body` may hold a secret."""

    status: int
    problem: str | None = None
    body: bytes = b""

    @property
    def may_pass(self) -> bool:
        """Whether another attempt may tell more."""
        return may_pass(self.status) if self.status else self.problem not in LASTS


class Connections(Enum):
    """What becomes of a connection after its call: it is kept for another one, or each call makes its own."""

    KEPT = "kept"
    OWN = "own"


class GuardedResolver(AbstractResolver):
    """Resolves names to the addresses that a target may have, and to nothing else."""

    def __init__(self, resolver: AbstractResolver) -> None:
        self._resolver = resolver

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)  # type: ignore[arg-type]
        kept = [one for one in found if refusal(ip_address(one["host"])) is None]
        if not kept:
            raise TargetRefused
        return kept

    async def close(self) -> None:
        await self._resolver.close()


class TargetRefused(OSError):  # noqa: N818 - it says what happened
    """A target has no address that it may have."""


class UpstreamCalls:
    """A client for many calls. Close it when done. Redirections are not followed, and no cookie is kept."""

    def __init__(self, *, allow_private_targets: bool, connections: Connections = Connections.KEPT) -> None:
        self._allow_private_targets = allow_private_targets
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[UpstreamTls, ssl.SSLContext] = {}

    async def ask_patiently(self, call: Call, timeout_s: float, pause_s: float) -> Answered:
        """Makes a call, and again after a pause, longer each time, where that may tell more."""
        for attempt in range(1, ATTEMPTS + 1):
            answered = await self.ask(call, timeout_s)
            if not answered.may_pass or attempt == ATTEMPTS:
                break
            await asyncio.sleep(pause_s * attempt)
        return answered

    async def ask(self, call: Call, timeout_s: float) -> Answered:
        """Makes a call; returns how it was answered. Never raises for what the network or the upstream does."""
        if not self._allow_private_targets and target_refusal(call.target) is not None:
            return Answered(0, "target_refused")
        try:
            async with asyncio.timeout(timeout_s):
                return await self._answer(call)
        except TimeoutError:
            return Answered(0, "timeout")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answered(0, word_of(error))

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _answer(self, call: Call) -> Answered:
        context = None if call.tls is None else self._context(call.tls)
        name = None if call.tls is None else call.tls.server_name
        async with self._opened().request(
            call.method,
            call.url,
            headers=call.fields,
            data=call.body,
            allow_redirects=False,
            ssl=context or True,
            server_hostname=name,
        ) as response:
            body = bytearray()
            while len(body) < BODY_BYTES_MAX and (piece := await response.content.read(BODY_BYTES_MAX - len(body))):
                body += piece
            return Answered(response.status, body=bytes(body))

    def _opened(self) -> aiohttp.ClientSession:
        """The session, made where a loop runs."""
        if self._session is None:
            resolver: AbstractResolver = aiohttp.ThreadedResolver()
            if not self._allow_private_targets:
                resolver = GuardedResolver(resolver)
            connector = aiohttp.TCPConnector(
                resolver=resolver, limit=0, use_dns_cache=False, force_close=self._connections is Connections.OWN
            )
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout()
            )
        return self._session

    def _context(self, settings: UpstreamTls) -> ssl.SSLContext:
        """Making one reads the system's authorities, which takes 36 ms."""
        context = self._contexts.get(settings)
        if context is None:
            context = self._contexts[settings] = client_context(settings)
        return context


_WORDS: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ClientConnectorCertificateError, "certificate_invalid"),
    (aiohttp.ClientSSLError, "tls_failed"),
    (ssl.SSLError, "tls_failed"),
    (aiohttp.ClientConnectorDNSError, "dns_failed"),
    (aiohttp.ClientConnectorError, "connect_failed"),
)


def word_of(error: BaseException) -> str:
    """Returns why a call failed, in one word; the error's own text may have the key in it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, TargetRefused):
            return "target_refused"
        if getattr(seen, "errno", None) == errno.ECONNREFUSED:
            return "connect_refused"
        seen = getattr(seen, "os_error", None) or seen.__cause__
    return next((word for kind, word in _WORDS if isinstance(error, kind)), "no_answer")
