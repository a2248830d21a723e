"""Choose: which credential a request goes out with, what its answer says of that, and whether another one is tried.

The client's own secrets are taken out of a request once; each attempt then gets one credential put in. Nothing goes out
again once a byte of an answer has gone to the client.
"""

import asyncio
import random
import time

import msgspec

from proxy.config import CredentialSource
from proxy.errors import NO_CREDENTIAL, RelayError, Source
from proxy.exchange import Exchange
from proxy.key_pool.pool import Choice
from proxy.key_pool.traces import Trace, Try
from proxy.rules.credential_fields import Placement, header, with_parameter, without_secrets
from proxy.rules.credentials import Says, Verdict
from proxy.rules.headers import Header, ResponseHead
from proxy.rules.retries import Again, again
from proxy.rules.selection import Candidate
from proxy.snapshot import RouteCredentials
from proxy.upstream.connection import Connection

ERROR_BODY_BYTES_MAX = 64 * 1024
"""So much of an error's body is read before it is relayed, for the provider's word on the credential."""
ERROR_BODY_TIMEOUT_S = 2.0
EXPECT = frozenset((b"expect",))
SUCCESS = Verdict(Says.SUCCESS)
NOTHING = Verdict(Says.NOTHING)
FAILED = Verdict(Says.FAILED)


class TryAgain(Exception):  # noqa: N818 - it says what to do
    """An answer is not relayed: the request goes out again, with another credential."""


def source_of(credentials: RouteCredentials) -> CredentialSource:
    """Returns where the credential of a request comes from just now: of AUTO, the first source that has one."""
    if credentials.source is not CredentialSource.AUTO:
        return credentials.source
    if credentials.key_pool.api_key is not None:
        return CredentialSource.FIXED
    if credentials.key_pool.has_keys(credentials.groups):
        return CredentialSource.POOL
    if credentials.key_pool.oauth() is not None:
        return CredentialSource.OAUTH
    return CredentialSource.CLIENT


def present_own(exchange: Exchange, credentials: RouteCredentials, source: CredentialSource) -> None:
    """Puts the one credential into the request that its route has. Raises RelayError where there is none."""
    key_pool = credentials.key_pool
    secret = key_pool.api_key
    if source is CredentialSource.OAUTH:
        candidate = key_pool.oauth()
        secret = None if candidate is None else key_pool.secret(candidate)
    if secret is None:
        raise RelayError(NO_CREDENTIAL)
    strip(exchange, credentials.placement)
    place = credentials.placement
    present(exchange, place, secret, None if place.parameter else header(place.field, secret))


def strip(exchange: Exchange, place: Placement) -> None:
    """Takes out of the request whatever the client may have shown who it is with."""
    head = exchange.head
    exchange.head = msgspec.structs.replace(head, dropped=head.dropped | place.dropped_fields)
    target, mark, query = exchange.target.partition(b"?")
    if mark:
        query = without_secrets(query, place.dropped_parameters)
        exchange.target = target + b"?" + query if query else target


def present(exchange: Exchange, place: Placement, secret: str, field: Header | None) -> None:
    """Puts a credential in, as the upstream wants it: the field that presents it, or the secret in the query."""
    if field is None:
        target, _, query = exchange.target.partition(b"?")
        exchange.target = target + b"?" + with_parameter(query, place.parameter, secret)
    else:
        head = exchange.head
        exchange.head = msgspec.structs.replace(head, added=(*head.added, field))


