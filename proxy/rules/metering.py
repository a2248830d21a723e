"""What is admitted, and what a counter and its ledger are after that: the decisions of `shared_state/meter.lua`.

Redis decides; this is where to read how, and what tests compare it with. A batch is decided as one step: settlements,
then requests in their order. A request consumes its cost as a whole or nothing, and what is refused counts nowhere.

A settlement may take a counter below zero: what was used has been paid for already, so nothing is served by hiding it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from proxy.rules.access_tokens import AMOUNT_MAX, AccessToken, Action, State, Terms
from proxy.rules.batches import Admission, Answer, Batch, Request, Verdict

LEASE_MS = 15_000
"""What a worker holds does not count once it has been silent for so long."""


class Ring(NamedTuple):
    """How a window is counted: in slots of one width, one more of them than the window is long.

    So the slots that are looked at always cover it, and no window, wherever it begins, has more requests than its
    limit; a request leaves up to one slot late.
    """

    width_ms: int
    slots: int


MINUTE = Ring(1_000, 61)
SECOND = Ring(100, 11)


class Window:
    """When requests were admitted: how many in each slot since 1970. Looking at it changes nothing.

    Where the clock went back, time stands still until it has caught up; if it went by more than a window, all begins
    anew.
    """

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._counts: dict[int, int] = {}

    def sum(self, now_ms: int) -> int:
        """Returns how many requests are in the window."""
        return sum(self._live(now_ms).values())

    def add(self, now_ms: int) -> None:
        self._counts = self._live(now_ms)
        slot = self._slot(now_ms)
        self._counts[slot] = self._counts.get(slot, 0) + 1

    def retry_ms(self, now_ms: int, limit: int) -> int:
        """Returns in how long fewer than `limit` requests will be in the window, if no more come."""
        counts = self._live(now_ms)
        left, wait_ms = sum(counts.values()), 0
        for slot in sorted(counts):
            if left < limit:
                break
            left -= counts[slot]
            wait_ms = self._leaves_ms(slot) - now_ms
        return wait_ms

    def reset_ms(self, now_ms: int) -> int:
        """Returns in how long none will be in the window."""
        counts = self._live(now_ms)
        return self._leaves_ms(max(counts)) - now_ms if counts else 0

    def _slot(self, now_ms: int) -> int:
        slot = now_ms // self._ring.width_ms
        latest = max(self._counts, default=slot)
        return slot if latest - slot >= self._ring.slots else max(slot, latest)

    def _live(self, now_ms: int) -> dict[int, int]:
        slot = self._slot(now_ms)
        return {each: count for each, count in self._counts.items() if slot - self._ring.slots < each <= slot}

    def _leaves_ms(self, slot: int) -> int:
        return (slot + self._ring.slots) * self._ring.width_ms


class Counter(msgspec.Struct, frozen=True):
    """What remains of a token's quota, what the quota is, and how often either has changed, its creation included."""

    remaining: int
    total: int
    sequence: int


class Token:
    """An access token as it is kept. `counter` is None where nothing is counted."""

    def __init__(self, record: AccessToken, terms: Terms, counter: Counter | None = None) -> None:
        self.record = record
        self.terms = terms
        self.counter = counter
        self.minute = Window(MINUTE)
        self.second = Window(SECOND)
        self.held: dict[str, int] = {}
        """How many of its requests run, by worker."""


class ChangeRow(NamedTuple):
    """A row of a change, as in `shared_state/ledger.py`."""

    token: str
    sequence: int
    action: Action
    before: int
    after: int
    total: int
    request_id: str
    at_ms: int


class OutcomeRow(NamedTuple):
    """A row of outcomes: its msgpack but for the last element, and that."""

    data: bytes
    at_ms: int


class Superseded(Exception):  # noqa: N818 - it says what is the case
    """The batch has been decided, or a later one."""


