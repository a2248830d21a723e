"""The journal of a worker: a record of each request that it has counted and not handed on, in a file that outlives it.

The beginning of the file is mapped into memory. A record is written there without a system call, and is there after
`kill -9`: the kernel has it, and brings it to the disk in its own time, so that only the machine's own end can take it.

| at | what |
| --- | --- |
| 0 | `MAGIC` |
| 8 | the generation (u32); 0 means that there is nothing in this file |
| 16 | Unix time of the worker's last tick (float) |
| 24, 40 | where the state lies with which the even and the odd generations began: offset and length (u64 each) |
| 64 | records (`rules/records.py`), valid up to the first of another generation |
| `KEYS_AT` | what the records' keys stand for: length (u32) and content, one after the other |
| `MAPPED_BYTES` | the two states, of any length |

The law: a generation is the state that it began with and its records. `commit` takes a state that has both in it,
writes it where nothing lies that counts, and then raises the generation, by a store of four bytes. Before that store
the old state and the records are valid, after it the new state and no record; there is nothing in between.

A worker holds a lock (flock) on its journal while it lives. A journal that can be locked is that of a dead one, and
whoever has locked it hands on what is in it.
"""

import contextlib
import errno
import fcntl
import mmap
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from proxy.rules.records import RECORD_BYTES, valid_bytes

MAGIC = b"rgstats1"
GENERATION_WORD = 2
TIME_FLOAT = 2
PLACES_AT = 24
PLACE = struct.Struct("@QQ")
LENGTH = struct.Struct("@I")
RECORDS_AT = 64
RECORDS_MAX = 32_768
KEYS_AT = RECORDS_AT + RECORDS_MAX * RECORD_BYTES
MAPPED_BYTES = 2 * 1024 * 1024

SUFFIX = ".journal"
UNFINISHED = ".unfinished"
UNREADABLE = ".unreadable"
ABANDONED_S = 60.0
"""How old the file of a journal is that nobody goes on to make."""


