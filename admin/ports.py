"""What the HTTP side of the control plane asks of the SQL side: the services, as far as they are seen from here.

`actor` is who asked for a change: `token`, or `session:` and the beginning of the session's name. Every change of
routes is one transaction with one new version of the configuration. What they refuse is in `services/failures.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from admin.rules.figures import Counters, Detail, Overview, Totals
from admin.rules.periods import Range
from proxy.config import Route
from proxy.shared_state.worker_state import WorkerState


class StoredRoute(Protocol):
    """A route as it lies in SQL; times in milliseconds since 1970 (UTC)."""

    @property
    def prefix(self) -> str: ...
    @property
    def route(self) -> Route: ...
    @property
    def created_at(self) -> int: ...
    @property
    def updated_at(self) -> int: ...


class Change(Protocol):
    """One difference between two versions; `before` is None for what was added, `after` for what was removed."""

    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def before(self) -> Any: ...
    @property
    def after(self) -> Any: ...


class VersionSummary(Protocol):
    """A version of the configuration, without what is in it."""

    @property
    def number(self) -> int: ...
    @property
    def created_at(self) -> int: ...
    @property
    def actor(self) -> str: ...
    @property
    def summary(self) -> str: ...


class Version(VersionSummary, Protocol):
    """A version, with the changes that led to it and the whole configuration after them."""

    @property
    def changes(self) -> Sequence[Change]: ...
    @property
    def document(self) -> Mapping[str, Any]: ...


class Action(Protocol):
    """One line of the log of what was done through the admin API."""

    @property
    def id(self) -> int: ...
    @property
    def at(self) -> int: ...
    @property
    def actor(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def action(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def detail(self) -> Mapping[str, Any]: ...
    @property
    def outcome(self) -> str: ...


class RoutesService(Protocol):
    """Routes. Whatever changes them returns the newest version, and raises ConfigError for what is unusable."""

    async def get(self, prefix: str) -> StoredRoute | None: ...

    async def search(self, q: str, after: str, limit: int) -> Sequence[StoredRoute]:
        """Routes with `q` in prefix or target, by prefix, those behind the prefix `after` only."""

    async def create(self, prefix: str, route: Route, actor: str) -> int:
        """Raises DuplicateRoute."""

    async def update(self, prefix: str, change: Callable[[Route], Route], actor: str) -> int:
        """Raises NoSuchRoute."""

    async def delete(self, prefix: str, actor: str) -> int:
        """Raises NoSuchRoute."""

    async def delete_many(self, prefixes: Sequence[str], actor: str) -> Sequence[str]:
        """Returns the prefixes that were there; the others are no error. Without any, there is no new version."""


class VersionsService(Protocol):
    async def newest(self) -> int:
        """The number of the newest version; 0 before the first."""

    async def list(self, after: int | None, limit: int) -> Sequence[VersionSummary]:
        """Newest first, those older than the version `after` only."""

    async def get(self, number: int) -> Version | None: ...

    async def diff(self, old: int, new: int) -> Sequence[Change]:
        """Raises NoSuchVersion."""

    async def roll_back(self, number: int, actor: str) -> int:
        """Makes a new version of the document of an old one. Raises NoSuchVersion."""


class SettingsService(Protocol):
    """Texts by name."""

    async def get(self, name: str) -> str | None: ...

    async def put(self, name: str, value: str) -> None: ...

    async def delete(self, name: str) -> None: ...


class ActionsService(Protocol):
    async def append(
        self, *, actor: str, address: str, action: str, target: str, detail: Mapping[str, Any], outcome: str
    ) -> None: ...

    async def list(
        self, *, after: int | None, limit: int, actor: str | None, action: str | None, since: int | None
    ) -> Sequence[Action]:
        """Newest first, those older than the action `after` only; `since` in milliseconds."""


class StatisticsService(Protocol):
    async def totals(self) -> Totals: ...

    async def overview(self, shown: Range, prefix: str | None) -> Overview:
        """`prefix` is whose graph is wanted; None: that of all."""

    async def detail(self, range_s: tuple[int, int] | None) -> Detail:
        """`range_s` in Unix time, widened to what is kept; None: all time."""

    async def counters(self) -> tuple[Counters | None, bool]:
        """The newest that are known, None where none ever were, and whether they are of now: else SQL is down."""


class Worker(Protocol):
    """A worker as it was last heard of, and whether that was just now."""

    @property
    def state(self) -> WorkerState: ...
    @property
    def alive(self) -> bool: ...


class WorkersService(Protocol):
    def all(self) -> Sequence[Worker]: ...

    def living(self) -> Sequence[WorkerState]: ...


class Stream(Protocol):
    """The way of events from workers to SQL, as it goes just now."""

    def lag(self) -> tuple[int, float] | None:
        """How many events wait, and for how many seconds the oldest has; None while nobody knows."""

    def requests_per_second(self) -> float:
        """Over the last ten seconds."""