class Books:
    """Tokens by digest, what each worker said last, and all rows."""

    def __init__(self) -> None:
        self.tokens: dict[str, Token] = {}
        self.beats_ms: dict[str, int] = {}
        self.decided: dict[str, tuple[int, list[bool]]] = {}
        """By worker: the number of its last batch, and which of that batch's requests were admitted."""
        self.rows: list[ChangeRow | OutcomeRow] = []

    def decide(self, batch: Batch, digests: Sequence[str], outcomes: Sequence[bytes]) -> Answer:
        """Decides a batch, whose parts are of the tokens of these digests.

        `outcomes` are that of what has ended (empty: nothing has), then those of withdrawals. Raises Superseded.
        """
        worker, now_ms = batch.worker, batch.now_ms
        last, admitted = self.decided.get(worker, (0, []))
        if batch.number < last or (batch.number == last and not batch.again):
            raise Superseded
        if batch.number > last:
            for settlement in batch.settlements:
                token = self.tokens.get(digests[settlement.place])
                self._change(token, settlement.action, settlement.change, settlement.request_id, now_ms)
            if outcomes[0]:
                self.rows.append(OutcomeRow(outcomes[0], now_ms))
        else:
            for withdrawal, outcome, was in zip(batch.withdrawals, outcomes[1:], admitted, strict=False):
                token = self.tokens.get(digests[withdrawal.place])
                if was and self._change(token, Action.REFUND, withdrawal.cost, withdrawal.request_id, now_ms):
                    self.rows.append(OutcomeRow(outcome, now_ms))
        running = {digest: part.running for digest, part in zip(digests, batch.parts, strict=True)}
        answer = Answer([], [])
        for request in batch.requests:
            admission = self._admit(request, digests[request.place], running, worker, now_ms)
            answer.admissions.append(admission)
            if admission.verdict == Verdict.STALE:
                answer.records.append(self.tokens[digests[request.place]].record)
        self.beats_ms[worker] = now_ms
        self.decided[worker] = (batch.number, [each.verdict == Verdict.ADMITTED for each in answer.admissions])
        for digest in digests:
            if digest in self.tokens:
                self.tokens[digest].held[worker] = running[digest]
        return answer

    def _admit(self, request: Request, digest: str, running: dict[str, int], worker: str, now_ms: int) -> Admission:
        token = self.tokens.get(digest)
        if token is None:
            return Admission(Verdict.UNKNOWN)
        others = [name for name in token.held if name != worker]
        verdict = self._verdict(token, request, running[digest], others, now_ms)
        if verdict is Verdict.ADMITTED:
            running[digest] += 1
            if token.terms.per_minute:
                token.minute.add(now_ms)
            if token.terms.per_second:
                token.second.add(now_ms)
            self._change(token, Action.CONSUME, -request.cost, request.request_id, now_ms)
        everywhere = running[digest] + sum(token.held.get(name, 0) for name in others)
        return _told(token, verdict, everywhere, now_ms)

    def _verdict(self, token: Token, request: Request, running: int, others: list[str], now_ms: int) -> Verdict:
        terms = token.terms
        if token.record.revision != request.revision:
            return Verdict.STALE
        if terms.state is not State.ACTIVE:
            return Verdict.DELETED if terms.state is State.DELETED else Verdict.DISABLED
        if terms.expires_ms and now_ms >= terms.expires_ms:
            return Verdict.EXPIRED
        if terms.per_minute and token.minute.sum(now_ms) >= terms.per_minute:
            return Verdict.PER_MINUTE
        if terms.per_second and token.second.sum(now_ms) >= terms.per_second:
            return Verdict.PER_SECOND
        if terms.concurrent:
            for name in others:
                if self.beats_ms.get(name, 0) <= now_ms - LEASE_MS:
                    token.held.pop(name, None)
            if running + sum(token.held.get(name, 0) for name in others) >= terms.concurrent:
                return Verdict.CONCURRENT
        if token.counter and (token.counter.remaining < request.cost or token.counter.remaining <= 0):
            return Verdict.QUOTA
        return Verdict.ADMITTED

    def _change(self, token: Token | None, action: Action, amount: int, request_id: str, now_ms: int) -> bool:
        """Changes a counter, with its row. Returns whether there is one."""
        if token is None or token.counter is None:
            return False
        before, total, sequence = token.counter.remaining, token.counter.total, token.counter.sequence + 1
        after = max(-AMOUNT_MAX, min(AMOUNT_MAX, before + amount))
        token.counter = Counter(after, total, sequence)
        self.rows.append(ChangeRow(token.record.id, sequence, action, before, after, total, request_id, now_ms))
        return True


def _told(token: Token, verdict: Verdict, running: int, now_ms: int) -> Admission:
    """Returns what a worker is told: of rates and running requests nothing where the verdict came before them."""
    terms, counter = token.terms, token.counter
    told = Admission(verdict)
    if counter is not None:
        told.remaining, told.total = counter.remaining, counter.total
    if verdict is Verdict.PER_MINUTE:
        told.retry_ms = token.minute.retry_ms(now_ms, terms.per_minute)
    elif verdict is Verdict.PER_SECOND:
        told.retry_ms = token.second.retry_ms(now_ms, terms.per_second)
    looked = verdict is Verdict.ADMITTED or verdict >= Verdict.PER_MINUTE
    if looked and terms.per_minute:
        told.per_minute = terms.per_minute
        told.left = max(0, terms.per_minute - token.minute.sum(now_ms))
        told.reset_ms = token.minute.reset_ms(now_ms)
    if terms.concurrent and (verdict is Verdict.ADMITTED or verdict >= Verdict.CONCURRENT):
        told.concurrent, told.running = terms.concurrent, running
    return told
