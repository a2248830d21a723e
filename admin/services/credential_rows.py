"""A credential as it lies in SQL and as operators see it: everything but its secret."""

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, and_, func, or_

from admin.rules.credential_marks import KEY_PREFIX
from admin.rules.key_records import Status, TestResult
from admin.tables import credentials
from proxy.rules.credentials import BanCause, Kind

_ROW = credentials.c


IS_KEY = func.substr(_ROW.id, 1, len(KEY_PREFIX)) == KEY_PREFIX
"""Whether it is a key, and no token of OAuth: told by the id, which every index of a list has in it. As a comparison of
the id itself, SQLite would take the index of ids for it, and sort."""


class StoredCredential(msgspec.Struct, frozen=True, kw_only=True):
    """A credential without its secret, of which `masked` shows the ends. Times in milliseconds since 1970 (UTC).

    `ban_*` are of the last ban for all models, which has ended if `banned_until` is past. Of tokens, None is not known;
    they are what the provider said at `tokens_at`, and `tokens_error` why it said nothing later.
    """

    id: str
    masked: str
    provider: str
    group: str
    kind: Kind
    status: Status
    notes: str
    created_at: int
    updated_at: int
    last_used_at: int | None
    requests: int
    successes: int
    errors: int
    last_error: str | None
    last_error_status: int | None
    last_error_at: int | None
    last_test_at: int | None
    last_test_result: TestResult
    banned_at: int | None
    ban_cause: BanCause | None
    banned_until: int | None
    ban_status: int | None
    tokens_used: int | None
    tokens_total: int | None
    tokens_at: int | None
    tokens_begin: int | None
    tokens_end: int | None
    tokens_error: str | None
    tokens_error_at: int | None


_COLUMN_NAMES = {"group": "pool_group"}
COLUMNS = tuple(_ROW[_COLUMN_NAMES.get(name, name)] for name in StoredCredential.__struct_fields__)
"""In the order of StoredCredential's fields."""


def stored(row: Row[Any], now_ms: int) -> StoredCredential:
    fields = dict(zip(StoredCredential.__struct_fields__, row, strict=True))
    fields["status"] = status_of(fields["status"], fields["banned_until"], now_ms)
    return msgspec.convert(fields, StoredCredential)


def status_of(status: str, banned_until: int | None, now_ms: int) -> Status:
    """What a row's columns amount to."""
    banned = status == Status.ACTIVE and (banned_until or 0) > now_ms
    return Status.BANNED if banned else Status(status)


def has_status(
    status: Status,
    now_ms: int,
    state: ColumnElement[str] = _ROW.status,
    until: ColumnElement[int | None] = _ROW.banned_until,
) -> ColumnElement[bool]:
    """Of a row: what it has to be. `state` and `until` are its two columns."""
    if status is Status.DISABLED:
        return state == Status.DISABLED
    active = state == Status.ACTIVE
    if status is Status.BANNED:
        return and_(active, until > now_ms)
    return and_(active, or_(until.is_(None), until <= now_ms))