class Attempts:
    """The attempts of one request with credentials of the key pool, from the first choice to the answer."""

    def __init__(self, exchange: Exchange, credentials: RouteCredentials) -> None:
        """The body has been received, as far as it is kept. Strips the request."""
        self._exchange = exchange
        self._credentials = credentials
        self._pool = credentials.key_pool
        self._settings = credentials.key_pool.settings
        path = exchange.scope["raw_path"]
        body = exchange.first_piece
        api = credentials.api
        self.model = api.model(path, body)
        self._affinity = api.affinity(path, body) if self._pool.wants_affinity else None
        self._keeps_body = exchange.body_received
        strip(exchange, credentials.placement)
        head = exchange.head
        # What the client was told with `100 Continue` it has been told already, if it asked.
        self._head = msgspec.structs.replace(head, dropped=head.dropped | EXPECT, expects_continue=False)
        self._target = exchange.target
        self._tried: list[Candidate] = []
        self._refusals = 0
        self._deadline_s = exchange.loop.time() + self._settings.retry_deadline_s
        self._choice: Choice
        self._began_s = 0.0
        self._open = False
        self._pause_s = 0.0
        self.needs_fresh = False
        """Whether the next attempt is to have a fresh connection, since a reused one closed."""
        self.trace = Trace(
            exchange.request_id.decode(),
            exchange.route.prefix,
            self.model,
            credentials.source,
            self._settings.algorithm,
            self._pool.version(),
            time.time(),
        )
        credentials.key_pool.traces.add(self.trace)

    async def choose_first(self) -> None:
        """Raises RelayError where no credential can be used; `Retry-After` says when the first one can."""
        if not await self._choose():
            self.trace.ending = NO_CREDENTIAL.word
            wait_s = self._pool.retry_after_s(self._credentials.groups, self.model)
            self._exchange.retry_after_s = 1 if wait_s is None else max(1, int(wait_s + 0.999))
            raise RelayError(NO_CREDENTIAL)

    async def begin(self) -> None:
        """Puts the chosen credential in, after the pause that is due before another attempt."""
        if self._pause_s:
            await asyncio.sleep(self._pause_s)
        self._exchange.attempts += 1
        self._began_s = time.time()
        self._open = True
        candidate = self._choice.candidate
        self.trace.tries.append(Try(candidate.id, self._exchange.route.authority.decode(), self._began_s))

    async def judge(self, connection: Connection, head: ResponseHead) -> bytes:
        """Takes what an answer's head, and an error's body, say of the credential.

        Returns the bytes of the body that were read for it. Raises TryAgain where the answer is not to be relayed.
        """
        if head.status < 400:
            self._report(SUCCESS, head.status)
            return b""
        body = await error_body(connection)
        verdict = self._credentials.api.judge(head.status, head.headers, body, time.time())
        self._report(verdict, head.status)
        way = self._way(verdict, head.status)
        if way is not Again.NO and await self._chooses_next(way):
            self.needs_fresh = False
            raise TryAgain
        return body

    async def failed(self, error: RelayError, *, reused: bool) -> None:
        """Takes that no answer came. Returns where the request goes out again; raises the error where it does not."""
        if not self._open:  # it has been judged by the head that came
            raise error
        blamed = error.cause.source is Source.UPSTREAM and not reused
        self._report(FAILED if blamed else NOTHING, 0, error.cause.word)
        if error.cause.source is not Source.UPSTREAM:
            raise error
        self.needs_fresh = reused
        way = self._way(FAILED, 0)
        if way is Again.NO:
            raise error
        if reused:  # an idle close that crossed the request: no fault of the credential's
            self._pause_s = 0.0
        elif not await self._chooses_next(way):
            raise error

    def end(self) -> None:
        """Takes that nobody waits for an answer any more."""
        if self._open:
            self._report(NOTHING, 0, "client_left")

    def _way(self, verdict: Verdict, status: int) -> Again:
        exchange = self._exchange
        if exchange.loop.time() >= self._deadline_s:
            return Again.NO
        return again(
            verdict,
            status,
            method=exchange.scope["method"],
            attempts=exchange.attempts,
            refusals=self._refusals,
            body_kept=self._keeps_body,
            settings=self._settings,
        )

    async def _chooses_next(self, way: Again) -> bool:
        """Chooses the credential of the next attempt, if one is left."""
        if way is Again.AT_ONCE:
            self._refusals += 1
            self._pause_s = 0.0
        else:
            retries = self._exchange.attempts - self._refusals
            pause_s = self._settings.retry_delay_ms / 1000 * 2 ** (retries - 1) * random.uniform(0.5, 1)  # noqa: S311
            self._pause_s = min(pause_s, self._deadline_s - self._exchange.loop.time())
        return await self._choose()

    async def _choose(self) -> bool:
        pool, credentials = self._pool, self._credentials
        while True:
            choice = await pool.choose(credentials.groups, self.model, self._affinity, self._tried, self.trace)
            if choice is None:
                return False
            self._tried.append(choice.candidate)
            secret = pool.secret(choice.candidate)
            place = credentials.placement
            field = None if place.parameter else pool.header(choice.candidate, place)
            if secret is not None and (place.parameter or field is not None):
                break
        self._choice = choice
        self._exchange.head = self._head
        self._exchange.target = self._target
        present(self._exchange, place, secret, field)
        return True

    def _report(self, verdict: Verdict, status: int, error: str = "") -> None:
        self._open = False
        self._pool.report(self._choice, self.model, verdict, status, self._began_s)
        attempt = self.trace.tries[-1]
        attempt.ended_s = time.time()
        attempt.status = status
        attempt.says = verdict.says
        attempt.error = error
        attempt.wait_s = verdict.wait_s


async def error_body(connection: Connection) -> bytes:
    """Returns the beginning of an error's body, as much as comes in a moment and is worth reading."""
    body = bytearray()
    try:
        async with asyncio.timeout(ERROR_BODY_TIMEOUT_S):
            while len(body) < ERROR_BODY_BYTES_MAX and (piece := await connection.read(None)):
                body += piece
    except (TimeoutError, RelayError):
        pass  # whoever relays the rest finds out for himself
    return bytes(body)
