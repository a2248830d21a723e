"""One family of errors. An error knows whose fault it is and what a client may be told of it.

A new class exists only where somebody catches it differently. The text that reaches a client comes from this table,
never from a foreign exception: it names no address, no path and no secret.
"""

from enum import StrEnum
from typing import NamedTuple


class Source(StrEnum):
    """Who caused an error."""

    CLIENT = "client"
    UPSTREAM = "upstream"
    SELF = "self"


class Cause(NamedTuple):
    """The HTTP answer to one kind of failure. `word` is what programs match on (`error.type`)."""

    status: int
    word: str
    message: str
    source: Source


BAD_REQUEST = Cause(400, "bad_request", "The request is malformed.", Source.CLIENT)
BAD_TARGET = Cause(400, "bad_target", "The path climbs above the route's target.", Source.CLIENT)
NO_TOKEN = Cause(401, "no_token", "The request shows no access token.", Source.CLIENT)
WRONG_TOKEN = Cause(401, "wrong_token", "There is no such access token.", Source.CLIENT)
TOKEN_EXPIRED = Cause(401, "token_expired", "The access token has expired.", Source.CLIENT)
TOKEN_DISABLED = Cause(403, "token_disabled", "The access token is disabled.", Source.CLIENT)
NOT_FOR_ROUTE = Cause(403, "not_for_route", "The access token is not for this route or this address.", Source.CLIENT)
NOT_FOR_MODEL = Cause(403, "not_for_model", "The access token is not for this model.", Source.CLIENT)
WRONG_TOKENS = Cause(429, "wrong_tokens", "This address has shown too many wrong access tokens.", Source.CLIENT)
NO_PRICE = Cause(403, "no_price", "The access token counts money and the model has no price.", Source.CLIENT)
RATE_LIMITED = Cause(429, "rate_limited", "The access token has had its requests for now.", Source.CLIENT)
TOO_MANY_AT_ONCE = Cause(429, "too_many_at_once", "The access token has all its requests running.", Source.CLIENT)
QUOTA_EXCEEDED = Cause(429, "quota_exceeded", "The quota of the access token is used up.", Source.CLIENT)
NO_ROUTE = Cause(404, "no_route", "No route matches this path.", Source.CLIENT)
METHOD_NOT_ALLOWED = Cause(405, "method_not_allowed", "The relay does not accept this method.", Source.CLIENT)
BODY_TIMEOUT = Cause(408, "body_timeout", "The request body did not arrive in time.", Source.CLIENT)
BODY_TOO_LARGE = Cause(413, "body_too_large", "The request body is over the limit of this route.", Source.CLIENT)
TOO_MANY_CONNECTIONS = Cause(503, "overloaded", "The relay is at its limit of requests.", Source.SELF)
POOL_FULL = Cause(503, "pool_full", "No connection to the upstream came free in time.", Source.SELF)
NO_BACKEND = Cause(503, "no_backend", "No backend of the upstream is well at the moment.", Source.SELF)
BACKENDS_BUSY = Cause(503, "backends_busy", "All backends of the upstream have all they may have.", Source.SELF)
INTERNAL = Cause(500, "internal", "The relay failed.", Source.SELF)
NO_STATISTICS = Cause(503, "no_statistics", "There are no statistics at the moment.", Source.SELF)
NO_CREDENTIAL = Cause(503, "no_credential", "No credential for the upstream can be used at the moment.", Source.SELF)
NOT_METERED = Cause(503, "not_metered", "Access tokens cannot be checked at the moment.", Source.SELF)
NOT_READY = Cause(503, "draining", "The relay is shutting down.", Source.SELF)

DNS_FAILED = Cause(502, "dns_failed", "The upstream's name could not be resolved.", Source.UPSTREAM)
TARGET_REFUSED = Cause(502, "target_refused", "The upstream's address is not a public one.", Source.UPSTREAM)
CONNECT_REFUSED = Cause(502, "connect_refused", "The upstream refused the connection.", Source.UPSTREAM)
CONNECT_FAILED = Cause(502, "connect_failed", "The upstream could not be reached.", Source.UPSTREAM)
TLS_FAILED = Cause(502, "tls_failed", "The TLS handshake with the upstream failed.", Source.UPSTREAM)
CERTIFICATE_INVALID = Cause(502, "certificate_invalid", "The upstream's certificate is not valid.", Source.UPSTREAM)
CLOSED = Cause(502, "closed", "The upstream closed the connection before it answered.", Source.UPSTREAM)
BAD_RESPONSE = Cause(502, "bad_response", "The upstream's response is malformed.", Source.UPSTREAM)
TRUNCATED = Cause(502, "truncated", "The upstream's response ended too early.", Source.UPSTREAM)
CONNECT_TIMEOUT = Cause(504, "connect_timeout", "The upstream could not be reached in time.", Source.UPSTREAM)
HEAD_TIMEOUT = Cause(504, "head_timeout", "The upstream did not answer in time.", Source.UPSTREAM)
IDLE_TIMEOUT = Cause(504, "idle_timeout", "The upstream fell silent.", Source.UPSTREAM)


class RelayError(Exception):
    """A request failed for a known cause. Carries nothing but the cause, so nothing can leak from it."""

    __slots__ = ("cause",)

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.word)
        self.cause = cause


class UpstreamClosed(RelayError):  # noqa: N818 - it says what happened
    """The upstream closed or reset the connection before the first byte of its answer; a retry may be safe."""

    def __init__(self) -> None:
        super().__init__(CLOSED)


class TargetRefused(RelayError):  # noqa: N818 - it says what happened
    """The target resolves to no address that it may have. `why` is for the operator's log, and for nobody else."""

    __slots__ = ("why",)

    def __init__(self, why: str) -> None:
        super().__init__(TARGET_REFUSED)
        self.why = why


class ClientGone(Exception):  # noqa: N818 - it says what happened
    """The client left or broke its request off: there is nobody to answer."""
