"""The provider's token endpoint, which gives an access token and the next refresh token for a refresh token.

It is asked once, on a connection of its own, and nothing is sent twice. A redirect is not followed, for the form would
go along. Unless private targets are allowed, each address is judged at the moment it is connected to, like those of a
route's target (`proxy/upstream/connect.py`).
"""

import socket
from collections.abc import Callable
from http import HTTPStatus
from ipaddress import ip_address

import aiohttp
from aiohappyeyeballs import AddrInfoType

from admin.rules import oauth
from admin.rules.oauth import Refusal, Renewed
from proxy.config import Config
from proxy.rules.addresses import refusal, target_refusal
from proxy.version import VERSION

TIMEOUT_S = 20.0
"""For the whole exchange, the name's resolution included."""
CONNECT_TIMEOUT_S = 10.0
ANSWER_BYTES_MAX = 256 * 1024
HEADERS = {"accept": "application/json", "user-agent": f"relaygate/{VERSION}"}

REASONS: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, "no answer in time"),
    (aiohttp.ClientConnectorCertificateError, "its certificate is not valid"),
    (aiohttp.ClientSSLError, "TLS failed"),
    (aiohttp.ClientConnectorDNSError, "its name is not resolved"),
    (aiohttp.ClientConnectorError, "cannot connect"),
    (aiohttp.ClientConnectionError, "the connection was cut"),
    (aiohttp.ClientPayloadError, "the answer was cut"),
    (aiohttp.ClientError, "not understood"),
)
"""The first that fits counts. What the errors say themselves may repeat parts of the answer."""


class TokenEndpoint:
    """That of the settings. `now_ms` is the clock, in milliseconds since 1970."""

    def __init__(self, config: Config, now_ms: Callable[[], int], timeout_s: float = TIMEOUT_S) -> None:
        self._settings = config.credentials
        self._allow_private_targets = config.server.allow_private_targets
        self._now_ms = now_ms
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, connect=CONNECT_TIMEOUT_S)

    async def refresh(self, refresh_token: str) -> Renewed | Refusal:
        """Asks for a new access token. Whatever goes wrong is a Refusal."""
        if self._settings.client_id is None:
            return Refusal("credentials.client_id is not set", is_final=True)
        word = None if self._allow_private_targets else target_refusal(self._settings.token_url)
        if word is not None:
            return Refusal(_not_public(word), is_final=True)
        form = oauth.form(refresh_token, self._settings.client_id, self._settings.organization_id)
        return await self._ask(form)

    async def _ask(self, form: dict[str, str]) -> Renewed | Refusal:
        words: list[str] = []
        sockets = _socket if self._allow_private_targets else _public_sockets(words)
        try:
            status, body = await self._post(form, sockets)
        except (aiohttp.ClientError, TimeoutError) as error:
            if words:
                return Refusal(_not_public(words[0]))
            return Refusal(next(word for kind, word in REASONS if isinstance(error, kind)))
        if body is None:
            return Refusal(f"HTTP {status} with an answer longer than {ANSWER_BYTES_MAX} bytes")
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            return Refusal(f"HTTP {status}: credentials.token_url leads elsewhere", is_final=True)
        return oauth.meaning(status, body, self._now_ms())

    async def _post(
        self, form: dict[str, str], sockets: Callable[[AddrInfoType], socket.socket]
    ) -> tuple[int, bytes | None]:
        """Returns status and body; None for one that is too long."""
        connector = aiohttp.TCPConnector(
            resolver=aiohttp.ThreadedResolver(), use_dns_cache=False, force_close=True, socket_factory=sockets
        )
        async with (
            aiohttp.ClientSession(connector=connector, timeout=self._timeout, headers=HEADERS) as session,
            session.post(self._settings.token_url, data=form, allow_redirects=False) as response,
        ):
            body = b""
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > ANSWER_BYTES_MAX:
                    return response.status, None
            return response.status, body


def _socket(address: AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    return socket.socket(family, kind, protocol)


def _public_sockets(words: list[str]) -> Callable[[AddrInfoType], socket.socket]:
    """Makes sockets for public addresses; why another one is refused is added to `words`."""

    def made(address: AddrInfoType) -> socket.socket:
        word = refusal(ip_address(address[4][0]))
        if word is not None:
            words.append(word)
            raise PermissionError(word)
        return _socket(address)

    return made


def _not_public(word: str) -> str:
    return f"the host of credentials.token_url is {word}, expected a public one"
