"""When a request may be sent again (RFC 9110 section 9.2.2, RFC 9112 section 9.3.1)."""

IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "PUT", "DELETE"))
ATTEMPTS_MAX = 2


def may_retry(method: str, attempts: int, exchanges: int, *, body_whole: bool) -> bool:
    """Tells whether a request whose connection closed without one byte of an answer may go out on a fresh connection.

    Only on a reused connection (`exchanges` > 1), since there the likely cause is an idle close that crossed the
    request; only idempotent methods, since the upstream may have processed it all the same; only with the whole body
    still in hand.
    """
    return attempts < ATTEMPTS_MAX and exchanges > 1 and body_whole and method in IDEMPOTENT
