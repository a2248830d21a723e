"""What endpoints about access tokens ask of the SQL side and, through it, of Redis. As `ports.py`.

What they refuse is in `services/failures.py`, and InvalidToken.
"""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

from admin.rules.access_tokens import NewToken, TokenChange
from admin.rules.token_records import CleanupStanding, Edited, Made, QuotaLog, Span, StoredToken, Wanted


class TokensService(Protocol):
    """Access tokens. Whatever changes one waits a moment until workers are to keep to it."""

    async def create(self, *, new: NewToken) -> Made:
        """Raises InvalidToken."""

    async def find(self, *, name: str) -> StoredToken | None:
        """The token of an id, or of a token's own text; also a deleted one."""

    async def list(self, *, wanted: Wanted, limit: int, offset: int = 0) -> Sequence[StoredToken]:
        """Newest first."""

    async def count(self, *, wanted: Wanted) -> int: ...

    async def live(self, *, tokens: Sequence[StoredToken]) -> Sequence[StoredToken]:
        """The same, with their quotas as Redis has them just now, as far as it can be asked and has them."""

    async def update(self, *, id: str, change: TokenChange, request_id: str) -> Edited:  # noqa: A002 - the word for it
        """The same `request_id` again does not change a quota twice.

        Raises NoSuchToken, InvalidToken, CounterAway, QuotaTooLarge.
        """

    async def delete(self, *, id: str) -> Edited:  # noqa: A002
        """Raises NoSuchToken."""


class QuotaLogsService(Protocol):
    """The ledger of an access token's quota."""

    async def list(self, *, token: str, span: Span, limit: int, offset: int = 0) -> Sequence[QuotaLog]:
        """Of a token (its id), newest first."""

    async def count(self, *, token: str, span: Span) -> int: ...


class LedgerExportService(Protocol):
    """The ledger as CSV."""

    def csv(self, *, token: str | None, span: Span) -> AsyncIterator[str]:
        """A header, and the rows of a token (its id), oldest first, or of all."""


class LedgerStream(Protocol):
    """The ledger's stream, as it goes just now."""

    def lag(self) -> tuple[int, float] | None:
        """How many entries wait, and for how many seconds the oldest has; None while nobody knows."""


class LedgerQueue(NamedTuple):
    """The way of the ledger from Redis to SQL: how far it is behind, how often it is looked at, and for how much."""

    stream: LedgerStream
    poll_s: float
    entries_max: int


class CleanupService(Protocol):
    """The removal of old rows of the ledger."""

    def trigger(self) -> bool:
        """Has it begun, and returns True; False where it runs already."""

    async def standing(self) -> CleanupStanding: ...
