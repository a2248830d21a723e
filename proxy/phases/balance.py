"""Balance: on a route with an upstream of several backends, which of them a request goes to, and to which one next.

A request goes on to another backend as long as its client has seen nothing: where it could not be sent at all, and,
for an idempotent method whose body is kept, where no answer came or one of `retry_statuses`. What backends did is told
to their group, which leaves alone those that keep failing.
"""

from collections.abc import Sequence
from time import perf_counter

from proxy.errors import RelayError, Source, UpstreamClosed
from proxy.exchange import Exchange
from proxy.key_pool.traces import BackendLook, Trace, Try
from proxy.phases.choose import Attempts, TryAgain
from proxy.phases.forward import Judge
from proxy.phases.receive import receive_kept
from proxy.rules.balancing import Member
from proxy.rules.credentials import Says
from proxy.rules.headers import Header, ResponseHead
from proxy.rules.retries import IDEMPOTENT
from proxy.snapshot import Balance
from proxy.upstream.connection import Connection
from proxy.upstream.group import Picker

EVENT_STREAM = b"text/event-stream"
UPSTREAM = Source.UPSTREAM


async def receive_for_retries(exchange: Exchange, balance: Balance) -> None:
    """Receives of an idempotent request's body what is kept for another attempt. Raises as `receive_piece` does."""
    settings = balance.group.settings
    if settings.retry_max and exchange.scope["method"] in IDEMPOTENT:
        await receive_kept(exchange, settings.retry_body_bytes_max)


