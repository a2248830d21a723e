"""The API of Anthropic. Sources: its pages "Errors", "Rate limits", "Prompt caching", "Admin API"."""

import re
from collections.abc import Sequence

import msgspec

from proxy.dialects import by_status, conversations, model_names
from proxy.dialects.error_bodies import Told, is_page, told
from proxy.rules.credentials import Says, Verdict
from proxy.rules.dates import date_s
from proxy.rules.headers import Header

CREDENTIAL_FIELD = b"x-api-key"
OTHER_KEYS = (b"/v1/organizations",)
"""The Admin API, which wants a key of its own kind."""

WORDS = {
    "authentication_error": Says.UNAUTHORIZED,
    "billing_error": Says.OUT_OF_QUOTA,
    "permission_error": Says.FORBIDDEN,
    "rate_limit_error": Says.RATE_LIMITED,
    "overloaded_error": Says.OVERLOADED,
    "enforced_spend_limit_reached": Says.OUT_OF_QUOTA,
}
BEGINNINGS = (
    # These come with status 400 and `invalid_request_error`, like a client's own mistakes.
    ("your credit balance is too low", Says.OUT_OF_QUOTA),
    ("you have reached your specified api usage limits", Says.OUT_OF_QUOTA),
    ("you have reached your specified workspace api usage limits", Says.OUT_OF_QUOTA),
    ("this organization has been disabled", Says.DEAD),
    # With 403 and `permission_error`, like what the key may not ask for.
    ("oauth token has been revoked", Says.DEAD),
    ("oauth authentication is currently not allowed for this organization", Says.DEAD),
    ("invalid x-api-key", Says.DEAD),
    # 401 with `authentication_error`: the client did not send the `anthropic-beta` that access tokens want.
    ("oauth authentication is currently not supported", Says.FORBIDDEN),
    # 429 with `rate_limit_error`: the request is too long for what the account has booked.
    ("extra usage is required", Says.NOTHING),
)
OF_THE_MODEL = frozenset((Says.RATE_LIMITED, Says.NOT_ENTITLED))
# "You will regain access on 2026-04-01 at 00:00 UTC."
REGAIN = re.compile(r"regain access on (\d{4}-\d\d-\d\d) at (\d\d:\d\d) utc")
# A first block of the system prompt that Claude Code makes anew for each request.
BILLING = "x-anthropic-billing-header:"


class Metadata(msgspec.Struct):
    user_id: str | None = None


class Request(msgspec.Struct):
    """What of a request for a message tells of its conversation."""

    model: str = ""
    metadata: Metadata | None = None
    system: msgspec.Raw = msgspec.Raw(b"null")
    messages: list[msgspec.Raw] | None = None


REQUEST = msgspec.json.Decoder(Request)


def model(path: bytes, body: bytes) -> str:  # noqa: ARG001 - as other dialects
    """Returns the model that a request is for; empty where that cannot be told."""
    return model_names.in_body(body)


def affinity(path: bytes, body: bytes) -> bytes | None:  # noqa: ARG001 - as other dialects
    """Returns what names the request's conversation; None where nothing does, or the body is not whole.

    A `user_id` with a session in it, such as Claude Code's, does so by itself.
    """
    try:
        request = REQUEST.decode(body)
        user = (request.metadata and request.metadata.user_id) or ""
        if "session" in user:
            return conversations.fingerprint([request.model, user])
        system = msgspec.json.decode(request.system)
        first = conversations.beginning(request.messages or ())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if first is None:
        return None
    prompt = [part for part in conversations.texts(system) if not part.startswith(BILLING)]
    return conversations.fingerprint([request.model, user, *prompt, *first])


def judge(status: int, fields: Sequence[Header], body: bytes, now_s: float) -> Verdict:
    """Returns what an answer says of the credential; of an error, `body` is as much as has come."""
    if status < 400:
        return Verdict(Says.SUCCESS)
    error = told(fields, body)
    meaning = by_status.from_words(error, BEGINNINGS, WORDS)
    if status == 404 and "not_found_error" in error.words and error.message.startswith("model:"):
        meaning = Says.NOT_ENTITLED
    if meaning is None:
        meaning = Says.NOTHING if status == 403 and is_page(fields) else by_status.says(status)
    return by_status.verdict(meaning, fields, now_s, regained_s(error, now_s), OF_THE_MODEL)


def regained_s(error: Told, now_s: float) -> float | None:
    """Returns in how many seconds an account that reached its own limit of money is served again, where that is said.

    0 or less, if it should be already.
    """
    match = REGAIN.search(error.message.lower())
    at_s = date_s(f"{match[1]}T{match[2]}:00Z".encode()) if match else None
    return None if at_s is None else at_s - now_s
