"""What one worker counts: a record in its journal for each request, and of all records one delta at a time.

The law of this file: whatever is counted is in exactly one delta. A delta is cut, kept with its number in the journal,
and offered unchanged until it is confirmed; what is counted meanwhile is for the next one. Whoever finds the journal of
a dead worker makes the same deltas of it (`left_in`), however often that is begun. One event loop: nothing is locked.
"""

import contextlib
import logging
from pathlib import Path
from typing import NamedTuple

import msgspec

from proxy.journal import RECORDS_AT, Journal, journals
from proxy.rules.records import RECORD_BYTES
from proxy.statistics import Key, RouteCounts, Rows, StatisticsDelta, fold

log = logging.getLogger("relaygate")

DIRECTORY = "statistics"
"""Where, in the data directory, the journals of all workers lie."""

FOLD_MIN = 1024 * RECORD_BYTES
"""So many bytes of records are folded on a tick: half a millisecond's work, which many at a time make cheaper."""

Kind = int | tuple[object, ...]
"""What of a request decides which key it has, but for its route: mostly its status alone."""


class State(msgspec.Struct, array_like=True, frozen=True):
    """What a generation of a journal begins with.

    `offered` is the delta of the number `sequence` in msgpack, as long as it may have to be sent again. `rows` have
    been counted since it was cut.
    """

    worker: str
    started_s: float
    sequence: int
    offered: bytes | None
    rows: list[RouteCounts]


encode = msgspec.msgpack.Encoder().encode
decode_state = msgspec.msgpack.Decoder(State).decode
decode_key = msgspec.msgpack.Decoder(Key).decode


class Tally:
    """Counts the requests of one route. `phases/account.py` does the counting."""

    __slots__ = ("_tallies", "authority", "journal", "keys", "prefix")

    def __init__(self, prefix: str, authority: str, tallies: "Tallies") -> None:
        self.prefix = prefix
        self.authority = authority
        self.journal = tallies.journal
        self.keys: dict[Kind, int] = {}
        """Where the keys lie that this generation of the journal has for the route."""
        self._tallies = tallies

    def key(self, kind: Kind, outcome: str, retries: int, *, truncated: bool, opened: bool) -> int:
        """Writes down the key for requests of a kind, before the first record that has it."""
        content = encode(Key(self.prefix, self.authority, outcome, retries, truncated, opened))
        at = self.journal.add_key(content)
        if at is None:
            self._tallies.make_room()
            at = self.journal.add_key(content)
            assert at is not None, "a key longer than all keys may be"  # noqa: S101 - no path of a request is so long
        if not self.keys:
            self._tallies.with_keys.append(self)
        self.keys[kind] = at
        return at

    def make_room(self) -> None:
        """To be called when the journal is full."""
        self._tallies.make_room()


