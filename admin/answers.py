"""What the admin API answers when it does not do what was asked: one shape, and one table.

The text that reaches a client comes from here or from a check of what he sent, never from a foreign exception.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec
from litestar.openapi.datastructures import ResponseSpec

from admin.rules.access_tokens import InvalidToken
from admin.services.failures import (
    CounterAway,
    DuplicateBackend,
    DuplicateGroup,
    DuplicateKey,
    DuplicateRoute,
    GroupInUse,
    InvalidCredential,
    NoBalanceQuery,
    NoCertificate,
    NoRouteForKey,
    NoSuchBackend,
    NoSuchGroup,
    NoSuchKey,
    NoSuchRoute,
    NoSuchToken,
    NoSuchUpstream,
    NoSuchVersion,
    QuotaTooLarge,
    SyncRunning,
    TestsRunning,
    TooManyListeners,
    WorkersNotAsked,
)
from proxy.config import ConfigError
from proxy.rules.access_tokens import AMOUNT_MAX
from proxy.secrets import VARIABLE, SecretError
from proxy.shared_state.unavailable import StoreUnavailable


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What every answer to a request that was done begins with."""

    success: Literal[True] = True


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An error: `error` is the word that programs match on, `message` the sentence for people."""

    success: Literal[False] = False
    error: str
    message: str


class Refusal(Exception):  # noqa: N818 - it says what it is
    """A request is not done. Raised anywhere below an endpoint, it becomes the answer.

    `field` is what of the request is wrong, where that is one field.
    """

    def __init__(
        self,
        status: int,
        error: str,
        message: str,
        headers: Mapping[str, str] | None = None,
        field: str | None = None,
    ) -> None:
        super().__init__(error)
        self.status = status
        self.problem = Problem(error=error, message=message)
        self.headers = dict(headers or {})
        self.field = field


def bad_request(message: str) -> Refusal:
    return Refusal(400, "bad_request", message)


OF_FAILURE: dict[type[Exception], tuple[int, str, str]] = {
    DuplicateRoute: (400, "duplicate", "There is a mapping for this prefix already."),
    NoSuchRoute: (404, "not_found", "There is no mapping for this prefix."),
    NoSuchVersion: (404, "not_found", "There is no version of this number."),
    DuplicateKey: (409, "duplicate", "This key is there already."),
    NoSuchKey: (404, "not_found", "There is no key of this id."),
    DuplicateGroup: (409, "duplicate", "There is a pool group of this id already."),
    NoSuchGroup: (404, "not_found", "There is no pool group of this id."),
    NoRouteForKey: (409, "no_route", "No route may use this key, so there is no upstream to test it with."),
    NoSuchUpstream: (404, "not_found", "There is no upstream of this name."),
    NoSuchBackend: (404, "not_found", "The upstream has no backend of this id."),
    DuplicateBackend: (409, "duplicate", "The upstream has a backend of this id or URL already."),
    TestsRunning: (409, "running", "All keys are being tested already."),
    NoBalanceQuery: (409, "no_query", "No balance query is configured: key_pool.balance_queries."),
    SyncRunning: (409, "running", "Balances are being read already."),
    SecretError: (
        409,
        "undecryptable",
        f"What is stored was encrypted under a secret key that neither secret.key nor {VARIABLE} has.",
    ),
    NoCertificate: (409, "no_certificate", "The listener has no certificate: tls.certificate and tls.key are not set."),
    StoreUnavailable: (503, "unavailable", "Redis cannot be reached."),
    WorkersNotAsked: (503, "unavailable", "Redis cannot be reached, so workers cannot be asked."),
    NoSuchToken: (404, "not_found", "There is no access token of this id or text."),
    QuotaTooLarge: (400, "bad_request", f"quota_amount: the quota would be more than {AMOUNT_MAX}."),
    TooManyListeners: (429, "too_many_listeners", "As many listen to the live log as may."),
}


def no_mapping() -> Refusal:
    return Refusal(*OF_FAILURE[NoSuchRoute])


def no_version() -> Refusal:
    return Refusal(*OF_FAILURE[NoSuchVersion])


def no_key() -> Refusal:
    return Refusal(*OF_FAILURE[NoSuchKey])


def no_explanation() -> Refusal:
    return Refusal(404, "not_found", "No worker remembers a request of this id.")


def workers_not_asked() -> Refusal:
    return Refusal(*OF_FAILURE[WorkersNotAsked])


def no_token() -> Refusal:
    return Refusal(*OF_FAILURE[NoSuchToken])


def counter_away() -> Refusal:
    message = (
        "Redis, which has the quota, does not answer, or does not have it yet. It may have been changed all the same:"
        " ask again with the same Idempotency-Key, or look at it first."
    )
    return Refusal(503, "unavailable", message, {"Retry-After": "1"})


def not_confirmed() -> Refusal:
    return Refusal(403, "confirmation_required", "This shows secrets: give the admin token in x-admin-confirm.")


def of_failure(failure: Exception) -> Refusal | None:
    """Returns the answer to what a service refused to do, None where that is something else."""
    match failure:
        case Refusal():
            return failure
        case InvalidCredential():
            return bad_request(f"key: {failure}")
        case InvalidToken():
            return Refusal(400, "bad_request", str(failure), field=failure.field)
        case CounterAway():
            return counter_away()
        case GroupInUse():
            return Refusal(409, "in_use", f"This pool group cannot be deleted: {failure}.")
        case ConfigError():
            return Refusal(400, "unusable", str(failure))
        case _:
            known = OF_FAILURE.get(type(failure))
            return None if known is None else Refusal(*known)


def unauthorized(message: str) -> Refusal:
    return Refusal(401, "unauthorized", message, {"WWW-Authenticate": "Bearer"})


def forbidden(message: str) -> Refusal:
    return Refusal(403, "forbidden", message)


def too_many_attempts(wait_s: int) -> Refusal:
    message = f"Too many attempts with a wrong token; the next is possible in {wait_s} s."
    return Refusal(429, "too_many_attempts", message, {"Retry-After": str(wait_s)})


def not_configured() -> Refusal:
    return Refusal(503, "not_configured", "The admin API has no token; set ADMIN_TOKEN.")


# What the HTTP layer itself refuses, by status.
OF_STATUS = {
    400: Problem(error="bad_request", message="The request is malformed."),
    404: Problem(error="not_found", message="There is nothing at this path."),
    405: Problem(error="method_not_allowed", message="This path does not take this method."),
    408: Problem(error="body_timeout", message="The request body did not arrive in time."),
    413: Problem(error="body_too_large", message="The request body is longer than this path takes."),
    415: Problem(error="unsupported_media_type", message="The body has to be application/json."),
}
UNAVAILABLE = Problem(error="unavailable", message="The database cannot be reached.")
INTERNAL = Problem(error="internal", message="The admin API failed; its log says more.")

DESCRIPTIONS = {
    400: "The request cannot be used; the message names the field.",
    401: "The token or the session is wrong, or there is none.",
    403: "The session's cookie came from a page of another origin, or the admin token is wanted once more.",
    404: "There is no such thing.",
    405: "This path does not take this method.",
    408: "The body did not arrive in time.",
    409: "It cannot be done as things are; the message says why.",
    413: "The body is over 1 MiB, or 64 MiB for many keys at once.",
    415: "The body is not of a type that this path takes.",
    429: "Too many attempts with a wrong token; `Retry-After` says when the next is possible. Or too many at once.",
    500: "The admin API failed.",
    503: "The admin API has no token, or the database, or what it asks, cannot be reached.",
}


def place_of(error: BaseException) -> str:
    """Returns where an error was raised, to go behind its kind in a line of the log: its text may hold a secret."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return "" if place is None else f" at {place.tb_frame.f_code.co_qualname}:{place.tb_lineno}"


def of_status(status: int) -> Refusal:
    problem = OF_STATUS[status]
    return Refusal(status, problem.error, problem.message)


def documented(*statuses: int) -> dict[int, ResponseSpec]:
    """Returns the documentation of error answers; 500 is always among them."""
    return {
        status: ResponseSpec(Problem, description=DESCRIPTIONS[status], generate_examples=False)
        for status in sorted({*statuses, 500})
    }
