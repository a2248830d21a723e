"""Choose: which credential a request goes out with, what its answer says of that, and whether another one is tried.

The client's own secrets are left out of every attempt, and each gets one credential put in. Nothing goes out again once
a byte of an answer has gone to the client. Most requests succeed at once, so what only the others need (their model, a
trace, the time they have left) is found out when it is needed.
"""

import asyncio
import random

from proxy.config import CredentialSource
from proxy.config import KeyPool as Settings
from proxy.errors import NO_CREDENTIAL, RelayError, Source
from proxy.exchange import Exchange
from proxy.key_pool.pool import Choice, KeyPool
from proxy.key_pool.traces import Trace, Try
from proxy.rules.credential_fields import shown_as, with_parameter, without_secret_protocols, without_secrets
from proxy.rules.credentials import ALL_MODELS, Says, Verdict
from proxy.rules.framing import NOT_COPIED
from proxy.rules.headers import ResponseHead
from proxy.rules.retries import IDEMPOTENT, Again, again
from proxy.rules.selection import Candidate
from proxy.snapshot import RouteCredentials
from proxy.upstream.connection import Connection

ERROR_BODY_BYTES_MAX = 64 * 1024
"""So much of an error's body is read before it is relayed, for the provider's word on the credential."""
ERROR_BODY_TIMEOUT_S = 2.0
REPEATS_MAX = 2
"""How often an idle close that crossed the request is believed; at its cap a pool may have reused connections only."""
LEARNED_EACH = 16
"""Of so many successes one is looked at for its model; a model that is used is known soon enough."""
UNUSABLE_MAX = 100
"""So many credentials that cannot be decrypted are passed over for one attempt: all others wait meanwhile."""
SUCCESS = Verdict(Says.SUCCESS)
NOTHING = Verdict(Says.NOTHING)
FAILED = Verdict(Says.FAILED)
OF_THE_UPSTREAM = frozenset((Says.FAILED, Says.OVERLOADED))
"""These tell more of who answers than of the credential."""


class TryAgain(Exception):  # noqa: N818 - it says what to do
    """An answer is not relayed: the request goes out again, with another credential."""


def first_source(credentials: RouteCredentials) -> CredentialSource:
    """Returns where the credential of a request comes from just now, of AUTO: the first source that has one.

    While a worker has not heard yet which credentials there are, that is the pool: it has none then, and says so, where
    the client's own secret would have gone to an upstream that it is not for.
    """
    if credentials.key_pool.api_key is not None:
        return CredentialSource.FIXED
    if credentials.key_pool.has_keys(credentials.groups):
        return CredentialSource.POOL
    if credentials.key_pool.oauth() is not None:
        return CredentialSource.OAUTH
    return CredentialSource.CLIENT if credentials.key_pool.complete else CredentialSource.POOL


class OAuthAnswer:
    """Hears whether the access token is refused. The answer is relayed as it comes, whatever it is."""

    def __init__(self, key_pool: KeyPool, candidate: Candidate) -> None:
        self._key_pool = key_pool
        self._candidate = candidate

    def accepts(self, head: ResponseHead) -> bool:
        if head.status == 401:
            self._key_pool.refused(self._candidate, head.status)
        return True

    async def judge(self, connection: Connection, head: ResponseHead) -> bytes:  # noqa: ARG002
        return b""  # nobody asks: all are accepted


def present_own(exchange: Exchange, credentials: RouteCredentials, source: CredentialSource) -> OAuthAnswer | None:
    """Puts the one credential into the request that its route has. Raises RelayError where there is none.

    Returns who is to hear of the answer.
    """
    key_pool = credentials.key_pool
    secret = key_pool.api_key
    candidate = None
    if source is CredentialSource.OAUTH:
        candidate = key_pool.oauth()
        secret = None if candidate is None else key_pool.secret(candidate)
    if secret is None:
        raise RelayError(NO_CREDENTIAL)
    strip(exchange, credentials)
    shown = shown_as(credentials.placement, secret)
    if shown[0]:
        exchange.head.added = (*exchange.head.added, shown)
    else:
        present_in_query(exchange, credentials.placement.parameter, shown[1])
    return None if candidate is None else OAuthAnswer(key_pool, candidate)


def strip(exchange: Exchange, credentials: RouteCredentials) -> None:
    """Takes out of the request whatever the client may have shown who it is with."""
    head = exchange.head
    place = credentials.placement
    head.dropped = credentials.dropped if head.dropped is NOT_COPIED else head.dropped | place.dropped_fields
    scope = exchange.scope
    if scope["query_string"]:
        target, _, query = exchange.target.partition(b"?")
        query = without_secrets(query, place.dropped_parameters)
        exchange.target = target + b"?" + query if query else target
    if scope["type"] == "websocket":
        head.received = without_secret_protocols(head.received)


