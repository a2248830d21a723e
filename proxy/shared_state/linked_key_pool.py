"""What a link to Redis needs of its worker's key pool, and offers to it; and the key pool of a worker that has none.

Nothing here needs redis-py: workers without a Redis do not load it.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from proxy.rules.credentials import Ban, Credential
from proxy.shared_state.credential_events import BanChange, CredentialCounts


class Put(NamedTuple):
    """What came of a compare-and-set of a ban, and which is there now."""

    won: bool
    there: Ban | None


class SharedBans(Protocol):
    """Where all workers' bans lie (`bans.BanStore`)."""

    async def put(self, credential: str, model: str, expected: Ban | None, new: Ban | None) -> Put: ...


class CredentialUser(Protocol):
    """Who is told of credentials and bans. All calls come from the event loop; none may raise, or take long.

    A credential's ban may be told before the credential, and a change more than once.
    """

    complete: bool
    """Set once all that is published has been told, or it is known that nothing is."""

    def credentials_changed(self, changed: Sequence[Credential], gone: Sequence[str], /) -> None:
        """Takes some hundreds at most that are new or other ones, and ids of those that are gone, bans and all."""

    def ban_changed(self, credential: str, model: str, ban: Ban | None, /) -> None:
        """Takes a ban as it is in Redis; None: there is none."""


class CredentialFigures(Protocol):
    """What was asked with credentials. What has been taken is the taker's to tell."""

    def take_counts(self) -> list[CredentialCounts]: ...

    def take_bans(self) -> list[BanChange]: ...


class LinkedKeyPool(CredentialUser, Protocol):
    """The key pool of a worker. `version` is the number of the published configuration that it is to use."""

    version: int

    @property
    def figures(self) -> CredentialFigures: ...

    def share(self, store: SharedBans, unavailable: type[Exception], /) -> None:
        """Has bans written to a store that others read too, and that raises `unavailable` where it cannot be asked."""