class Tallies:
    """All tallies of a worker."""

    def __init__(self, journal: Journal, worker: str, started_s: float) -> None:
        """Takes a journal in which nothing is counted yet."""
        self.journal = journal
        self.with_keys: list[Tally] = []
        """Those that have keys in this generation of the journal."""
        self._worker = worker
        self._started_s = started_s
        self._sequence = 0
        self._offered: bytes | None = None
        self._offered_requests = 0
        self._rows: Rows = {}
        self._requests = 0
        """How many requests the rows have counted."""
        self._folded = RECORDS_AT
        """Up to where the records of this generation are in the rows."""

    @classmethod
    def open(cls, directory: Path, worker: str, started_s: float) -> "Tallies":
        """Keeps the journal in a file, or, where that cannot be, in memory, which is told in one line."""
        try:
            journal = Journal.create(directory, worker, encode(State(worker, started_s, 0, None, [])))
        except OSError as error:
            log.warning("statistics cannot be kept on disk, a worker that is killed takes its own along: %s", error)
            journal = Journal.in_memory()
        return cls(journal, worker, started_s)

    def tally(self, prefix: str, authority: str) -> Tally:
        """Returns what counts the requests of a route."""
        return Tally(prefix, authority, self)

    @property
    def unsent(self) -> int:
        """How many requests have been counted and are in no delta that is confirmed."""
        return self._offered_requests + self._requests + (self.journal.position - self._folded) // RECORD_BYTES

    def tick(self, now_s: float) -> None:
        """Folds what has been written down, so that the work does not pile up. `now_s` is Unix time."""
        self.journal.time_s = now_s
        if self.journal.position - self._folded >= FOLD_MIN:
            self._fold()

    def offer(self, now_s: float) -> bytes | None:
        """Returns the delta to be sent, in msgpack: the last one, unless that is confirmed, else the next.

        None where there is nothing to tell. `now_s` is Unix time.
        """
        if self._offered is None:
            self._fold()
            if not self._rows:
                return None
            self._sequence += 1
            self._offered = encode(delta(self._worker, self._started_s, self._sequence, now_s, self._rows))
            self._offered_requests = self._requests
            self._rows = {}
            self._requests = 0
            self._commit()
        return self._offered

    def confirm(self) -> None:
        """The delta that was offered has arrived."""
        self._offered = None
        self._offered_requests = 0

    def make_room(self) -> None:
        """Empties the journal: what it has is kept as rows."""
        self._fold()
        self._commit()

    def close(self) -> None:
        """Ends the journal. What is unsent stays in its file, for another worker to send."""
        if self.unsent:
            then = "the next worker here will tell" if self.journal.kept else "nobody will know"
            log.warning("%d requests have been counted and could not be told; %s", self.unsent, then)
            self.journal.leave()
        else:
            self.journal.give_up()

    def _fold(self) -> None:
        journal = self.journal
        records = journal.records(self._folded)
        if records:
            fold(records, lambda at: decode_key(journal.key_at(at)), self._rows)
            self._requests += len(records) // RECORD_BYTES
            self._folded = journal.position

    def _commit(self) -> None:
        """Begins a generation of the journal whose state has all that is counted."""
        rows = list(self._rows.values())
        try:
            self.journal.commit(encode(State(self._worker, self._started_s, self._sequence, self._offered, rows)))
        except OSError as error:
            log.warning("statistics are no longer kept on disk, a worker that is killed takes its own along: %s", error)
            self.journal.give_up()
            self.journal.commit(b"")
        self._folded = RECORDS_AT
        for tally in self.with_keys:
            tally.keys.clear()
        self.with_keys.clear()


def delta(worker: str, started_s: float, sequence: int, now_s: float, rows: Rows) -> StatisticsDelta:
    for row in rows.values():
        row.last_s = now_s
    return StatisticsDelta(worker, started_s, sequence, now_s, list(rows.values()))


def left_in(journal: Journal) -> list[bytes]:
    """Returns the deltas that a dead worker has left, in msgpack, in their order. The first may have arrived before.

    Raises OSError, and ValueError where the journal is damaged.
    """
    state = decode_state(journal.state())
    rows = {(row.prefix, row.authority): row for row in state.rows}
    fold(journal.records(), lambda at: decode_key(journal.key_at(at)), rows)
    deltas = [] if state.offered is None else [state.offered]
    if rows:
        deltas.append(encode(delta(state.worker, state.started_s, state.sequence + 1, journal.time_s, rows)))
    return deltas


class Leftover(NamedTuple):
    """The journal of a dead worker, claimed, and the deltas in it."""

    journal: Journal
    deltas: list[bytes]


class Leftovers:
    """What dead workers have left in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._told: set[Path] = set()
        """Files that cannot be had, which one line each has told."""

    def claim(self) -> list[Leftover]:
        """Claims the journals of all workers that are dead and removes those with nothing in them.

        One that is damaged is set aside, which a line tells.
        """
        found = []
        for path in journals(self._directory):
            journal = self._claimed(path)
            if journal is None:
                continue
            if journal.void:
                journal.give_up()
                continue
            try:
                deltas = left_in(journal)
            except Exception as error:
                log.error("%s is damaged and set aside: %s", path, error)  # noqa: TRY400 - a line, not a traceback
                with contextlib.suppress(OSError):  # mostly: another worker has, a moment earlier
                    journal.set_aside()
                continue
            if deltas:
                found.append(Leftover(journal, deltas))
            else:
                journal.give_up()
        return found

    def _claimed(self, path: Path) -> Journal | None:
        try:
            return Journal.claim(path)
        except (OSError, ValueError) as error:
            if path not in self._told:
                self._told.add(path)
                log.error("what a worker has counted cannot be read: %s: %s", path, error)  # noqa: TRY400 - one line
            return None
