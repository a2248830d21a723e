"""What is admitted: against a naive model that remembers the time of each request, on a simulated clock."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.rules.access_tokens import AMOUNT_MAX, AccessToken, Action, State, Terms, Unit
from proxy.rules.batches import Admission, Batch, Part, Request, Settlement, Verdict, Withdrawal
from proxy.rules.metering import (
    LEASE_MS,
    MINUTE,
    SECOND,
    Books,
    ChangeRow,
    Counter,
    OutcomeRow,
    Ring,
    Superseded,
    Token,
    Window,
)

NOW_MS = 1_763_700_000_123
DIGEST = "d"


def books_of(terms: Terms, remaining: int | None = None) -> Books:
    """Books with one token."""
    books = Books()
    unit = None if remaining is None else Unit.REQUESTS
    counter = None if remaining is None else Counter(remaining, remaining, 1)
    books.tokens[DIGEST] = Token(AccessToken("t", 1, unit), terms, counter)
    return books


class Asking:
    """A worker that asks about one token."""

    def __init__(self, books: Books, name: str = "w") -> None:
        self.books = books
        self.name = name
        self.number = 0
        self.running = 0

    def ask(self, now_ms: int, *costs: int, revision: int = 1, ended: int = 0) -> list[Admission]:
        self.number += 1
        self.running -= ended
        requests = [Request(0, revision, cost, f"r{self.number}-{at}") for at, cost in enumerate(costs)]
        batch = Batch(self.name, self.number, False, now_ms, [Part(self.running, True)], [], requests)
        admissions = self.books.decide(batch, [DIGEST], [b""]).admissions
        self.running += sum(each.verdict == Verdict.ADMITTED for each in admissions)
        return admissions

    def verdicts(self, now_ms: int, *costs: int, revision: int = 1, ended: int = 0) -> list[int]:
        return [each.verdict for each in self.ask(now_ms, *costs, revision=revision, ended=ended)]


class Rates(RuleBasedStateMachine):
    """A token with two rates and a quota, asked about at odd times."""

    @initialize(
        per_minute=st.integers(1, 12), per_second=st.integers(1, 5), quota=st.integers(0, 40), began=st.integers(0, 999)
    )
    def begin(self, per_minute: int, per_second: int, quota: int, began: int) -> None:
        self.terms = Terms(per_minute=per_minute, per_second=per_second)
        self.books = books_of(self.terms, quota)
        self.worker = Asking(self.books)
        self.quota = quota
        self.spent = 0
        self.now_ms = NOW_MS + began
        self.admitted_ms: list[int] = []

    def within(self, span_ms: int) -> int:
        return sum(self.now_ms - span_ms < each <= self.now_ms for each in self.admitted_ms)

    @rule(pause_ms=st.one_of(st.integers(0, 150), st.integers(0, 1500), st.integers(0, 62_000)))
    def wait(self, pause_ms: int) -> None:
        self.now_ms += pause_ms

    @rule(cost=st.integers(0, 4))
    def ask(self, cost: int) -> None:
        [admission] = self.worker.ask(self.now_ms, cost)
        match admission.verdict:
            case Verdict.ADMITTED:
                assert self.within(60_000) < self.terms.per_minute
                assert self.within(1_000) < self.terms.per_second
                assert self.spent + cost <= self.quota
                self.admitted_ms.append(self.now_ms)
                self.spent += cost
            case Verdict.PER_MINUTE:
                assert self.within(61_000) >= self.terms.per_minute
                self.check_retry(admission, Verdict.PER_MINUTE)
            case Verdict.PER_SECOND:
                assert self.within(1_100) >= self.terms.per_second
                self.check_retry(admission, Verdict.PER_SECOND)
            case verdict:
                assert verdict is Verdict.QUOTA
                assert self.spent + max(cost, 1) > self.quota
        assert admission.left == max(0, self.terms.per_minute - self.counted())
        assert (admission.reset_ms > 0) == (self.counted() > 0)

    def counted(self) -> int:
        slot = self.now_ms // MINUTE.width_ms
        return sum(each // MINUTE.width_ms > slot - MINUTE.slots for each in self.admitted_ms)

    def check_retry(self, admission: Admission, verdict: Verdict) -> None:
        """Not a millisecond before the time that was told, and then, the same rate has room."""
        for early_ms, refused in ((1, True), (0, False)):
            worker = copy.deepcopy(self.worker)
            found = worker.verdicts(self.now_ms + admission.retry_ms - early_ms, 1)
            assert (found == [verdict]) is refused

    @precondition(lambda self: self.admitted_ms)
    @rule()
    def wait_until_reset(self) -> None:
        [admission] = copy.deepcopy(self.worker).ask(self.now_ms, 1)
        self.now_ms += admission.reset_ms
        assert self.counted() == 0

    @invariant()
    def the_ledger_adds_up(self) -> None:
        token = self.books.tokens[DIGEST]
        assert token.counter is not None
        remaining, sequence = self.quota, 1
        for row in self.books.rows:
            assert isinstance(row, ChangeRow)
            assert (row.sequence, row.before, row.action) == (sequence + 1, remaining, Action.CONSUME)
            remaining, sequence = row.after, row.sequence
        assert token.counter == Counter(remaining, self.quota, sequence)
        assert remaining == self.quota - self.spent
        assert len(self.books.rows) == len(self.admitted_ms)


TestRates = Rates.TestCase
TestRates.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(
    ring=st.sampled_from([MINUTE, SECOND]),
    steps=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 2)), max_size=60),
)
def test_no_window_however_it_lies_has_more_than_was_counted(ring: Ring, steps: list[tuple[int, int]]) -> None:
    window, now_ms, times = Window(ring), NOW_MS, []
    for pause_ms, count in steps:
        now_ms += pause_ms
        for _ in range(count):
            window.add(now_ms)
            times.append(now_ms)
        least = sum(each > now_ms - ring.width_ms * (ring.slots - 1) for each in times)
        most = sum(each > now_ms - ring.width_ms * ring.slots for each in times)
        assert least <= window.sum(now_ms) <= most


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    worker = Asking(books_of(Terms(per_minute=2)))
    assert worker.verdicts(NOW_MS, 1, 1, 1) == [Verdict.ADMITTED, Verdict.ADMITTED, Verdict.PER_MINUTE]
    [refused] = worker.ask(NOW_MS - 30_000, 1)
    assert (refused.verdict, refused.retry_ms) == (Verdict.PER_MINUTE, 90_877)
    assert worker.verdicts(NOW_MS - 30_000 + 90_877, 1) == [Verdict.ADMITTED]
    assert worker.verdicts(NOW_MS - 3_600_000, 1) == [Verdict.ADMITTED]


@pytest.mark.parametrize(
    ("terms", "quota", "verdict"),
    [
        (Terms(), None, Verdict.ADMITTED),
        (Terms(), 1, Verdict.ADMITTED),
        (Terms(), 0, Verdict.QUOTA),
        (Terms(State.DISABLED, 1, 1, 1, 1), 0, Verdict.DISABLED),
        (Terms(State.DELETED, 1, 1, 1, 1), 0, Verdict.DELETED),
        (Terms(expires_ms=NOW_MS), 0, Verdict.EXPIRED),
        (Terms(expires_ms=NOW_MS + 1), 1, Verdict.ADMITTED),
    ],
)
def test_a_first_request(terms: Terms, quota: int | None, verdict: Verdict) -> None:
    assert Asking(books_of(terms, quota)).verdicts(NOW_MS, 1) == [verdict]


def test_the_first_reason_is_told_in_their_order() -> None:
    worker = Asking(books_of(Terms(per_minute=1, per_second=1, concurrent=1), 1))
    assert worker.verdicts(NOW_MS, 1, 1) == [Verdict.ADMITTED, Verdict.PER_MINUTE]
    for terms, verdict in (
        (Terms(per_second=1, concurrent=1), Verdict.PER_SECOND),
        (Terms(concurrent=1), Verdict.CONCURRENT),
        (Terms(), Verdict.QUOTA),
    ):
        worker.books.tokens[DIGEST].terms = terms
        assert worker.verdicts(NOW_MS, 1) == [verdict]


def test_a_rate_counts_from_when_it_is_set() -> None:
    worker = Asking(books_of(Terms(per_minute=9)))
    worker.ask(NOW_MS, 1, 1)
    worker.books.tokens[DIGEST].terms = Terms(per_second=1)
    assert worker.verdicts(NOW_MS, 1, 1) == [Verdict.ADMITTED, Verdict.PER_SECOND]


def test_what_is_not_known_or_known_as_it_was() -> None:
    books = books_of(Terms(), 5)
    worker = Asking(books)
    assert worker.verdicts(NOW_MS, 1, revision=2) == [Verdict.STALE]
    del books.tokens[DIGEST]
    assert worker.ask(NOW_MS, 1) == [Admission(Verdict.UNKNOWN)]
    assert not books.rows


def test_costs_are_taken_whole_or_not_at_all_in_the_order_of_requests() -> None:
    worker = Asking(books_of(Terms(), 10))
    told = worker.ask(NOW_MS, 4, 7, 6, 0)
    assert [(each.verdict, each.remaining) for each in told] == [
        (Verdict.ADMITTED, 6),
        (Verdict.QUOTA, 6),
        (Verdict.ADMITTED, 0),
        (Verdict.QUOTA, 0),
    ]
    assert worker.books.rows == [
        ChangeRow("t", 2, Action.CONSUME, 10, 6, 10, "r1-0", NOW_MS),
        ChangeRow("t", 3, Action.CONSUME, 6, 0, 10, "r1-2", NOW_MS),
    ]


def test_running_requests_are_counted_over_workers_that_are_not_silent() -> None:
    books = books_of(Terms(concurrent=3))
    one, two = Asking(books, "one"), Asking(books, "two")
    assert one.verdicts(NOW_MS, 1, 1) == [Verdict.ADMITTED, Verdict.ADMITTED]
    told = two.ask(NOW_MS + LEASE_MS - 1, 1, 1)
    assert [(each.verdict, each.concurrent, each.running) for each in told] == [
        (Verdict.ADMITTED, 3, 3),
        (Verdict.CONCURRENT, 3, 3),
    ]
    assert one.verdicts(NOW_MS + LEASE_MS - 1, ended=1) == []
    assert two.verdicts(NOW_MS + LEASE_MS - 1, 1, 1) == [Verdict.ADMITTED, Verdict.CONCURRENT]
    assert two.verdicts(NOW_MS + 2 * LEASE_MS, 1, 1) == [Verdict.ADMITTED, Verdict.CONCURRENT]  # one is silent
    assert one.verdicts(NOW_MS + 2 * LEASE_MS, 1) == [Verdict.CONCURRENT]


def settled(books: Books, *settlements: Settlement, number: int = 1) -> None:
    batch = Batch("w", number, False, NOW_MS, [Part(0, False)], list(settlements))
    books.decide(batch, [DIGEST], [b"outcomes"])


def test_each_way_to_settle() -> None:
    books = books_of(Terms(), 10)
    settled(
        books,
        Settlement(0, -12, Action.SETTLE, "used more"),
        Settlement(0, 3, Action.REFUND, "not sent"),
        Settlement(0, 0, Action.CONSUME, "without Redis, for nothing"),
    )
    assert books.rows == [
        ChangeRow("t", 2, Action.SETTLE, 10, -2, 10, "used more", NOW_MS),
        ChangeRow("t", 3, Action.REFUND, -2, 1, 10, "not sent", NOW_MS),
        ChangeRow("t", 4, Action.CONSUME, 1, 1, 10, "without Redis, for nothing", NOW_MS),
        OutcomeRow(b"outcomes", NOW_MS),
    ]


def test_a_counter_stays_within_what_lua_can_count() -> None:
    books = books_of(Terms(), AMOUNT_MAX - 1)
    settled(books, Settlement(0, 5, Action.REFUND, "r"))
    settled(books, Settlement(0, -AMOUNT_MAX, Action.SETTLE, "r"), Settlement(0, -9, Action.SETTLE, "r"), number=2)
    settled(books, Settlement(0, -AMOUNT_MAX, Action.SETTLE, "r"), number=3)
    changes = [(row.before, row.after) for row in books.rows if isinstance(row, ChangeRow)]
    assert changes == [(AMOUNT_MAX - 1, AMOUNT_MAX), (AMOUNT_MAX, 0), (0, -9), (-9, -AMOUNT_MAX)]


def test_what_is_settled_of_a_token_that_is_gone_has_its_outcome_alone() -> None:
    books = Books()
    settled(books, Settlement(0, 3, Action.REFUND, "r"))
    assert books.rows == [OutcomeRow(b"outcomes", NOW_MS)]


def again(number: int) -> Batch:
    """The batch of that number, as it is sent again."""
    settlements = [Settlement(0, -1, Action.SETTLE, "before")]
    withdrawals = [Withdrawal(0, 1, "first"), Withdrawal(0, 9, "second")]
    return Batch("w", number, True, NOW_MS, [Part(0, False)], settlements, [], withdrawals)


def original(number: int) -> Batch:
    requests = [Request(0, 1, 1, "first"), Request(0, 1, 9, "second")]
    return Batch("w", number, False, NOW_MS, [Part(0, False)], again(number).settlements, requests)


OUTCOMES = [b"settled", b"first", b"second"]


def test_a_lost_batch_that_was_decided_gives_back_what_it_took() -> None:
    books = books_of(Terms(), 5)
    books.decide(original(1), [DIGEST], OUTCOMES[:1])
    before = list(books.rows)
    books.decide(again(1), [DIGEST], OUTCOMES)
    books.decide(again(1), [DIGEST], OUTCOMES)
    assert books.rows == [
        *before,
        ChangeRow("t", 4, Action.REFUND, 3, 4, 5, "first", NOW_MS),
        OutcomeRow(b"first", NOW_MS),
    ]


def test_a_lost_batch_that_was_not_decided_is_settled_and_never_decided() -> None:
    books = books_of(Terms(), 5)
    books.decide(again(1), [DIGEST], OUTCOMES)
    books.decide(again(1), [DIGEST], OUTCOMES)
    with pytest.raises(Superseded):
        books.decide(original(1), [DIGEST], OUTCOMES[:1])
    assert books.rows == [
        ChangeRow("t", 2, Action.SETTLE, 5, 4, 5, "before", NOW_MS),
        OutcomeRow(b"settled", NOW_MS),
    ]
    books.decide(original(2), [DIGEST], OUTCOMES[:1])
    with pytest.raises(Superseded):
        books.decide(again(1), [DIGEST], OUTCOMES)
