"""What endpoints about keys ask of the SQL side, of the workers, and of tests and balances of keys. As `ports.py`.

A key is a credential of kind `key`. No record here holds its secret: only `export` and `reveal` give that away. Every
method takes its arguments by name; `actor` is who asked for the change. What they refuse is in `services/failures.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from admin.rules.balances import Day, Totals
from admin.rules.key_lists import NewCredential
from admin.rules.key_records import (
    GroupFigures,
    LineResult,
    Position,
    Status,
    StatusCounts,
    TestResult,
    UsePoint,
    Wanted,
)
from proxy.config import KeyPool, PoolGroup


class KeyRecord(Protocol):
    """A key without its secret. Times in milliseconds since 1970, None for never; of tokens, None is not known."""

    @property
    def id(self) -> str: ...
    @property
    def masked(self) -> str: ...
    @property
    def provider(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def status(self) -> Status: ...
    @property
    def notes(self) -> str: ...
    @property
    def created_at(self) -> int: ...
    @property
    def updated_at(self) -> int: ...
    @property
    def last_used_at(self) -> int | None: ...
    @property
    def requests(self) -> int: ...
    @property
    def successes(self) -> int: ...
    @property
    def errors(self) -> int: ...
    @property
    def last_error(self) -> str | None: ...
    @property
    def last_error_status(self) -> int | None: ...
    @property
    def last_error_at(self) -> int | None: ...
    @property
    def last_test_at(self) -> int | None: ...
    @property
    def last_test_result(self) -> TestResult: ...
    @property
    def banned_at(self) -> int | None: ...
    @property
    def banned_until(self) -> int | None: ...
    @property
    def ban_cause(self) -> str | None: ...
    @property
    def tokens_used(self) -> int | None: ...
    @property
    def tokens_total(self) -> int | None: ...
    @property
    def tokens_at(self) -> int | None: ...
    @property
    def tokens_begin(self) -> int | None: ...
    @property
    def tokens_end(self) -> int | None: ...
    @property
    def tokens_error(self) -> str | None: ...
    @property
    def tokens_error_at(self) -> int | None: ...


class CredentialsService(Protocol):
    """Keys. Whatever changes one tells workers of it. Raises NoSuchKey for an id that is not there."""

    async def create(self, *, secret: str, notes: str, group: str, actor: str) -> KeyRecord:
        """Raises DuplicateKey, NoSuchGroup."""

    async def create_many(self, *, keys: Sequence[NewCredential], actor: str) -> Sequence[LineResult]:
        """A result for each, in order. One of an unknown group is invalid; of one that comes twice, the second is a
        duplicate.
        """

    async def get(self, *, id: str) -> KeyRecord | None: ...  # noqa: A002 - the word for it

    async def list(
        self, *, wanted: Wanted, limit: int, after: Position | None = None, offset: int = 0
    ) -> Sequence[KeyRecord]:
        """Oldest first: those behind `after`, if it is given, without the first `offset`."""

    async def count(self, *, wanted: Wanted) -> int: ...

    async def update(
        self,
        *,
        id: str,  # noqa: A002
        actor: str,
        notes: str | None = None,
        group: str | None = None,
        status: Status | None = None,
    ) -> KeyRecord:
        """Changes what is given. One that is made active has its bans lifted. Raises NoSuchKey, NoSuchGroup."""

    async def delete(self, *, id: str, actor: str) -> None: ...  # noqa: A002

    async def delete_many(self, *, ids: Sequence[str], actor: str) -> Sequence[str]:
        """Returns the ids that were there; the others are no error."""

    async def delete_all_of(self, *, status: Status, actor: str) -> int:
        """Returns how many there were, of which there may be all."""

    async def export(self, *, status: Status | None, group: str | None) -> Sequence[str]:
        """The secrets, oldest key first."""

    async def reveal(self, *, id: str) -> str:  # noqa: A002
        """The secret of one key."""

    async def record_test(
        self,
        *,
        id: str,  # noqa: A002
        result: TestResult,
        problem: str | None,
        http_status: int,
        status: Status | None,
    ) -> None:
        """Notes a test that just ended, what failed in a word, and the status that it gives the key, if any."""


class PoolGroupsService(Protocol):
    """Pool groups, which are part of the versioned settings. `default` is always there; it cannot be deleted."""

    async def list(self) -> Sequence[GroupFigures]:
        """By priority, then by id, with how many keys each has."""

    async def create(self, *, id: str, group: PoolGroup, actor: str) -> GroupFigures:  # noqa: A002
        """Raises DuplicateGroup."""

    async def update(self, *, id: str, change: Callable[[PoolGroup], PoolGroup], actor: str) -> GroupFigures:  # noqa: A002
        """Raises NoSuchGroup."""

    async def delete(self, *, id: str, actor: str) -> int:  # noqa: A002
        """Moves its keys to `default`; returns how many. Raises NoSuchGroup, GroupInUse."""


class KeyPoolService(Protocol):
    """The settings of the key pool, which are part of the versioned configuration."""

    async def current(self) -> KeyPool: ...

    async def update(self, *, change: Callable[[KeyPool], KeyPool], actor: str) -> KeyPool:
        """Returns what they are then. Raises ConfigError for what is unusable."""


class KeyStatisticsService(Protocol):
    async def counts(self) -> StatusCounts: ...

    async def ranking(self, *, limit: int) -> Sequence[KeyRecord]:
        """Keys that were used, best first: by success rate, then by requests."""

    async def uses(self, *, period_s: int, since_s: int) -> Sequence[UsePoint]:
        """Attempts with all keys by hour or day, oldest first; slots without any may be missing."""


class Tested(Protocol):
    """A test of a key. `http_status` is 0 without an answer; `key_status` what the key is since then."""

    @property
    def result(self) -> TestResult: ...
    @property
    def http_status(self) -> int: ...
    @property
    def problem(self) -> str | None: ...
    @property
    def key_status(self) -> Status: ...


class TestProgress(Protocol):
    """A test of all keys, as far as it is; times in milliseconds since 1970."""

    @property
    def state(self) -> str: ...
    @property
    def total(self) -> int: ...
    @property
    def tested(self) -> int: ...
    @property
    def success(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def disabled(self) -> int: ...
    @property
    def banned(self) -> int: ...
    @property
    def started_at(self) -> int | None: ...
    @property
    def ended_at(self) -> int | None: ...


class KeyTestsService(Protocol):
    async def test(self, *, id: str) -> Tested:  # noqa: A002
        """Raises NoSuchKey, NoRouteForKey."""

    async def start(self) -> TestProgress:
        """Begins to test all keys. Raises TestsRunning."""

    def progress(self) -> TestProgress: ...

    async def cancel(self) -> TestProgress:
        """Ends it; what has been tested stays so. Without one running, nothing happens."""


class SyncProgress(Protocol):
    """A sync of balances, as far as it is; times in milliseconds since 1970."""

    @property
    def state(self) -> str: ...
    @property
    def total(self) -> int: ...
    @property
    def success(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def skipped(self) -> int: ...
    @property
    def started_at(self) -> int | None: ...
    @property
    def ended_at(self) -> int | None: ...


class BalanceSyncService(Protocol):
    async def start(self) -> SyncProgress:
        """Begins to ask about all keys but those that are disabled. Raises NoBalanceQuery, SyncRunning."""

    def progress(self) -> SyncProgress: ...

    async def cancel(self) -> SyncProgress:
        """Ends it; what has been read is kept. Without one running, nothing happens."""


class BalancesService(Protocol):
    """What providers said of keys' balances."""

    async def totals(self) -> Totals: ...

    async def history(self, *, since_s: int, id: str = ...) -> Sequence[Day]:  # noqa: A002
        """Days of one key, or of all, oldest first; days without a reading may be missing."""

    async def forget(self) -> int:
        """Removes days that are older than the settings keep them; returns how many rows."""


class Listener(Protocol):
    """One who hears the live log."""

    async def next(self) -> tuple[Sequence[Mapping[str, Any]], int] | None:
        """The lines that came meanwhile and how many were lost before them; none within a heartbeat; None: the end."""


class LiveLogService(Protocol):
    def listen(self, wanted: Callable[[Mapping[str, Any]], bool]) -> AbstractContextManager[Listener]:
        """Raises TooManyListeners."""

    def close(self) -> None:
        """Ends all listening."""


class Explainer(Protocol):
    async def explain(self, *, request_id: str) -> Mapping[str, Any] | None:
        """What the worker that had the request remembers of it; None where nobody does. Raises WorkersNotAsked."""

    async def latest(self) -> Sequence[Mapping[str, Any]]:
        """A line of each of the latest requests that workers remember, newest first. Raises WorkersNotAsked."""
