"""How access tokens are shown: by the names of reference 002, and never whole but in the answer that made one."""

import time
from typing import Any

import msgspec

from admin.flow_answers import FlowAnswer, text_of, text_or_none
from admin.rules.access_tokens import QuotaType
from admin.rules.token_records import StoredToken
from proxy.rules.access_tokens import OnStoreOutage, State, Unit

WINDOW_S = 60


class QuotaView(msgspec.Struct, frozen=True, kw_only=True):
    """A quota, in `unit`; null where only time ends the token.

    `live` says that it is what holds just now; else it is that of `quota_synced_at`, when SQL was last told. What
    remains is below zero where more was used than was foreseen.
    """

    quota_type: QuotaType
    unit: Unit | None
    total_quota: int | None
    remaining_quota: int | None
    consumed_quota: int
    quota_synced_at: str | None
    live: bool


class TokenView(QuotaView, frozen=True, kw_only=True):
    """An access token. `access_token` is whole only where it has just been made, and its ends everywhere else.

    Times are in UTC; `expires_at` is null where it does not end. A bound that is null is none. Empty lists of routes,
    models and client networks allow all. `is_active` says whether the token opens anything now, quota apart.
    """

    id: str
    ws_id: str
    email: str
    access_token: str
    state: State
    is_active: bool
    created_at: str
    updated_at: str
    expires_at: str | None
    deleted_at: str | None
    rate_limit_per_minute: int | None
    rate_limit_burst: int | None
    rate_limit_window_seconds: int = WINDOW_S
    concurrent: int | None
    routes: list[str]
    models: list[str]
    networks: list[str]
    refunds: bool
    on_store_outage: OnStoreOutage


class OneToken(FlowAnswer, frozen=True, kw_only=True):
    """A token as it is now."""

    data: TokenView


class OneQuota(FlowAnswer, frozen=True, kw_only=True):
    data: QuotaView


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def quota_view(token: StoredToken) -> QuotaView:
    return QuotaView(**_quota(token))


def view(token: StoredToken, text: str | None = None) -> TokenView:
    """Of a token, and of its text, where it has just been made."""
    terms = token.terms
    is_over = terms.expires_at is not None and terms.expires_at <= now_ms()
    return TokenView(
        id=token.id,
        ws_id=terms.ws_id,
        email=terms.email,
        access_token=token.shown if text is None else text,
        state=terms.state,
        is_active=terms.state is State.ACTIVE and not is_over,
        created_at=text_of(token.created_at),
        updated_at=text_of(token.updated_at),
        expires_at=text_or_none(terms.expires_at),
        deleted_at=text_or_none(token.deleted_at),
        rate_limit_per_minute=terms.per_minute or None,
        rate_limit_burst=terms.per_second or None,
        concurrent=terms.concurrent or None,
        routes=list(terms.routes),
        models=list(terms.models),
        networks=list(terms.networks),
        refunds=terms.refunds,
        on_store_outage=terms.on_store_outage,
        **_quota(token),
    )


def _quota(token: StoredToken) -> dict[str, Any]:
    quota = token.quota
    return {
        "quota_type": token.terms.quota_type,
        "unit": token.terms.unit,
        "total_quota": None if quota is None else quota.total,
        "remaining_quota": None if quota is None else quota.remaining,
        # What was set by hand may be more than the quota.
        "consumed_quota": 0 if quota is None else max(0, quota.total - quota.remaining),
        "quota_synced_at": text_or_none(token.synced_at),
        "live": token.is_live,
    }
