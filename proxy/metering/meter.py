"""One worker's requests and endings, on their way to Redis, a batch at a time.

The law of this file: each request that was admitted is settled once, and each batch is decided once. One batch is under
way at a time, and batches have numbers, of which Redis remembers the last with its verdicts. Where no answer came, the
requests of that batch are refused here, and nothing else is sent until the batch has been sent `again` and confirmed:
its settlements are made unless they were, and what its requests took is given back, with rows of both. So a unit that
was taken and never used shows in the ledger, and one that Redis never took is not given back. An original that arrives
late, after it was sent again, is refused by its number.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

import msgspec

from proxy.eager import resolve_now
from proxy.rules.access_tokens import AccessToken, Action
from proxy.rules.batches import (
    NOT_DECIDED,
    Admission,
    Answer,
    Asked,
    Batch,
    Part,
    Request,
    Settlement,
    Verdict,
    Withdrawal,
)
from proxy.shared_state.ledger import Ended, Outcomes, without_time
from proxy.shared_state.unavailable import StoreUnavailable

log = logging.getLogger("relaygate")

KNOWN_MAX = 100_000
"""Access tokens that a worker remembers: some 50 MB, if all differ. Of more, those that it has known longest go."""
BATCH_MAX = 128
"""So many requests, and so many settlements, are in one batch: a millisecond or two of Redis's work."""
SETTLEMENTS_MAX = 50_000
"""So many settlements wait for Redis, 25 MB; of more the newest are dropped, and counted."""
BUSY_MIN = 16
GATHER_S = 0.001
"""A batch costs as much by itself as what is in it for ten requests. Where so many come, the next waits for some more;
where fewer do, that would cost their clients more than it saves."""
SETTLE_S = 0.05
"""A settlement leaves with the next batch, at the latest after so long."""
RETRY_S = 1.0
BEAT_S = 5.0
"""How often Redis is told of running requests whose number is bounded: a third of the lease (`meter.lua`)."""
FINISH_S = 1.0
"""How long a worker that ends goes on trying to tell."""

# Module names, since looking a member up on its Enum costs as much as ten of anything else.
ADMITTED, STALE, UNKNOWN = map(int, (Verdict.ADMITTED, Verdict.STALE, Verdict.UNKNOWN))
CONSUME, SETTLE, REFUND = Action.CONSUME, Action.SETTLE, Action.REFUND


class Decider(Protocol):
    """What decides: `shared_state.meter_store.MeterStore`."""

    async def decide(self, batch: Batch, digests: Sequence[str], outcomes: Sequence[bytes], /) -> Answer: ...


class Ending(NamedTuple):
    """How a request ended, for its row in the ledger: `ledger.Outcome`."""

    success: bool
    error_type: str = ""
    error_message: str = ""
    usage: str = ""


SUCCESS = Ending(True)
CLIENT_LEFT = Ending(False, "client_left", "the client left before the request was sent")
UNANSWERED = Ending(False, "store_unavailable", "Redis admitted the request, and its answer did not arrive")


Waiting = tuple[Asked, asyncio.Future[Admission]]
"""A request, and what it awaits. One whose client has left has cancelled that."""
Owed = tuple[Asked, Action, int, Ending]
"""A request that has ended and Redis is not told of: how, and what its counter changes by for that."""


class _Call(NamedTuple):
    """A batch with what goes beside it, and what it was made of."""

    batch: Batch
    digests: list[str]
    outcomes: list[bytes]
    asked: list[Waiting]
    owed: list[Owed]


