"""What is counted is handed on once: whatever fails, and whenever the worker is killed, the consumer has all of it."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from proxy.journal import KEYS_AT, MAPPED_BYTES, RECORDS_AT, RECORDS_MAX, UNREADABLE, Journal, journals
from proxy.rules.records import RECORD_BYTES
from proxy.tallies import FOLD_MIN, Leftover, Leftovers, Tallies
from tests.proxy.counting import Consumer, count_one, decoded, in_memory, requests_of, taken


def opened(directory: Path, worker: str = "worker") -> Tallies:
    return Tallies.open(directory, worker, 5.0)


def killed(directory: Path) -> Path:
    """A directory with what would be left if the worker were killed now."""
    dead = directory / "dead"
    shutil.rmtree(dead, ignore_errors=True)
    dead.mkdir()
    for path in journals(directory):
        shutil.copy(path, dead)
    return dead


def left(directory: Path) -> list[bytes]:
    """The deltas that are left in a directory by one dead worker; its journal is left too."""
    (leftover,) = Leftovers(directory).claim()
    leftover.journal.leave()
    return leftover.deltas


def test_a_delta_has_what_was_counted_since_the_last_one(tmp_path: Path) -> None:
    tallies = opened(tmp_path)
    a, b = tallies.tally("/a", "a.example"), tallies.tally("/b", "b.example:81")
    assert (tallies.offer(5.5), tallies.unsent) == (None, 0)
    count_one(a)
    count_one(a, 404)
    assert tallies.unsent == 2
    first = decoded(tallies.offer(6.0) or b"")
    assert (first.worker, first.started_s, first.sequence, first.time_s) == ("worker", 5.0, 1, 6.0)
    (row,) = first.routes
    assert (row.prefix, row.authority, row.last_s) == ("/a", "a.example", 6.0)
    assert {outcome: counts.requests for outcome, counts in row.outcomes.items()} == {"2xx": 1, "4xx": 1}
    tallies.confirm()
    assert (tallies.offer(7.0), tallies.unsent) == (None, 0)
    count_one(b)
    count_one(a)
    second = decoded(tallies.offer(8.0) or b"")
    assert (second.sequence, requests_of(second.routes)) == (2, {"/a": 1, "/b": 1})


def test_a_delta_is_offered_as_it_was_until_it_is_confirmed(tmp_path: Path) -> None:
    tallies = opened(tmp_path)
    tally = tallies.tally("/a", "a.example")
    count_one(tally)
    offered = tallies.offer(1.0)
    count_one(tally)
    tallies.make_room()
    count_one(tally)
    assert tallies.offer(2.0) == offered
    assert tallies.unsent == 3
    tallies.confirm()
    assert tallies.unsent == 2
    following = decoded(tallies.offer(3.0) or b"")
    assert (following.sequence, requests_of(following.routes)) == (2, {"/a": 2})


def test_work_does_not_pile_up_between_deltas() -> None:
    tallies = in_memory()
    tally = tallies.tally("/a", "a.example")
    for _ in range(FOLD_MIN // RECORD_BYTES - 1):
        count_one(tally)
    tallies.tick(1.0)
    assert not tallies._rows
    count_one(tally)
    tallies.tick(2.0)
    tallies.tick(3.0)
    count_one(tally)
    assert requests_of(list(tallies._rows.values())) == {"/a": FOLD_MIN // RECORD_BYTES}
    assert requests_of(taken(tallies)) == {"/a": FOLD_MIN // RECORD_BYTES + 1}


def test_a_full_journal_loses_nothing(tmp_path: Path) -> None:
    tallies = opened(tmp_path)
    tally = tallies.tally("/a", "a.example")
    count_one(tally)
    offered = tallies.offer(1.0)
    for _ in range(RECORDS_MAX + 10):
        count_one(tally)
    assert tallies.journal.position == RECORDS_AT + 10 * RECORD_BYTES
    first, second = left(killed(tmp_path))
    assert first == offered
    assert requests_of(decoded(second).routes) == {"/a": RECORDS_MAX + 10}
    tallies.confirm()
    assert requests_of(taken(tallies)) == {"/a": RECORDS_MAX + 10}


def test_more_keys_than_there_is_room_for_lose_nothing(tmp_path: Path) -> None:
    tallies = opened(tmp_path)
    prefix_chars = (MAPPED_BYTES - KEYS_AT) // 20
    many = [tallies.tally(f"/{number:0{prefix_chars}}", "a.example") for number in range(50)]
    for tally in [*many, *many]:
        count_one(tally)
    assert tallies.journal.generation > 2
    (delta,) = left(killed(tmp_path))
    assert set(requests_of(decoded(delta).routes).values()) == {2}
    assert len(requests_of(taken(tallies))) == 50


def test_keys_hold_for_one_generation() -> None:
    tallies = in_memory()
    tally, quiet = tallies.tally("/a", "a.example"), tallies.tally("/b", "b.example")
    count_one(quiet)
    for number in range(3):
        count_one(tally)
        count_one(tally, 404)
        assert tallies.with_keys == [quiet, tally][number > 0 :]
        taken(tallies)
        assert tallies.with_keys == []
    assert not quiet.keys


def test_a_worker_that_ends_in_good_order_leaves_nothing(tmp_path: Path) -> None:
    tallies = opened(tmp_path)
    count_one(tallies.tally("/a", "a.example"))
    taken(tallies)
    tallies.close()
    assert list(tmp_path.iterdir()) == []


def test_what_could_not_be_told_is_left_to_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tallies = opened(tmp_path)
    count_one(tallies.tally("/a", "a.example"))
    assert Leftovers(tmp_path).claim() == []
    tallies.close()
    assert "1 requests have been counted and could not be told; the next worker here will tell" in caplog.text
    assert requests_of(decoded(*left(tmp_path)).routes) == {"/a": 1}


def test_what_is_left_is_the_same_for_whoever_finds_it(tmp_path: Path) -> None:
    tallies = opened(tmp_path)
    tally = tallies.tally("/a", "a.example")
    count_one(tally)
    offered = tallies.offer(6.0)
    count_one(tally, duration_s=0.1)
    tallies.make_room()
    count_one(tally, duration_s=0.2)
    tallies.tick(7.5)
    dead = killed(tmp_path)
    first, second = left(dead)
    assert left(dead) == [first, second]
    assert first == offered
    delta = decoded(second)
    assert (delta.worker, delta.started_s, delta.sequence, delta.time_s) == ("worker", 5.0, 2, 7.5)
    assert (requests_of(delta.routes), delta.routes[0].last_s) == ({"/a": 2}, 7.5)


def test_each_dead_worker_is_claimed_once(tmp_path: Path) -> None:
    for name in ("one", "other"):
        tallies = opened(tmp_path, name)
        count_one(tallies.tally("/a", "a.example"))
        tallies.close()
    opened(tmp_path, "alive")
    leftovers = Leftovers(tmp_path)
    claimed = leftovers.claim()
    assert [decoded(*leftover.deltas).worker for leftover in claimed] == ["one", "other"]
    assert leftovers.claim() == Leftovers(tmp_path).claim() == []
    for leftover in claimed:
        leftover.journal.remove()
    assert [path.stem for path in journals(tmp_path)] == ["alive"]


def test_where_nothing_can_be_written_counting_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "statistics").touch()
    tallies = opened(tmp_path / "statistics")
    for _ in range(RECORDS_MAX + 1):
        count_one(tallies.tally("/a", "a.example"))
        if tallies.unsent % 10_000 == 0:
            tallies.tick(1.0)
    assert requests_of(taken(tallies)) == {"/a": RECORDS_MAX + 1}
    assert caplog.text.count("statistics cannot be kept on disk") == 1
    count_one(tallies.tally("/a", "a.example"))
    tallies.close()
    assert "nobody will know" in caplog.text


def test_a_disk_that_becomes_full_is_told_once_and_counting_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tallies = opened(tmp_path)
    tally = tallies.tally("/a", "a.example")
    count_one(tally)
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", lambda *_: 0)
        offered = tallies.offer(1.0)
    assert list(tmp_path.iterdir()) == []
    count_one(tally)
    tallies.make_room()
    assert tallies.offer(2.0) == offered
    tallies.confirm()
    assert requests_of(taken(tallies)) == {"/a": 1}
    assert caplog.text.count("no longer kept on disk") == 1


def test_a_file_that_counts_for_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    tallies = opened(tmp_path)
    count_one(tallies.tally("/a", "a.example"))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        tallies.journal.give_up()
    assert len(list(tmp_path.iterdir())) == 1
    assert Leftovers(tmp_path).claim() == []
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_journal_is_set_aside_and_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tallies = opened(tmp_path)
    count_one(tallies.tally("/a", "a.example"))
    tallies.close()
    (path,) = journals(tmp_path)
    with path.open("r+b") as file:
        file.seek(KEYS_AT + 4)
        file.write(b"\xc1")
    leftovers = Leftovers(tmp_path)
    assert leftovers.claim() == leftovers.claim() == []
    assert [each.name for each in tmp_path.iterdir()] == ["worker.unreadable"]
    assert caplog.text.count("is damaged") == 1


def test_a_worker_that_was_killed_before_its_first_request_leaves_no_file(tmp_path: Path) -> None:
    opened(tmp_path).journal.leave()
    assert len(list(journals(tmp_path))) == 1
    assert Leftovers(tmp_path).claim() == []
    assert list(tmp_path.iterdir()) == []


def test_two_who_find_a_damaged_journal_at_once_both_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tallies = opened(tmp_path)
    count_one(tallies.tally("/a", "a.example"))
    tallies.close()
    (path,) = journals(tmp_path)

    def left_after_the_other(_: Journal) -> list[bytes]:
        path.rename(path.with_suffix(UNREADABLE))
        raise ValueError("damaged")

    monkeypatch.setattr("proxy.tallies.left_in", left_after_the_other)
    assert Leftovers(tmp_path).claim() == []
    path.with_suffix(UNREADABLE).rename(path)
    again = Journal.claim(path)
    assert again is not None, "the lock is freed"
    again.leave()


def test_what_is_no_journal_is_told_once_and_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "worker.journal").write_bytes(b"something else")
    leftovers = Leftovers(tmp_path)
    assert leftovers.claim() == leftovers.claim() == []
    assert (tmp_path / "worker.journal").exists()
    assert caplog.text.count("not a journal") == 1


def test_a_directory_that_is_not_there_has_nothing(tmp_path: Path) -> None:
    assert Leftovers(tmp_path / "nowhere").claim() == []


class Life(RuleBasedStateMachine):
    """Workers count, tell, fail to, and are killed, in any order; the consumer and they always have the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.number = 0
        self.consumer = Consumer()
        self.claimed: list[Leftover] = []
        self.leftovers = Leftovers(self.directory)
        self.expected: dict[str, int] = {}
        self.latencies = 0
        self.begin()

    def begin(self) -> None:
        self.number += 1
        self.tallies = opened(self.directory, f"worker-{self.number}")
        self.snapshot = [self.tallies.tally(prefix, "up.example") for prefix in "abc"]

    @rule(route=st.integers(0, 2), status=st.sampled_from([101, 200, 201, 404, 502]), times=st.integers(1, 5))
    def count(self, route: int, status: int, times: int) -> None:
        tally = self.snapshot[route]
        for _ in range(times):
            count_one(tally, status)
        self.expected[tally.prefix] = self.expected.get(tally.prefix, 0) + times
        self.latencies += times if status != 101 else 0

    @rule()
    def tick(self) -> None:
        self.tallies._fold()

    @rule()
    def fill(self) -> None:
        self.tallies.make_room()

    @rule(prefixes=st.lists(st.sampled_from("abcde"), min_size=3, max_size=3))
    def reload(self, prefixes: list[str]) -> None:
        self.snapshot = [self.tallies.tally(prefix, "up.example") for prefix in prefixes]

    @rule(arrives=st.booleans(), confirmed=st.booleans())
    def tell(self, *, arrives: bool, confirmed: bool) -> None:
        delta = self.tallies.offer(1.0)
        if delta is not None and arrives:
            self.consumer.take(delta)
            if confirmed:
                self.tallies.confirm()

    @rule()
    def die(self) -> None:
        self.tallies.journal.leave()  # the kernel frees the lock; nothing else happens
        self.begin()

    @rule()
    def claim(self) -> None:
        self.claimed += self.leftovers.claim()

    @rule(told=st.integers(0, 2))
    def tell_leftovers(self, told: int) -> None:
        """Whoever tells may die on the way, or only not hear that all has arrived."""
        for leftover in self.claimed:
            for delta in leftover.deltas[:told]:
                self.consumer.take(delta)
            if told == 2:
                leftover.journal.remove()
            else:
                leftover.journal.leave()
        self.claimed.clear()

    @invariant()
    def numbers_have_no_gaps(self) -> None:
        assert self.consumer.gaps == 0

    def teardown(self) -> None:
        self.die()
        self.tell_leftovers(0)
        self.claim()
        self.tell_leftovers(2)
        self.tallies.close()
        assert requests_of(self.consumer.rows) == self.expected
        assert sum(row.durations.count for row in self.consumer.rows) == self.latencies
        assert list(self.directory.iterdir()) == []
        self.directory.rmdir()


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_delta_that_may_have_arrived_is_left_too_under_its_number(tmp_path: Path) -> None:
    tallies = opened(tmp_path)
    count_one(tallies.tally("/a", "a.example"))
    offered = tallies.offer(1.0) or b""
    tallies.confirm()
    again = left(killed(tmp_path))
    assert again == [offered]
    consumer = Consumer()
    for each in (offered, *again):
        consumer.take(each)
    assert requests_of(consumer.rows) == {"/a": 1}