class Backends:
    """The backends of one request, from the first choice to the answer. Settings are those of the moment."""

    _address = ""
    _again = False
    _began_s = 0.0
    _error: RelayError | None = None
    _member: Member | None = None
    _needs_fresh = False
    _retries = 0
    _trace: Trace | None = None
    _tried: tuple[Member, ...] = ()

    def __init__(self, exchange: Exchange, balance: Balance, judge: Judge | None = None) -> None:
        """`judge` is asked too, of all answers; where it does not accept one, it decides what becomes of the request.

        The body has been received as far as it is kept.
        """
        self._exchange = exchange
        self._balance = balance
        self._judge = judge
        self._picker = picker = picker_for(exchange, balance)
        if picker.needs_address:
            self._address = exchange.client_address
        self._keeps_body = exchange.body_received

    def take(self) -> Connection | None:
        """Chooses the backend of the first attempt, and returns an idle connection to it if there is one."""
        member = self._balance.group.take(self._picker, self._address)
        return None if member is None else self._goes_to(member)

    async def connect(self, *, fresh: bool = False) -> Connection:
        """Returns a connection to the backend of this attempt; to another one's where one is not reached.

        Raises RelayError where no backend is left, or none may have another request.
        """
        group = self._balance.group
        fresh = fresh or self._needs_fresh
        while True:
            try:
                member = self._member
                if member is None:
                    member = group.take(self._picker, self._address, self._tried)
                    if member is None:
                        member = await self._last_resort()
                    elif self._trace is not None:
                        self._note_look(member)
                    idle = self._goes_to(member, fresh=fresh)
                    if idle is not None:
                        return idle
                return await self._exchange.hop.pool.fresh()
            except KeyError:  # it was removed while the request waited for it
                self.leave()
            except RelayError as error:
                missed = self._member
                self.leave()
                if missed is None or error.cause.source is not UPSTREAM:
                    raise
                group.failed(missed, self._began_s)
                self._note_attempt(0, error.cause.word)
                if not group.settings.retry_max:
                    raise
                self._passed_over(missed, error)
            except BaseException:
                self.leave()
                raise

    def _goes_to(self, member: Member, *, fresh: bool = False) -> Connection | None:
        """Begins an attempt at a backend: fills `hop`, returns an idle connection if one will do. Raises KeyError."""
        exchange = self._exchange
        exchange.attempts += 1
        self._member = member
        exchange.hop = hop = self._balance.hops[member]
        exchange.tally = hop.tally
        self._began_s = perf_counter()
        return None if fresh else hop.pool.take()

    async def _last_resort(self) -> Member:
        """Returns a backend where none is left that the request has not had, or none may have another request.

        Raises RelayError.
        """
        group = self._balance.group
        self._note_look(None)
        try:
            if self._error is not None:
                raise self._error
            had_all, self._tried = bool(self._tried), ()
            again = group.take(self._picker, self._address) if had_all else None
            return again or await group.wait(self._picker, self._address)
        except RelayError as error:
            self.trace.ending = error.cause.word
            raise

    @property
    def trace(self) -> Trace:
        """What the request has tried, written from the first thing on that was not as usual."""
        trace = self._trace
        if trace is None:
            exchange, key_pool = self._exchange, self._balance.key_pool
            if isinstance(self._judge, Attempts):
                trace = self._judge.trace
            else:
                trace = Trace(
                    request_id=exchange.request_id.decode(),
                    route=exchange.route.prefix,
                    model="",
                    algorithm=self._picker.balancer.value,
                    version=key_pool.version,
                    began_s=key_pool.now_s() - (perf_counter() - exchange.started_s),
                )
                key_pool.traces.add(trace)
            self._trace = trace
        return trace

    def _note_look(self, chosen: Member | None) -> None:
        group = self._balance.group
        look = BackendLook(
            group.name, len(group.members), len(group.usable), len(self._tried), group.hindrances(self._tried)
        )
        look.chosen = "" if chosen is None else chosen.id
        self.trace.backends.append(look)

    def _note_attempt(self, status: int, error: str = "") -> None:
        """Writes down what came of an attempt, unless whoever tries credentials does."""
        if status and isinstance(self._judge, Attempts):
            return
        backend, now_s = self._exchange.hop.authority.decode(), self._balance.key_pool.now_s()
        says = Says.FAILED if status == 0 or status >= 500 else Says.SUCCESS
        self.trace.tries.append(Try("", backend, now_s, status, says, error))

    def leave(self) -> None:
        """Ends an attempt."""
        member, self._member = self._member, None
        if member is not None:
            self._balance.group.give_back(member)

    def accepts(self, head: ResponseHead) -> bool:
        """Tells whether an answer can be relayed as it comes."""
        group, member, judge = self._balance.group, self._member, self._judge
        if member is None:
            return True
        if head.status < 500:
            if member.failures or group.observes:
                group.succeeded(member, self._began_s)
            if self._trace is not None:
                self._note_attempt(head.status)
            return judge is None or judge.accepts(head)
        group.failed(member, self._began_s)
        self._note_attempt(head.status)
        if judge is not None and not judge.accepts(head):
            return False
        self._again = head.status in group.settings.retry_statuses and self._may_retry((*self._tried, member))
        return not self._again

    async def judge(self, connection: Connection, head: ResponseHead) -> bytes:
        """Raises TryAgain where an answer is not to be relayed, and as the other judge does."""
        if self._again and self._member is not None:
            self._passed_over(self._member, None)
            raise TryAgain
        if head.status >= 500 and self._member is not None:
            self._passed_over(self._member, None)  # where the other judge has the request go out again
        return b"" if self._judge is None else await self._judge.judge(connection, head)

    def note(self, error: RelayError, connection: Connection) -> bool:
        """Takes that no whole answer came. Returns whether it was an idle close that crossed the request."""
        reused = isinstance(error, UpstreamClosed) and connection.exchanges > 1
        if self._member is None or error.cause.source is not UPSTREAM:
            return reused
        if not isinstance(self._judge, Attempts):
            self._note_attempt(0, error.cause.word)
        if not reused:
            self._balance.group.failed(self._member, self._began_s)
            self._passed_over(self._member, None)
        return reused

    def failed(self, error: RelayError, connection: Connection) -> None:
        """Takes that no whole answer came. Returns where the request goes out again; raises the error where not."""
        self._needs_fresh = self.note(error, connection)
        if error.cause.source is not UPSTREAM or self._exchange.response_started or not self._may_retry(self._tried):
            raise error
        self._error = error

    def _may_retry(self, tried: Sequence[Member]) -> bool:
        """Whether a request that was sent goes out again, which is counted then."""
        group = self._balance.group
        may = (
            self._keeps_body
            and self._exchange.scope["method"] in IDEMPOTENT
            and self._retries < group.settings.retry_max
            and group.has_another(tried)
            and group.may_retry()
        )
        self._retries += may
        return may

    def _passed_over(self, member: Member, error: RelayError | None) -> None:
        self._tried = (*self._tried, member)
        self._error = error
        self._again = False


def picker_for(exchange: Exchange, balance: Balance) -> Picker:
    """Returns what chooses for a request of this kind."""
    if exchange.scope["type"] == "websocket":
        return balance.websocket
    if balance.sse is not balance.plain and asks_for_events(exchange.head.received):
        return balance.sse
    return balance.plain


def asks_for_events(fields: Sequence[Header]) -> bool:
    """Tells whether a client asks for an event stream (WHATWG HTML, section 9.2: `Accept: text/event-stream`)."""
    return any(name == b"accept" and EVENT_STREAM in value.lower() for name, value in fields)