class Meter:
    """What a worker's requests ask. `run` is to be running, in the loop that it was made in."""

    def __init__(self, store: Decider, worker: str) -> None:
        """`worker` is a name that no other worker has, nor had: Redis knows batches by it."""
        self.dropped = 0
        """Settlements that were never told, as too many were waiting."""
        self._store = store
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._known: dict[str, AccessToken] = {}
        self._asked: deque[Waiting] = deque()
        self._owed: deque[Owed] = deque()
        self._running: dict[str, int] = {}
        """Requests that were admitted and not settled, by digest."""
        self._capped: set[str] = set()
        """Tokens whose running requests are bounded, as Redis has said."""
        self._untold: set[str] = set()
        """Those of them whose number Redis is to be told."""
        self._lost: _Call | None = None
        """The batch to which no answer came, as it is to be sent again."""
        self._number = 0
        self._work = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._is_due = False
        """Whether what could wait has waited long enough."""
        self._is_busy = False
        """Whether the last batch had so many requests that the next is given time to gather as many."""
        self._beat_timer: asyncio.TimerHandle | None = None
        self._ended = False

    def known(self, digest: str) -> AccessToken | None:
        """Returns what this worker knows of a token, which may be out of date; None where it has not met it lately."""
        return self._known.get(digest)

    def admit(self, asked: Asked) -> asyncio.Future[Admission]:
        """Asks whether a request may go out, at a cost in the unit of the token (0 to `AMOUNT_MAX`).

        `asked.token` is what was `known`, by which the request has been let pass so far. Where the verdict is STALE,
        another one is known now: look at that and ask again. Where it is ADMITTED, the answer is to be given to
        `settle` or `refund`, once. Raises StoreUnavailable, here or to who awaits; then the request has cost nothing,
        or its cost is given back.
        """
        if self._ended:
            raise StoreUnavailable("closed")
        answer = self._loop.create_future()
        self._asked.append((asked, answer))
        self._work.set()
        return answer

    def settle(self, admission: Admission, ending: Ending, used: int | None = None, action: Action = SETTLE) -> None:
        """Tells how an admitted request ended, and what it used (None: its cost); what it used less is given back."""
        asked = admission.asked
        digest = asked.digest
        running = self._running[digest] - 1
        if running:
            self._running[digest] = running
        else:
            del self._running[digest]
        if digest in self._capped:
            self._untold.add(digest)
            self._wake_soon()
        if admission.remaining is not None:
            self._owe((asked, action, 0 if used is None else asked.cost - used, ending))

    def refund(self, admission: Admission, ending: Ending) -> None:
        """Tells that an admitted request was not sent, or is not to be paid: its cost is given back."""
        self.settle(admission, ending, 0, REFUND)

    def replay(self, asked: Asked, ending: Ending) -> None:
        """Tells of a request that was served while Redis could not be asked, at a cost that is known now."""
        if asked.token is not None and asked.token.unit is not None:
            self._owe((asked, CONSUME, -asked.cost, ending))

    @property
    def waiting(self) -> int:
        """How many settlements Redis has not confirmed."""
        return len(self._owed) + (len(self._lost.owed) if self._lost else 0)

    async def run(self) -> None:
        """Sends what there is to send until it is cancelled."""
        self._beat()
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                try:
                    while self._is_pressed() and await self._send():
                        if self._is_busy:
                            await asyncio.sleep(GATHER_S)
                except Exception:
                    log.exception("a batch about access tokens failed")
                    self._refuse(self._asked, "failed")
                    self._asked.clear()
                    self._retry_soon()
        finally:
            self._ended = True
            self._refuse(self._asked, "closed")
            self._asked.clear()
            if self._beat_timer is not None:
                self._beat_timer.cancel()

    async def close(self) -> None:
        """Sends what is left, in a moment or not at all. `run` must have ended, and all requests."""
        self._ended = True
        try:
            async with asyncio.timeout(FINISH_S):
                while self._has_work():
                    if not await self._send():
                        await asyncio.sleep(SETTLE_S)
        except TimeoutError:
            log.error(  # noqa: TRY400 - that time has passed says all
                "not told to redis: how %d requests with access tokens ended", self.waiting
            )
        if self._timer is not None:
            self._timer.cancel()

    def _owe(self, settlement: Owed) -> None:
        if len(self._owed) >= SETTLEMENTS_MAX:
            if not self.dropped:
                log.error("redis has been away for too long: how requests with access tokens end is not told any more")
            self.dropped += 1
            return
        self._owed.append(settlement)
        if len(self._owed) >= BATCH_MAX:
            self._work.set()
        elif self._timer is None:
            self._wake_soon()

    def _take_back(self, admission: Admission) -> None:
        if admission.verdict == ADMITTED:
            self.refund(admission, CLIENT_LEFT)

    def _wake_soon(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(SETTLE_S, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._is_due = True
        self._work.set()

    def _beat(self) -> None:
        self._beat_timer = self._loop.call_later(BEAT_S, self._beat)
        if self._capped:
            self._untold |= self._capped
            self._is_due = True
            self._work.set()

    def _is_pressed(self) -> bool:
        """Tells whether there is something to send at once."""
        can_wait = self._owed or self._untold
        return bool(self._asked or self._lost or (self._is_due and can_wait) or len(self._owed) >= BATCH_MAX)

    def _has_work(self) -> bool:
        return bool(self._asked or self._owed or self._untold or self._lost)

    async def _send(self) -> bool:
        """Sends one batch. Returns whether it was decided."""
        call = self._lost or self._gather()
        if self._lost is not None:
            for digest, part in zip(call.digests, call.batch.parts, strict=True):
                part.running = self._running.get(digest, 0)
        try:
            answer = await self._store.decide(call.batch, call.digests, call.outcomes)
        except StoreUnavailable as error:
            self._failed(call, error.reason)
            return bool(self._asked)
        except BaseException as error:
            self._failed(call, "failed" if isinstance(error, Exception) else "closed")
            raise
        self._is_busy = len(call.asked) >= BUSY_MIN
        self._loop.call_soon(self._answered, call, answer)
        await asyncio.sleep(0)
        return True

    def _gather(self) -> _Call:
        """Makes a batch of what is there. Requests whose client has left in the meantime are left out."""
        self._is_due = False
        owed = [self._owed.popleft() for _ in range(min(len(self._owed), BATCH_MAX))]
        waiting: list[Waiting] = []
        while self._asked and len(waiting) < BATCH_MAX:
            one = self._asked.popleft()
            if not one[1].done():
                waiting.append(one)
        places: dict[str, int] = {}
        settlements, ended, requests = [], [], []
        for asked, action, change, ending in owed:
            place = places.setdefault(asked.digest, len(places))
            ended.append(Ended(asked.token_id, asked.request_id, *ending))
            if change or action is CONSUME:
                settlements.append(Settlement(place, change, action, asked.request_id))
        for asked, _ in waiting:
            place = places.setdefault(asked.digest, len(places))
            revision = 0 if asked.token is None else asked.token.revision
            requests.append(Request(place, revision, asked.cost, asked.request_id))
        for digest in islice(self._untold, BATCH_MAX):
            places.setdefault(digest, len(places))
        digests = list(places)
        self._untold.difference_update(digests)
        running, capped = self._running, self._capped
        parts = [Part(running.get(digest, 0), digest in capped) for digest in digests]
        self._number += 1
        batch = Batch(self._worker, self._number, False, 0, parts, settlements, requests)
        outcomes = [without_time(Outcomes(ended, 0)) if ended else b""]
        return _Call(batch, digests, outcomes, waiting, owed)

    def _answered(self, call: _Call, answer: Answer) -> None:
        """Takes what was decided, as a callback of the loop: there a request goes on within the call that admits it, so
        that none can be cancelled between."""
        try:
            self._decided(call, answer)
        except Exception:
            log.exception("what was decided about access tokens cannot be used")
        finally:  # nobody may wait for ever, whatever went wrong
            self._refuse(call.asked, "failed")

    def _decided(self, call: _Call, answer: Answer) -> None:
        if call is self._lost:
            self._lost = None
        running, capped = self._running, self._capped
        records = iter(answer.records)
        for (asked, future), admission in zip(call.asked, answer.admissions, strict=True):
            admission.asked = asked
            digest, verdict = asked.digest, admission.verdict
            if verdict == ADMITTED:
                running[digest] = running.get(digest, 0) + 1
                if admission.concurrent:
                    capped.add(digest)
            elif verdict == STALE:
                self._learn(digest, next(records))
            elif verdict == UNKNOWN:
                self._known.pop(digest, None)
            if future.done():
                self._take_back(admission)
            else:
                resolve_now(self._loop, future, admission)
        for digest, part in zip(call.digests, call.batch.parts, strict=True):
            if part.capped and digest not in running and digest not in self._untold:
                capped.discard(digest)

    def _failed(self, call: _Call, reason: str) -> None:
        """Keeps of a batch that was not answered what is to be sent, and refuses its requests."""
        if reason in NOT_DECIDED and call is not self._lost:
            self._owed.extendleft(reversed(call.owed))
            self._untold |= self._capped.intersection(call.digests)
        elif call is not self._lost:
            self._lost = _again(call)
        self._refuse(call.asked, reason)
        if self._lost is not None:
            self._refuse(self._asked, reason)
            self._asked.clear()
        self._retry_soon()

    def _retry_soon(self) -> None:
        self._work.clear()
        if self._timer is None:
            self._timer = self._loop.call_later(RETRY_S, self._wake)

    def _refuse(self, waiting: Iterable[Waiting], reason: str) -> None:
        for _, answer in waiting:
            if not answer.done():
                answer.set_exception(StoreUnavailable(reason))

    def _learn(self, digest: str, record: AccessToken) -> None:
        self._known[digest] = record
        if len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]


def _again(call: _Call) -> _Call:
    """Returns what is sent in place of a batch to which no answer came."""
    batch = call.batch
    withdrawals = [Withdrawal(each.place, each.cost, each.request_id) for each in batch.requests]
    unanswered = [Ended(asked.token_id, asked.request_id, *UNANSWERED) for asked, _ in call.asked]
    outcomes = [without_time(Outcomes([each], 0)) for each in unanswered]
    # What ran is told in any case: whether Redis bounds it, its answer would have said.
    parts = [msgspec.structs.replace(part, capped=True) for part in batch.parts]
    again = msgspec.structs.replace(batch, again=True, parts=parts, requests=[], withdrawals=withdrawals)
    return _Call(again, call.digests, call.outcomes + outcomes, [], call.owed)