class Journal:
    """A journal in memory, and in a file if it has one.

    Who counts a request writes its record to `area` at `position`, with `generation`, moves `position` on, and has room
    made once that is above `limit`.
    """

    __slots__ = ("_descriptor", "_floats", "_keys_end", "_path", "_words", "area", "generation", "limit", "position")

    def __init__(self, area: mmap.mmap, descriptor: int | None = None, path: Path | None = None) -> None:
        self.area = area
        self.limit = KEYS_AT - RECORD_BYTES
        # One store each: `struct` would write zeros first.
        self._words = memoryview(area).cast("I")
        self._floats = memoryview(area).cast("d")
        self._descriptor = descriptor
        self._path = path
        self.generation = self._words[GENERATION_WORD]
        self.position = RECORDS_AT
        self._keys_end = KEYS_AT

    @classmethod
    def in_memory(cls) -> "Journal":
        """Returns a journal that dies with its process."""
        journal = cls(mmap.mmap(-1, MAPPED_BYTES))
        journal.commit(b"")
        return journal

    @classmethod
    def create(cls, directory: Path, name: str, state: bytes) -> "Journal":
        """Returns a new journal, locked and with its first state. Raises OSError."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = directory / f"{name}{UNFINISHED}"
        path = directory / f"{name}{SUFFIX}"
        descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(unfinished.unlink, missing_ok=True)
            on_failure.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A page that the disk has no room for would kill the process when it is written to.
            os.posix_fallocate(descriptor, 0, MAPPED_BYTES)
            area = mmap.mmap(descriptor, MAPPED_BYTES)
            area[: len(MAGIC)] = MAGIC
            PLACE.pack_into(area, place_at(0), MAPPED_BYTES, 0)
            journal = cls(area, descriptor, path)
            journal.commit(state)
            unfinished.rename(path)
            on_failure.pop_all()
        return journal

    @classmethod
    def claim(cls, path: Path) -> "Journal | None":
        """Returns the journal of a worker that is dead, locked; None of one that lives, or that is gone.

        Raises OSError, and ValueError for a file that is no journal.
        """
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return None
        with contextlib.ExitStack() as unless_claimed:
            unless_claimed.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            status = os.fstat(descriptor)
            if status.st_nlink == 0:  # somebody has handed it on between
                return None
            if status.st_size < MAPPED_BYTES or os.pread(descriptor, len(MAGIC), 0) != MAGIC:
                raise ValueError("not a journal of this version")
            journal = cls(mmap.mmap(descriptor, MAPPED_BYTES), descriptor, path)
            journal.position += valid_bytes(memoryview(journal.area)[RECORDS_AT:KEYS_AT], journal.generation)
            unless_claimed.pop_all()
        return journal

    def commit(self, state: bytes) -> None:
        """Begins the next generation, with a state that has all in it that this one has.

        Raises OSError where it cannot be written; then nothing has changed.
        """
        generation = self.generation + 1
        if self._descriptor is not None:
            start, length = PLACE.unpack_from(self.area, place_at(self.generation))
            at = MAPPED_BYTES if MAPPED_BYTES + len(state) <= start else start + length
            if os.pwrite(self._descriptor, state, at) != len(state):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            PLACE.pack_into(self.area, place_at(generation), at, len(state))
            self._words[GENERATION_WORD] = generation
        self.generation = generation
        self.position = RECORDS_AT
        self._keys_end = KEYS_AT

    def state(self) -> bytes:
        """Returns the state that this generation began with. Only of a journal that has a file; raises OSError."""
        assert self._descriptor is not None  # noqa: S101 - said above
        start, length = PLACE.unpack_from(self.area, place_at(self.generation))
        return os.pread(self._descriptor, length, start)

    def records(self, since: int = RECORDS_AT) -> bytes:
        """Returns the records from a position on."""
        return self.area[since : self.position]

    def add_key(self, content: bytes) -> int | None:
        """Writes down what a key stands for; returns where it lies, None if there is no room."""
        at = self._keys_end
        end = at + LENGTH.size + len(content)
        if end > MAPPED_BYTES:
            return None
        LENGTH.pack_into(self.area, at, len(content))
        self.area[at + LENGTH.size : end] = content
        self._keys_end = end
        return at

    def key_at(self, at: int) -> bytes:
        """Returns what the key at a place stands for. Raises ValueError where no key can lie."""
        if not KEYS_AT <= at <= MAPPED_BYTES - LENGTH.size:
            raise ValueError("a record without a key")
        (length,) = LENGTH.unpack_from(self.area, at)
        return self.area[at + LENGTH.size : at + LENGTH.size + length]

    @property
    def time_s(self) -> float:
        """Unix time of the last tick."""
        return self._floats[TIME_FLOAT]

    @time_s.setter
    def time_s(self, now_s: float) -> None:
        self._floats[TIME_FLOAT] = now_s

    @property
    def kept(self) -> bool:
        """Whether it is in a file, and so outlives its process."""
        return self._descriptor is not None

    @property
    def void(self) -> bool:
        """Whether nothing counts that is in it."""
        return self.generation == 0

    def give_up(self) -> None:
        """Goes on without the file, which counts for nothing any more."""
        self._words[GENERATION_WORD] = 0
        with contextlib.suppress(OSError):
            self.remove()
        self.leave()

    def remove(self) -> None:
        """Removes the file, and frees the lock. Raises OSError."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        self.leave()

    def set_aside(self) -> None:
        """Renames the file, so that nobody claims it again, and frees the lock. Raises OSError."""
        try:
            if self._path is not None:
                self._path.rename(self._path.with_suffix(UNREADABLE))
        finally:
            self.leave()

    def leave(self) -> None:
        """Frees the lock, and leaves the file to whoever claims it."""
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
        self._descriptor = self._path = None


def place_at(generation: int) -> int:
    return PLACES_AT + generation % 2 * PLACE.size


def journals(directory: Path) -> Iterator[Path]:
    """The journals of all workers that have one here. Removes what workers left that died while they made one."""
    for path in sorted(directory.glob(f"*{UNFINISHED}")):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED_S:
                path.unlink()
    yield from sorted(directory.glob(f"*{SUFFIX}"))
