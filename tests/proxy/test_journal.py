"""A journal has at every moment either a generation whole, or the next one; and one owner."""

import os
import shutil
import struct
import time
from pathlib import Path

import pytest

from proxy.journal import (
    ABANDONED_S,
    KEYS_AT,
    MAPPED_BYTES,
    RECORDS_AT,
    RECORDS_MAX,
    UNFINISHED,
    Journal,
    journals,
)
from proxy.rules.records import RECORD, RECORD_BYTES

GENERATION_AT = 8


def write(journal: Journal, number: int = 1) -> bytes:
    """Writes records; returns them."""
    record = RECORD.pack(number, 0, 0.0, 0.0, 0.0, 0.0, KEYS_AT, journal.generation)
    for _ in range(number):
        journal.area[journal.position : journal.position + RECORD_BYTES] = record
        journal.position += RECORD_BYTES
    return record * number


def killed(journal: Journal, directory: Path) -> Path:
    """The journal's file as it would be if its worker were killed now."""
    (path,) = journals(directory)
    dead = directory / "dead"
    dead.mkdir(exist_ok=True)
    copy = dead / path.name
    copy.unlink(missing_ok=True)
    shutil.copy(path, copy)
    assert journal.kept
    return copy


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def claimed(path: Path) -> Journal:
    journal = Journal.claim(path)
    assert journal is not None
    return journal


def found(path: Path) -> tuple[bytes, bytes]:
    """The state and the records that a dead worker left."""
    journal = claimed(path)
    state, records = journal.state(), journal.records()
    journal.leave()
    return state, records


def test_what_is_written_is_there_when_its_worker_is_not(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, "w", b"first")
    assert found(killed(journal, tmp_path)) == (b"first", b"")
    records = write(journal, 3)
    key = journal.add_key(b"name")
    assert key is not None
    journal.time_s = 2.5
    left = claimed(killed(journal, tmp_path))
    assert (left.state(), left.records(), left.key_at(key), left.time_s) == (b"first", records, b"name", 2.5)
    left.leave()


@pytest.mark.parametrize("lengths", [[0], [5, 5, 5, 5], [5, 100, 3, 100_000, 1, 1, 1], list(range(1, 40))])
def test_a_generation_begins_with_its_state_and_no_record(tmp_path: Path, lengths: list[int]) -> None:
    journal = Journal.create(tmp_path, "w", b"")
    for number, length in enumerate(lengths):
        write(journal, 2)
        journal.add_key(b"name")
        state = bytes([number]) * length
        journal.commit(state)
        assert found(killed(journal, tmp_path)) == (state, b"")
        assert journal.add_key(b"name") == KEYS_AT
    (path,) = journals(tmp_path)
    assert path.stat().st_size <= MAPPED_BYTES + 3 * max(lengths) + 1


def test_a_state_that_was_written_counts_only_with_its_generation(tmp_path: Path) -> None:
    """Killed between the two, a worker leaves what it had before."""
    journal = Journal.create(tmp_path, "w", b"first")
    journal.commit(b"second")
    records = write(journal, 2)
    before = found(killed(journal, tmp_path))
    generation = journal.generation
    journal.commit(b"third, and longer")
    path = killed(journal, tmp_path)
    with path.open("r+b") as file:
        file.seek(GENERATION_AT)
        file.write(struct.pack("@I", generation))
    assert found(path) == before == (b"second", records)


def test_a_record_that_was_not_written_whole_does_not_count(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, "w", b"")
    records = write(journal, 2)
    path = killed(journal, tmp_path)
    with path.open("r+b") as file:
        file.seek(RECORDS_AT + 2 * RECORD_BYTES - 4)
        file.write(bytes(4))
    assert found(path)[1] == records[:RECORD_BYTES]


def test_a_journal_that_is_full_is_read_to_its_end(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, "w", b"")
    write(journal, RECORDS_MAX - 1)
    assert journal.position <= journal.limit
    write(journal)
    assert journal.position > journal.limit
    assert len(found(killed(journal, tmp_path))[1]) == RECORDS_MAX * RECORD_BYTES


def test_keys_end_where_the_memory_does(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, "w", b"")
    content = bytes(50_000)
    places = []
    while (at := journal.add_key(content)) is not None:
        places.append(at)
    assert len(places) == (MAPPED_BYTES - KEYS_AT) // 50_004
    assert all(journal.key_at(at) == content for at in places)
    for at in (0, KEYS_AT - 1, MAPPED_BYTES - 3):
        with pytest.raises(ValueError, match="without a key"):
            journal.key_at(at)


def test_only_the_dead_are_claimed_and_by_one(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, "w", b"")
    (path,) = journals(tmp_path)
    assert Journal.claim(path) is None
    journal.leave()
    one = claimed(path)
    assert Journal.claim(path) is None
    one.leave()
    again = claimed(path)
    again.remove()
    assert Journal.claim(path) is None
    assert list(tmp_path.iterdir()) == []


def test_one_that_was_removed_while_it_was_waited_for_is_not_claimed(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, "w", b"")
    (path,) = journals(tmp_path)
    with path.open("rb") as held:
        journal.remove()
        assert Journal.claim(Path(f"/proc/self/fd/{held.fileno()}")) is None


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.journal"
    descriptors = open_files()
    for content in (b"", b"rgstats1", b"rgstats0" + bytes(MAPPED_BYTES)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a journal"):
            Journal.claim(path)
    assert open_files() == descriptors


def test_one_that_is_given_up_counts_for_nothing_and_goes_on_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal.create(tmp_path, "w", b"state")
    write(journal)
    (path,) = journals(tmp_path)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(PermissionError()))
    journal.give_up()
    journal.commit(b"another")
    records = write(journal)
    assert journal.records() == records
    assert not journal.kept
    left = claimed(path)
    assert left.void
    left.leave()


def test_a_state_that_has_no_room_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal.create(tmp_path, "w", b"state")
    records = write(journal)
    monkeypatch.setattr(os, "pwrite", lambda _descriptor, data, _at: len(data) - 1)
    with pytest.raises(OSError, match="No space"):
        journal.commit(b"another")
    assert journal.records() == records
    assert found(killed(journal, tmp_path)) == (b"state", records)


def test_a_journal_that_cannot_be_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    descriptors = open_files()
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        Journal.create(tmp_path / "new", "w", b"")
    assert list((tmp_path / "new").iterdir()) == []
    assert open_files() == descriptors


def test_what_nobody_goes_on_to_make_is_removed(tmp_path: Path) -> None:
    old, young = tmp_path / f"old{UNFINISHED}", tmp_path / f"young{UNFINISHED}"
    old.touch()
    young.touch()
    os.utime(old, (0, time.time() - ABANDONED_S - 1))
    assert list(journals(tmp_path)) == []
    assert list(tmp_path.iterdir()) == [young]


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    Journal.create(tmp_path / "statistics", "w", b"")
    (path,) = journals(tmp_path / "statistics")
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_in_memory_all_goes_on() -> None:
    journal = Journal.in_memory()
    records = write(journal, 2)
    assert (journal.records(), journal.kept) == (records, False)
    journal.commit(b"")
    assert journal.records() == b""
    journal.leave()
