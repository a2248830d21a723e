"""How keys are shown: by the names that reference 001 has for what is known of a key, and never whole."""

import time

import msgspec

from admin.answers import Answer
from admin.key_ports import KeyRecord
from admin.rules.key_records import percent, weight_score


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """A key; `key` is its ends only. Times in milliseconds since 1970, null for never; rates in percent.

    `usage_count` and `total_requests` are the same. `banned_reason` is a word; `banned_until` is when the ban ends.
    """

    id: str
    key: str
    provider: str
    pool_group: str = msgspec.field(name="poolGroup")
    status: str
    notes: str
    created_at: int
    updated_at: int
    last_used_at: int | None
    usage_count: int
    total_requests: int
    success_requests: int
    error_count: int
    success_rate: float
    weight_score: float
    last_error: str | None
    last_error_status: int | None
    last_error_at: int | None
    last_test_at: int | None
    last_test_result: str
    banned_at: int | None
    banned_until: int | None
    banned_reason: str | None
    tokens_used: int | None
    tokens_total: int | None


class OneKey(Answer, frozen=True, kw_only=True):
    data: KeyView


class ChangedKey(Answer, frozen=True, kw_only=True):
    """A key as it is now."""

    message: str
    data: KeyView


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def view(record: KeyRecord) -> KeyView:
    return KeyView(
        id=record.id,
        key=record.masked,
        provider=record.provider,
        pool_group=record.group,
        status=record.status,
        notes=record.notes,
        created_at=record.created_at,
        updated_at=record.updated_at,
        last_used_at=record.last_used_at,
        usage_count=record.requests,
        total_requests=record.requests,
        success_requests=record.successes,
        error_count=record.errors,
        success_rate=percent(record.successes, record.requests),
        weight_score=weight_score(record.requests, record.successes, record.last_used_at, now_ms()),
        last_error=record.last_error,
        last_error_status=record.last_error_status,
        last_error_at=record.last_error_at,
        last_test_at=record.last_test_at,
        last_test_result=record.last_test_result,
        banned_at=record.banned_at,
        banned_until=record.banned_until,
        banned_reason=record.ban_cause,
        tokens_used=record.tokens_used,
        tokens_total=record.tokens_total,
    )
