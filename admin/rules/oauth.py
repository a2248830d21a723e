"""The OAuth credential: which refresh token counts, when it is used, what an answer to it means.

A **chain** is what one refresh token began: each answer brings the next one, and spends the one that was sent (RFC 6749
section 6, RFC 9700 section 4.14.2). A spent one that is sent again can cost the whole chain, so the digests of those
that a chain has spent are kept, and a source that holds one of them is a source that has been overtaken.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, NamedTuple, TypeGuard

import msgspec

REFRESH_AT_AGE_MS = 6 * 3600 * 1000
ASSUMED_LIFE_MS = 8 * 3600 * 1000
"""Of an access token whose end nobody tells; reference 001 assumes so."""
MARGIN_MS_MAX = 300_000
GAP_MS = 30_000
"""Not sooner after the last one, whatever the answer says of the access token's end."""
SKEW_MS = 300_000
"""How far the clocks of two machines may differ. A refresh later in the future was noted by a clock that was wrong."""
SPENT_MAX = 200
"""Refresh tokens of a chain that are remembered: 50 days of them."""

NO_TOKEN = "there is no refresh token"  # noqa: S105 - a sentence
INVALID_GRANT = "invalid_grant: the refresh token is spent, revoked or expired, and a new one is needed"
ERRORS = frozenset({"invalid_request", "invalid_client", "unauthorized_client", "unsupported_grant_type"})
"""Of RFC 6749 section 5.2, as is `invalid_grant`: what sending the same again will not change."""
_USABLE = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class State:
    """Where a chain stands. Times in milliseconds since 1970; `access_token` None: none was got yet.

    `chain` is the digest of the token that began it, `spent` those of the ones that have been used since, oldest first.
    `refresh_token` None: the source has an access token only.
    """

    refresh_token: str | None = field(repr=False)
    access_token: str | None = field(repr=False)
    expires_at_ms: int
    refreshed_at_ms: int
    chain: str
    spent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kept:
    """What `auth.json` says."""

    refresh_token: str | None = field(repr=False)
    api_key: str | None = field(repr=False)
    expires_at_ms: int | None
    written_at_ms: int

    @property
    def token(self) -> str | None:
        """What the chain is known by."""
        return self.refresh_token or self.api_key