def present_in_query(exchange: Exchange, parameter: bytes, value: bytes) -> None:
    """Puts a credential into the query of what the upstream is asked for."""
    path, _, query = exchange.target.partition(b"?")
    exchange.shown = value
    exchange.target = path + b"?" + with_parameter(query, parameter, value)


class Attempts:
    """The attempts of one request with credentials of the key pool, from the first choice to the answer.

    Settings of the key pool are those of the moment, not those that the request began with.
    """

    _model: str | None = None
    _trace: Trace | None = None
    _choice: Choice | None = None  # None for the first one, where that was the one that came
    _candidate: Candidate
    _target: bytes  # without the credential, where that is in the query
    _tried: tuple[Candidate, ...] = ()  # before that
    _attempt_s = 0.0  # when it began, where it is not the first
    _refusals = 0
    _repeats = 0
    _pause_s = 0.0
    needs_fresh = False
    """Whether the next attempt is to have a fresh connection, since a reused one closed."""

    def __init__(self, exchange: Exchange, credentials: RouteCredentials) -> None:
        """Strips the request, whose body has been received as far as it is kept.

        Chooses its first credential, where nothing speaks against the first that comes.
        """
        self._exchange = exchange
        self._credentials = credentials
        pool = credentials.key_pool
        self._keeps_body = exchange.body_received
        self.began_s = began_s = pool.now_s()
        strip(exchange, credentials)
        candidate = pool.pick_first(credentials.groups, self.model if pool.banned_models else ALL_MODELS, began_s)
        self.chosen = candidate is not None and self._takes(candidate)
        """Whether an attempt has a credential, and nothing has been said of that yet."""

    async def choose_first(self) -> None:
        """Raises RelayError where no credential can be used; `Retry-After` says when the first one can."""
        if not await self._choose():
            self.trace.ending = NO_CREDENTIAL.word
            wait_s = self._pool.retry_after_s(self._credentials.groups, self.model)
            self._exchange.retry_after_s = 1 if wait_s is None else max(1, int(wait_s + 0.999))
            raise RelayError(NO_CREDENTIAL)

    @property
    def _pool(self) -> KeyPool:
        return self._credentials.key_pool

    @property
    def _settings(self) -> Settings:
        return self._credentials.key_pool.settings

    @property
    def model(self) -> str:
        """The model that the request is for."""
        if self._model is None:
            self._model = self._credentials.api.model(self._exchange.scope["raw_path"], self._exchange.first_piece)
        return self._model

    @property
    def trace(self) -> Trace:
        """What the request has tried, written from the first thing on that was not as usual."""
        trace = self._trace
        if trace is None:
            exchange = self._exchange
            trace = self._trace = Trace(
                request_id=exchange.request_id.decode(),
                route=exchange.route.prefix,
                model=self.model,
                algorithm=self._settings.algorithm,
                version=self._pool.version,
                began_s=self.began_s,
            )
            self._pool.traces.add(trace)
        return trace

    async def pause(self) -> None:
        """Waits as long as the upstream is to be left alone before another attempt."""
        await asyncio.sleep(self._pause_s)

    def accepts(self, head: ResponseHead) -> bool:
        """Tells whether an answer can be relayed as it comes, since it is no error."""
        status = head.status
        if status >= 400:
            return False
        pool = self._credentials.key_pool
        candidate = self._candidate
        if self._trace is not None or candidate.id in pool.bans.concerned:
            self._report(SUCCESS, status)
            return True
        self.chosen = False
        candidate.successes += 1
        if not candidate.is_used:  # its use has been told already
            pool.figures.use(candidate)
        if candidate.successes % LEARNED_EACH == 1:
            pool.know(self.model)
        exchange = self._exchange
        route = exchange.route
        pool.traces.pass_by(
            (
                exchange.request_id,
                route.prefix,
                candidate.id,
                self.began_s,
                status,
                exchange.hop.authority,
                pool.settings.algorithm,
                pool.version,
            )
        )
        return True

    async def judge(self, connection: Connection, head: ResponseHead) -> bytes:
        """Takes what an error says of the credential.

        Returns the bytes of the body that were read for it. Raises TryAgain where the answer is not to be relayed.
        """
        body = await error_body(connection)
        path = self._exchange.target.partition(b"?")[0]
        verdict = self._credentials.api.verdict(path, head.status, head.headers, body, self._pool.now_s())
        self._report(verdict, head.status)
        way = self._way(verdict, head.status)
        if way is not Again.NO and await self._chooses_next(way):
            self.needs_fresh = False
            raise TryAgain
        return body

    async def failed(self, error: RelayError, *, reused: bool) -> None:
        """Takes that no answer came. Returns where the request goes out again; raises the error where it does not."""
        if not self.chosen:  # it has been judged by the head that came
            raise error
        upstreams = error.cause.source is Source.UPSTREAM
        reused = reused and self._repeats < REPEATS_MAX
        self._report(FAILED if upstreams and not reused else NOTHING, 0, error.cause.word)
        way = self._way(FAILED, 0)
        stale = reused and self._keeps_body and self._exchange.scope["method"] in IDEMPOTENT
        if not upstreams or (way is Again.NO and not stale):
            raise error
        self.needs_fresh = reused
        if reused:  # an idle close that crossed the request: no fault of the credential's, which goes out again
            self._pause_s = 0.0
            self._repeats += 1
            self.chosen = True
        elif not await self._chooses_next(way):
            raise error

    def leave(self) -> None:
        """Takes that nobody waits for an answer any more."""
        self._report(NOTHING, 0, "client_left")

    def _way(self, verdict: Verdict, status: int) -> Again:
        exchange = self._exchange
        if self._pool.now_s() - self.began_s >= self._settings.retry_deadline_s:
            return Again.NO
        return again(
            verdict,
            status,
            method=exchange.scope["method"],
            attempts=exchange.attempts - self._repeats,
            refusals=self._refusals,
            model_known=self._pool.knows(self.model),
            body_kept=self._keeps_body and exchange.request_bytes <= self._settings.retry_body_bytes_max,
            settings=self._settings,
        )

    async def _chooses_next(self, way: Again) -> bool:
        """Chooses the credential of the next attempt, if one is left."""
        self._tried = (*self._tried, self._candidate)
        self._take_back()
        if way is not Again.AFTER_A_PAUSE:
            self._refusals += way is Again.INSTEAD
            self._pause_s = 0.0
        else:
            retries = self._exchange.attempts - self._repeats - self._refusals
            pause_s = self._settings.retry_delay_ms / 1000 * 2 ** (retries - 1) * random.uniform(0.5, 1)  # noqa: S311
            self._pause_s = min(pause_s, max(0.0, self.began_s + self._settings.retry_deadline_s - self._pool.now_s()))
        return await self._choose()

    async def _choose(self) -> bool:
        pool, credentials = self._pool, self._credentials
        affinity = None
        if pool.wants_affinity:
            exchange = self._exchange
            affinity = credentials.api.affinity(exchange.scope["raw_path"], exchange.first_piece)
        for _ in range(UNUSABLE_MAX):
            choice = await pool.choose(credentials.groups, self.model, affinity, self._tried, self.trace)
            if choice is None:
                return False
            if self._takes(choice.candidate):
                self._choice = choice
                self._attempt_s = pool.now_s()
                return True
        return False

    def _takes(self, candidate: Candidate) -> bool:
        """Presents a credential in the request, unless it cannot be decrypted."""
        place = self._credentials.placement
        shown = candidate.shown
        if shown is None or shown[0] != place.field:
            shown = self._pool.shown(candidate, place)
            if shown is None:
                return False
        exchange = self._exchange
        if place.parameter:
            self._target = exchange.target
            present_in_query(exchange, place.parameter, shown[1])
        else:
            exchange.head.added = (*exchange.head.added, shown)
        exchange.credential_id = candidate.id
        self._candidate = candidate
        self.chosen = True
        return True

    def _take_back(self) -> None:
        """Takes out of the request what `_takes` has put in."""
        exchange = self._exchange
        if self._credentials.placement.parameter:
            exchange.target = self._target
        else:
            exchange.head.added = exchange.head.added[:-1]

    def _report(self, verdict: Verdict, status: int, error: str = "") -> None:
        """Tells what came of the attempt. Where there are several backends, what one of them fails is its own fault."""
        self.chosen = False
        counted = verdict
        if verdict.says in OF_THE_UPSTREAM and self._exchange.route.balance is not None:
            counted = NOTHING
        now_s = self._pool.now_s()
        trace = self.trace
        choice = self._choice or Choice(self._candidate)
        self._pool.report(choice, self.model, counted, status, self._attempt_s or self.began_s, now_s)
        backend = self._exchange.hop.authority.decode()
        trace.tries.append(Try(self._candidate.id, backend, now_s, status, verdict.says, error, verdict.wait_s))


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
