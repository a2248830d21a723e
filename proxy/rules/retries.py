"""When a request may be sent again (RFC 9110 section 9.2.2, RFC 9112 section 9.3.1)."""

from enum import Enum, auto

from proxy.config import KeyPool
from proxy.rules.credentials import Says, Verdict

IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "PUT", "DELETE"))
ATTEMPTS_MAX = 2


def may_retry(method: str, attempts: int, exchanges: int, *, body_whole: bool) -> bool:
    """Tells whether a request whose connection closed without one byte of an answer may go out on a fresh connection.

    Only on a reused connection (`exchanges` > 1), since there the likely cause is an idle close that crossed the
    request; only idempotent methods, since the upstream may have processed it all the same; only with the whole body
    still in hand.
    """
    return attempts < ATTEMPTS_MAX and exchanges > 1 and body_whole and method in IDEMPOTENT


class Again(Enum):
    """Whether a request goes out once more with another credential."""

    NO = auto()
    INSTEAD = auto()
    """At once. The credential was refused, and this is no retry."""
    AT_ONCE = auto()
    AFTER_A_PAUSE = auto()


ATTEMPTS_WITH_KEYS_MAX = 20
REFUSED = frozenset((Says.RATE_LIMITED, Says.OUT_OF_QUOTA, Says.DEAD))
"""The upstream has done nothing, and the credential is put aside: the next attempt has another fate."""


def again(
    verdict: Verdict,
    status: int,
    *,
    method: str,
    attempts: int,
    refusals: int,
    model_known: bool,
    body_kept: bool,
    settings: KeyPool,
) -> Again:
    """Says whether an answer of `status` (0: none came) is worth another attempt with another credential.

    `refusals` of the `attempts` so far ended with a credential that the upstream refused; they do not count as retries.
    A 403 without a reason does, and so does a model that no credential was ever good for (not `model_known`): it may be
    the request's own fault, which the next credential does not change.
    A failure that may have come after the upstream acted is repeated for an idempotent method, and for others unless
    `retry_idempotent_only`.
    """
    if not settings.retry_enabled or not body_kept or attempts >= ATTEMPTS_WITH_KEYS_MAX:
        return Again.NO
    if verdict.says in REFUSED:
        return Again.INSTEAD
    if attempts - refusals > settings.retry_max:
        return Again.NO
    if verdict.says is Says.NOT_ENTITLED:
        return Again.INSTEAD if model_known else Again.AT_ONCE
    if verdict.says is Says.UNAUTHORIZED:
        return Again.INSTEAD if status in settings.retry_statuses else Again.NO
    if status and status not in settings.retry_statuses:
        return Again.NO
    if verdict.says is Says.FORBIDDEN:
        return Again.AT_ONCE
    if verdict.says not in (Says.FAILED, Says.OVERLOADED):
        return Again.NO
    if settings.retry_idempotent_only and method not in IDEMPOTENT:
        return Again.NO
    return Again.AFTER_A_PAUSE