@dataclass(frozen=True)
class Renewed:
    """A good answer; `refresh_token` None: the one that was sent goes on being good."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_at_ms: int


class Refusal(NamedTuple):
    """No access token, and why, in words that hold no secret. `is_final`: sending the same again will not help."""

    reason: str
    is_final: bool = False
    is_spent: bool = False


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def chosen(setting: str | None, kept: Kept | None, stored: State | None) -> State | None:
    """Returns the state to go on with: `stored`, where the first source that there is belongs to its chain.

    Else the source begins a new one. None: there is no source.
    """
    if setting is not None:
        return stored if belongs(stored, setting) else State(setting, None, 0, 0, digest(setting))
    if kept is None or kept.token is None:
        return None
    token = kept.token
    expires_at_ms = kept.expires_at_ms
    if expires_at_ms is None:
        expires_at_ms = end_of(kept.api_key or "") or kept.written_at_ms + ASSUMED_LIFE_MS
    if stored is None or not belongs(stored, token):
        return State(kept.refresh_token, kept.api_key, expires_at_ms, kept.written_at_ms, digest(token))
    is_newer = kept.api_key not in (None, stored.access_token) and expires_at_ms > stored.expires_at_ms
    if is_newer and token == stored.refresh_token:
        # Of a provider that lets a refresh token be used again: another program got a newer access token with it.
        return replace(
            stored, access_token=kept.api_key, expires_at_ms=expires_at_ms, refreshed_at_ms=kept.written_at_ms
        )
    return stored


def belongs(state: State | None, token: str) -> bool:
    """Whether a token is one that a chain has, or had."""
    if state is None:
        return False
    return token in (state.refresh_token, state.access_token) or digest(token) in (state.chain, *state.spent)


def overtaken(state: State, kept: Kept | None) -> State | None:
    """Returns the chain as it goes on where its token was refused: with the one of `auth.json`, if that is another.

    So it is where the relay could not store what it got but in that file, or another program has gone on.
    """
    if kept is None or kept.refresh_token is None or belongs(state, kept.refresh_token):
        return None
    return replace(state, refresh_token=kept.refresh_token, spent=_spent(state))


def after(state: State, renewed: Renewed, now_ms: int) -> State:
    """The chain after a good answer."""
    return State(
        renewed.refresh_token or state.refresh_token,
        renewed.access_token,
        renewed.expires_at_ms,
        now_ms,
        state.chain,
        state.spent if renewed.refresh_token in (None, state.refresh_token) else _spent(state),
    )


def _spent(state: State) -> tuple[str, ...]:
    return (*state.spent, digest(state.refresh_token or ""))[-SPENT_MAX:]


def due_at_ms(state: State) -> int:
    """When to refresh: at 6 h of age or, if that is sooner, shortly before the end. 0: at once."""
    if state.access_token is None:
        return 0
    # A fifth of a short life: five minutes before the end of a token that is good for five is always.
    margin_ms = min(MARGIN_MS_MAX, max(0, state.expires_at_ms - state.refreshed_at_ms) // 5)
    soonest_ms = min(state.refreshed_at_ms + REFRESH_AT_AGE_MS, state.expires_at_ms - margin_ms)
    return max(soonest_ms, state.refreshed_at_ms + GAP_MS)


def is_due(state: State, now_ms: int) -> bool:
    return now_ms >= due_at_ms(state) or state.refreshed_at_ms > now_ms + SKEW_MS


def form(refresh_token: str, client_id: str, organization_id: str | None) -> dict[str, str]:
    """What the token endpoint is asked (RFC 6749 section 6)."""
    fields = {"grant_type": "refresh_token", "refresh_token": refresh_token, "client_id": client_id}
    return fields if organization_id is None else {**fields, "organization_id": organization_id}


def meaning(status: int, body: bytes, now_ms: int) -> Renewed | Refusal:
    """What an answer of the token endpoint says (RFC 6749 sections 5.1 and 5.2). Only known words are repeated."""
    document = _object(body)
    if status == HTTPStatus.OK:
        access_token, refresh_token = document.get("access_token"), document.get("refresh_token")
        if not is_usable(access_token):
            return Refusal("an answer without a usable access token")
        return Renewed(
            access_token,
            refresh_token if is_usable(refresh_token) else None,
            _end(document.get("expires_in"), access_token, now_ms),
        )
    error = document.get("error")
    if error == "invalid_grant":
        return Refusal(INVALID_GRANT, is_final=True, is_spent=True)
    if isinstance(error, str) and error in ERRORS:
        return Refusal(error, is_final=True)
    return Refusal(f"HTTP {status}")


def is_usable(token: object) -> TypeGuard[str]:
    """Whether it can stand in a header field."""
    return isinstance(token, str) and _USABLE.fullmatch(token) is not None


def end_of(access_token: str) -> int | None:
    """When a JSON Web Token says that it ends (RFC 7519 section 4.1.4), in ms; None where it says nothing."""
    parts = access_token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
    except ValueError:
        return None
    return _milliseconds(_object(claims).get("exp"))


def _end(expires_in: object, access_token: str, now_ms: int) -> int:
    life_ms = _milliseconds(expires_in)
    if life_ms is not None:
        return now_ms + life_ms
    return end_of(access_token) or now_ms + ASSUMED_LIFE_MS


def _milliseconds(seconds: object) -> int | None:
    """Of a number of seconds, which some providers write as text; None for what is none, or fits no column."""
    try:
        number = float(seconds) if isinstance(seconds, (int, float, str)) else -1.0
    except (ValueError, OverflowError):
        return None
    return int(number * 1000) if 0 < number < 10**12 else None


def _object(data: bytes) -> Mapping[str, Any]:
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return document if isinstance(document, dict) else {}
