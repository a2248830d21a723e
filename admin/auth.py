"""Who may use the admin API: whoever has the admin token, or a session that was opened with it.

The token comes as `Authorization: Bearer`, as `x-admin-key`, or once, at a login, whose session then comes as a cookie.
Wrong tokens are counted in all three places (`rules/attempts.py`).
"""

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.handlers import BaseRouteHandler

from admin import answers
from admin.ports import SettingsService
from admin.rules import cookies, same_origin, tokens
from admin.sessions import Sessions, label
from proxy.config import ConfigError
from proxy.rules.attempts import Attempts
from proxy.rules.client_address import client_address

log = logging.getLogger("relaygate")

Connection = ASGIConnection[Any, Any, Any, State]

TOKEN = "token"  # noqa: S105 - the name of a kind of caller
TOKEN_CHARACTERS_MAX = 1024


class SecureCookies(Enum):
    """When the cookie is for TLS alone: as the request came, or always, where something in front ends TLS."""

    AS_REQUESTED = "as requested"
    ALWAYS = "always"


class Caller(NamedTuple):
    """Who makes a request: `token` or `session:...`, and the address that he calls from."""

    actor: str
    address: str


class Authentication:
    """The admin token and what it opens. `token_hash` is of `tokens.digest`; without one nobody gets in.

    `trusted_proxies` are the networks of proxies in front, whose word counts on where a request comes from.
    """

    def __init__(
        self,
        settings: SettingsService,
        token_hash: str | None,
        secure_cookies: SecureCookies,
        trusted_proxies: Sequence[str] = (),
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sessions = Sessions(settings, token_hash or "")
        self._token_hash = token_hash
        self._secure_cookies = secure_cookies
        self._trusted_proxies = [ipaddress.ip_network(network) for network in trusted_proxies]
        self._now_s = now_s
        self._attempts = Attempts()
        self._one_at_a_time = asyncio.Lock()
        self._memo_key = secrets.token_bytes(32)
        self._memo: bytes | None = None

    async def caller(self, connection: Connection) -> Caller:
        """Returns who makes a request. Raises Refusal: 401, 403, 429 or 503."""
        address = self.address_of(connection)
        token = token_in(connection.headers)
        if token is not None:
            return await self.caller_with(token, address)
        if self._token_hash is None:
            raise answers.not_configured()
        name = self.session_in(connection)
        if name is None or not await self.sessions.is_open(name):
            raise answers.unauthorized("The admin token is missing, or the session is over.")
        refuse_other_origins(connection)
        return Caller(label(name), address)

    async def caller_with(self, token: str | None, address: str) -> Caller:
        """Returns who makes a call to which a session is unknown, as over gRPC. Raises Refusal: 401, 429 or 503."""
        if token is None:
            raise answers.unauthorized("The admin token is missing.")
        await self._check(token, address)
        return Caller(TOKEN, address)

    async def confirm(self, connection: Connection, caller: Caller) -> None:
        """Sees to it that the admin token came with this very request, as what shows secrets asks for.

        A session has it in `x-admin-confirm`: who finds a browser open cannot take the keys away. Who calls with the
        token has given it already. Raises Refusal: 401, 403 or 429.
        """
        if caller.actor == TOKEN:
            return
        token = connection.headers.get("x-admin-confirm")
        if token is None:
            raise answers.not_confirmed()
        await self._check(token, caller.address)

    async def log_in(self, token: str, address: str) -> str:
        """Returns the name of a new session. Raises Refusal: 401, 429 or 503."""
        await self._check(token, address)
        self._attempts.succeeded(address)
        return await self.sessions.open()

    def address_of(self, connection: Connection) -> str:
        """Returns the client's IP address, or `local` for one on a unix socket."""
        client = connection.scope.get("client")
        peer = client[0] if client and client[0] else "local"
        return self.address(peer, connection.headers.getall("x-forwarded-for", []))

    def address(self, peer: str, forwarded_for: Sequence[str]) -> str:
        """Returns the client's address, where `peer` is connected and `forwarded_for` is what X-Forwarded-For says."""
        return client_address(peer, forwarded_for, self._trusted_proxies)

    def session_in(self, connection: Connection) -> str | None:
        """Returns the name of the session in a request's cookie, whether it is open or not."""
        fields = [value for name, value in connection.scope["headers"] if name == b"cookie"]
        return cookies.found(self.cookie_name(connection), fields)

    def cookie_name(self, connection: Connection) -> str:
        always = self._secure_cookies is SecureCookies.ALWAYS
        return cookies.name_of("https" if always else connection.scope["scheme"])

    async def _check(self, token: str, address: str) -> None:
        kept = self._token_hash
        if kept is None:
            raise answers.not_configured()
        if not tokens.is_slow(kept) and tokens.matches(token, kept):
            return  # before the bound on attempts: this token cannot be guessed, and nobody must lock its owner out
        self._refuse_too_many(address)
        if self._is_remembered(token):
            return
        async with self._one_at_a_time:  # so that attempts made at once are counted, and memory is bounded
            self._refuse_too_many(address)
            if not self._is_remembered(token) and not await self._is_right(token, kept):
                self._attempts.failed(address, self._now_s())
                log.warning("a wrong admin token from %s", address)
                raise answers.unauthorized("The admin token is wrong.")

    async def _is_right(self, token: str, kept: str) -> bool:
        if not tokens.is_slow(kept) or len(token) > TOKEN_CHARACTERS_MAX:
            return False
        right = await asyncio.to_thread(tokens.matches, token, kept)
        if right:
            self._memo = self._mark(token)
        return right

    def _is_remembered(self, token: str) -> bool:
        """True for the token that was right before, so that a call costs no scrypt."""
        return self._memo is not None and hmac.compare_digest(self._memo, self._mark(token))

    def _mark(self, token: str) -> bytes:
        return hmac.digest(self._memo_key, token.encode("utf-8", "replace"), hashlib.sha256)

    def _refuse_too_many(self, address: str) -> None:
        wait_s = self._attempts.wait_s(address, self._now_s())
        if wait_s > 0:
            raise answers.too_many_attempts(math.ceil(wait_s))


async def authenticated(connection: Connection, _: BaseRouteHandler | None) -> None:
    """Lets in whoever may use the admin API (a Litestar guard), and notes who that is."""
    authentication: Authentication = connection.app.state.authentication
    connection.scope["user"] = await authentication.caller(connection)


def refuse_other_origins(connection: Connection) -> None:
    """Refuses what a page of another origin had the browser send (403)."""
    if connection.scope.get("method") in same_origin.SAFE_METHODS:
        return
    headers = connection.headers
    if not same_origin.is_same_origin(
        site=headers.get("sec-fetch-site"), origin=headers.get("origin"), host=headers.get("host", "")
    ):
        raise answers.forbidden("The request came from a page of another origin.")


def token_in(fields: Mapping[str, str]) -> str | None:
    """Returns the token in a request's fields, whose names are in lower case, None where there is none."""
    scheme, _, value = fields.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    return fields.get("x-admin-key")


def refuse_to_start(host: str, token: str | None) -> None:
    """Raises ConfigError for an admin API that others can reach and that has no token."""
    if not token and not (host == "localhost" or ipaddress.ip_address(host).is_loopback):
        raise ConfigError("admin.host", host, "not a loopback address, expected ADMIN_TOKEN to be set")
