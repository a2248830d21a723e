"""Which rows are new, and where they stand. Whatever is lost and comes twice, a token's rows follow each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.rules import ledger
from admin.rules.ledger import Mark, Standing
from proxy.rules.access_tokens import Action
from proxy.shared_state.ledger import Change
from tests.admin.ledgers import consume, outcome, packed


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1",
        packed(consume("a", 0, 100)),
        packed(consume("", 2, 100)),
        packed(consume("a\0", 2, 100)),
        packed(consume("a" * 65, 2, 100)),
        packed(consume("a", 2, 2**53)),
        packed(consume("a", 2, 5, total=-1)),
        packed(outcome("a", "b"), consume("a", 2**53, 100)),
    ],
)
def test_what_no_table_takes_is_no_entry(data: bytes) -> None:
    assert ledger.read(data) is None


def test_rows_are_read_as_they_were_written() -> None:
    rows = [consume("a", 2, 100), outcome("a", "a-2", "timeout", "after 5 s", "exact")]
    assert ledger.read(packed(*rows)) == rows


def test_only_numbers_that_sql_has_given_are_in_doubt() -> None:
    changes = [consume("a", 5, 9), consume("b", 6, 9), consume("c", 1, 9)]
    assert ledger.doubtful(changes, {"a": Standing(5, 9, 9), "b": Standing(5, 9, 9)}) == {"a"}


def test_an_outcome_is_of_the_admission_and_of_no_other_row_of_its_request() -> None:
    settle = Change("a", 3, Action.SETTLE, 99, 98, 100, "a-2", 0)
    found = ledger.joined([settle], [outcome("a", "a-2")])
    assert (found.outcomes, len(found.others)) == ({}, 1)
    twice = ledger.joined([consume("a", 2, 100), settle], [outcome("a", "a-2"), outcome("a", "a-2", "timeout")])
    assert [one.error_type for one in (*twice.outcomes.values(), *twice.others)] == ["", "timeout"]
    rows = ledger.rows([consume("a", 2, 100), settle], {}, twice.outcomes)
    assert [row[ledger.COLUMNS.index("execution_success")] for row in rows] == [1, None]


class Redis:
    """A counter of which the latest changes can get lost, and the stream of its changes."""

    def __init__(self) -> None:
        self.sequence, self.remaining = 1, 100
        self.made = 0
        self.stream: list[Change] = []

    def admit(self) -> None:
        self.sequence, self.remaining, self.made = self.sequence + 1, self.remaining - 1, self.made + 1
        before = self.remaining + 1
        row = Change("a", self.sequence, Action.CONSUME, before, self.remaining, 100, f"r{self.made}", self.made)
        self.stream.append(row)

    def lose(self, changes: int) -> None:
        lost = min(changes, self.sequence - 1)
        self.sequence, self.remaining = self.sequence - lost, self.remaining + lost
        if lost:
            del self.stream[-lost:]  # as many as are still there: the others are in SQL


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), st.integers(1, 4)),
        st.tuples(st.just("take"), st.integers(1, 6)),
        st.tuples(st.just("again"), st.integers(1, 6)),
        st.tuples(st.just("lose"), st.integers(1, 4)),
        st.tuples(st.just("publish"), st.just(0)),
    ),
    max_size=40,
)


@given(STEPS)
def test_a_chain_has_no_gap_and_no_unit_twice_whatever_redis_loses(steps: list[tuple[str, int]]) -> None:
    redis, sql, standing = Redis(), list[Change](), Standing(1, 100, 100)
    seen: set[str] = set()
    last_batch: list[Change] = []
    for word, count in [*steps, ("take", 1000)]:
        match word:
            case "admit":
                for _ in range(count):
                    redis.admit()
            case "lose":
                redis.lose(count)
            case "publish":
                while redis.stream:
                    standing, seen = taken(redis.stream, standing, sql, seen)
                    redis.stream = []
                if redis.sequence < standing.sequence:
                    redis.sequence, redis.remaining = standing.sequence, standing.remaining
            case _:
                last_batch = redis.stream[:count] if word == "take" else last_batch
                standing, seen = taken(last_batch, standing, sql, seen)
                redis.stream = redis.stream[count:] if word == "take" else redis.stream
    assert [one.sequence for one in sql] == [*range(2, 2 + len(sql))]
    balance = 100
    for one in sql:
        assert (one.before, one.after) == (balance, balance - 1)
        balance = one.after
    assert standing == Standing(1 + len(sql), balance, 100)
    assert {one.request_id for one in sql} == seen


def taken(batch: list[Change], standing: Standing, sql: list[Change], seen: set[str]) -> tuple[Standing, set[str]]:
    """Takes a batch as the intake does."""
    there: set[Mark] = set()
    if ledger.doubtful(batch, {"a": standing}):
        there = {ledger.mark_of(one) for one in sql}
    found = ledger.continued(batch, {"a": standing}, there)
    assert found.missing == 0
    sql += found.changes
    return found.standings.get("a", standing), seen | {one.request_id for one in batch}
