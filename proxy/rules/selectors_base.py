"""What all selectors have in common: the candidates that they hold, what they are asked, and an array to draw from.

A candidate may be in several selectors at once (one for each tier and model). So where it stands in one of them lies in
that selector and not in the candidate. The figures of a candidate are its owner's: a selector reads them, and is told
of changes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

from proxy.config import KeyPool
from proxy.rules.credentials import Credential
from proxy.rules.recent_uses import RecentUses


class Candidate:
    """A credential as one worker chooses it: its published figures, and what this worker has added to them.

    `last_used_s` is in seconds since 1970, 0 for one never used; it is set before or with `requests`. Of tokens, None
    is not known. `recent_uses` belongs to the time-window selectors, which share it. Equal to nothing but itself.
    """

    __slots__ = ("id", "last_used_s", "recent_uses", "requests", "successes", "tokens_total", "tokens_used")

    def __init__(self, credential: Credential) -> None:
        self.id = credential.id
        self.requests = credential.requests
        self.successes = credential.successes
        self.last_used_s = credential.last_used_s
        self.tokens_used = credential.tokens_used
        self.tokens_total = credential.tokens_total
        self.recent_uses: RecentUses | None = None

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


class Place:
    """Where a candidate stands: the number of its bucket and its index there. `awaits_slot` is the time-window's."""

    __slots__ = ("awaits_slot", "index", "number")

    def __init__(self) -> None:
        self.number = self.index = 0
        self.awaits_slot: int | None = None


class Buckets:
    """Candidates in buckets by a number, each an array to draw from. All of it takes constant time.

    A bucket exists while something is in it. What leaves one changes its order: the last takes the free place.
    """

    __slots__ = ("by_number", "places")

    def __init__(self) -> None:
        self.by_number: dict[int, list[Candidate]] = {}
        self.places: dict[Candidate, Place] = {}

    def put(self, candidate: Candidate, number: int) -> bool:
        """Puts a candidate into a bucket and takes it out of the one that it was in; tells whether it was another."""
        place = self.places.get(candidate)
        if place is None:
            place = self.places[candidate] = Place()
        elif place.number == number:
            return False
        else:
            self._take_out(place)
        self._put_at(candidate, place, number)
        return True

    def move(self, candidate: Candidate, place: Place, number: int) -> None:
        """Does the same for one whose place is known."""
        if place.number != number:
            self._take_out(place)
            self._put_at(candidate, place, number)

    def _put_at(self, candidate: Candidate, place: Place, number: int) -> None:
        bucket = self.by_number.get(number)
        if bucket is None:
            bucket = self._new_bucket(number)
        place.number = number
        place.index = len(bucket)
        bucket.append(candidate)

    def _new_bucket(self, number: int) -> list[Candidate]:
        bucket = self.by_number[number] = []
        return bucket

    def discard(self, candidate: Candidate) -> None:
        place = self.places.pop(candidate, None)
        if place is not None:
            self._take_out(place)

    def _take_out(self, place: Place) -> None:
        bucket, index = self.by_number[place.number], place.index
        last = bucket.pop()
        if index < len(bucket):
            bucket[index] = last
            self.places[last].index = index
        elif not bucket:
            del self.by_number[place.number]

    def __len__(self) -> int:
        return len(self.places)

    def __contains__(self, candidate: Candidate) -> bool:
        return candidate in self.places
