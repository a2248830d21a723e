"""What the admin API tells of access tokens, as it goes from SQL to whoever shows it. Plain values.

No token's text is among them, but where one has just been made. Times in milliseconds since 1970 (UTC).
"""

from typing import NamedTuple

import msgspec

from admin.rules.access_tokens import TokenTerms
from proxy.rules.access_tokens import State


class Quota(NamedTuple):
    """What remains of a quota, in the token's unit. Below zero, more was used than was foreseen."""

    remaining: int
    total: int


class StoredToken(msgspec.Struct, frozen=True, kw_only=True):
    """An access token, whose text `shown` has the ends of.

    `quota` is None where only time ends it; else it is that of `synced_at`, after change `sequence` of the counter, or,
    where `is_live`, what Redis has just now.
    """

    id: str
    digest: str
    shown: str
    terms: TokenTerms
    quota: Quota | None
    sequence: int
    synced_at: int | None
    revision: int
    created_at: int
    updated_at: int
    deleted_at: int | None
    is_live: bool = False


class Wanted(NamedTuple):
    """Which tokens are asked for: all that each of these is true of. Without a state: all that are not deleted."""

    ws_id: str | None = None
    email: str | None = None
    state: State | None = None


class Edited(NamedTuple):
    """A token after a change. `is_published`: Redis has it, so workers keep to it."""

    token: StoredToken
    is_published: bool


class Made(NamedTuple):
    """A new token, and its text, which nobody can read again."""

    edited: Edited
    text: str

    def __repr__(self) -> str:
        return f"Made({self.edited.token.id!r})"


class Span(NamedTuple):
    """From a time on, and until another one. None: without that end."""

    begin_ms: int | None = None
    end_ms: int | None = None


class QuotaLog(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a counter. `quota_*` and `total_after` are amounts of `unit`; `created_at` is as Redis told it.

    Of a request, `execution_success` is None until it has ended; `usage_mark` says what its amount rests on.
    """

    id: int
    sequence: int
    ws_id: str
    email: str
    quota_before: int
    quota_after: int
    quota_change: int
    total_after: int
    action: str
    unit: str | None = None
    request_id: str | None = None
    execution_success: bool | None = None
    execution_error_type: str | None = None
    execution_error_message: str | None = None
    usage_mark: str | None = None
    created_at: int


class CleanupStanding(msgspec.Struct, frozen=True, kw_only=True):
    """When old rows of the ledger are removed, and how many were. None: never."""

    enabled: bool
    retention_days: int
    interval_hours: int
    batch_rows: int
    last_at_ms: int | None
    last_rows: int
    total_rows: int
    next_at_ms: int | None
    is_running: bool
