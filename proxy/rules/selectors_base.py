"""What all selectors have in common: the candidates that they hold, what they are asked, and an array to draw from.

A candidate may be in several selectors at once (one for each tier and model). So where it stands in one of them lies in
that selector and not in the candidate. The figures of a candidate are its owner's: a selector reads them, and is told
of changes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import msgspec

from proxy.config import KeyPool
from proxy.rules.credentials import Credential
from proxy.rules.headers import Header
from proxy.rules.recent_uses import RecentUses


class Candidate:
    """A credential as one worker chooses it: its published figures, and what this worker has added to them.

    `last_used_s` is in seconds since 1970, 0 for one never used; it is set before or with `requests`. Of tokens, None
    is not known. `recent_uses` belongs to the time-window selectors, which share it. Equal to nothing but itself.
    """

    __slots__ = (
        "id",
        "is_used",
        "last_used_s",
        "recent_uses",
        "requests",
        "shown",
        "successes",
        "tokens_total",
        "tokens_used",
    )

    def __init__(self, credential: Credential) -> None:
        self.id = credential.id
        self.requests = credential.requests
        self.successes = credential.successes
        self.last_used_s = credential.last_used_s
        self.tokens_used = credential.tokens_used
        self.tokens_total = credential.tokens_total
        self.recent_uses: RecentUses | None = None
        self.shown: Header | None = None
        self.is_used = False

    def __repr__(self) -> str:
        return f"Candidate({self.id!r})"


class Selector(ABC):
    """A set of candidates and an order, or odds, to choose among them. Neither clock nor randomness of its own."""

    def __init__(self, settings: KeyPool) -> None:  # noqa: B027 - an argument that most need not look at
        """Takes the settings of the key pool."""

    @abstractmethod
    def add(self, candidate: Candidate) -> None:
        """Adds a candidate; one that is there already is only looked at again."""

    @abstractmethod
    def remove(self, candidate: Candidate) -> None:
        """Takes a candidate out, if it is there."""

    def changed(self, candidate: Candidate) -> None:  # noqa: B027 - most need not know
        """Is called after the figures of a candidate changed: after each use, and when they are published anew.

        Nothing happens for one that is not there.
        """

    @abstractmethod
    def choose(self, now_s: float, random01: Callable[[], float], affinity: bytes | None) -> Candidate | None:
        """Returns a candidate, None where there is none. `random01` gives numbers from [0, 1).

        `affinity` names what should meet the same candidate again, such as a conversation.
        """

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __contains__(self, candidate: Candidate) -> bool: ...


class Place(msgspec.Struct, eq=False, gc=False):
    """Where a candidate stands: the number of its bucket and its index there, -1 once it has gone. `awaits_slot` is the
    time-window's.

    It is out of the garbage collector's sight, which 100,000 would stop for long; there is no way back to it from here.
    """

    candidate: Candidate
    number: int = 0
    index: int = 0
    awaits_slot: int | None = None


class Buckets:
    """Candidates in buckets by a number, each an array of their places to draw from. All of it takes constant time.

    A bucket exists while something is in it. What leaves one changes its order: the last takes the free place.
    """

    __slots__ = ("by_number", "places")

    def __init__(self) -> None:
        self.by_number: dict[int, list[Place]] = {}
        self.places: dict[Candidate, Place] = {}

    def place(self, candidate: Candidate, guess: Place | None) -> Place | None:
        """Returns the place of a candidate, None where it has none. With 100,000, a look at a guess costs much less."""
        if guess is not None and guess.candidate is candidate and guess.index >= 0:
            return guess
        return self.places.get(candidate)

    def put(self, candidate: Candidate, number: int) -> bool:
        """Puts a candidate into a bucket and takes it out of the one that it was in; tells whether it was another."""
        place = self.places.get(candidate)
        if place is None:
            place = self.places[candidate] = Place(candidate)
            self._put_at(place, number)
            return True
        return self.move(place, number)

    def move(self, place: Place, number: int) -> bool:
        """Does the same for one that has a place."""
        if place.number == number:
            return False
        self._take_out(place)
        self._put_at(place, number)
        return True

    def _put_at(self, place: Place, number: int) -> None:
        bucket = self.by_number.get(number)
        if bucket is None:
            bucket = self._new_bucket(number)
        place.number = number
        place.index = len(bucket)
        bucket.append(place)

    def _new_bucket(self, number: int) -> list[Place]:
        bucket = self.by_number[number] = []
        return bucket

    def discard(self, candidate: Candidate) -> None:
        place = self.places.pop(candidate, None)
        if place is not None:
            self._take_out(place)
            place.index = -1
            place.awaits_slot = None

    def _take_out(self, place: Place) -> None:
        bucket, index = self.by_number[place.number], place.index
        last = bucket.pop()
        if index < len(bucket):
            bucket[index] = last
            last.index = index
        elif not bucket:
            del self.by_number[place.number]

    def __len__(self) -> int:
        return len(self.places)

    def __contains__(self, candidate: Candidate) -> bool:
        return candidate in self.places
