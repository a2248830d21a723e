"""How OpenAI, Anthropic and Google refuse a request, for each reason that lies in the key, the upstream or the request.

Pure. Shapes and words are those of the providers' references: platform.openai.com/docs/guides/error-codes,
docs.anthropic.com/en/api/errors and /rate-limits, ai.google.dev/gemini-api/docs/troubleshooting with the details of
google/rpc/error_details.proto.
"""

import datetime as dt
import math
from email.utils import formatdate
from enum import StrEnum
from typing import NamedTuple

from loadtests.fake_answers import Json, ProviderError
from loadtests.fake_provider_keys import Does, Tells

WAIT_UNKNOWN_S = 60.0
"""What is told of a limit that has no end in its plan."""


class Api(StrEnum):
    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"


class Wait(NamedTuple):
    """How long to wait, how that is told, and the time of day."""

    seconds: float
    tells: Tells
    now_unix_s: float


Headers = tuple[tuple[str, str], ...]

# Status, type, code, message.
_OPENAI: dict[Does, tuple[int, str, str | None, str]] = {
    Does.PAYMENT_REQUIRED: (402, "unknown_error", "invalid_request_error", "Insufficient Balance"),
    Does.UNAUTHORIZED: (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    Does.EXPIRED: (401, "invalid_request_error", None, "Your authentication token has expired."),
    Does.FORBIDDEN: (403, "invalid_request_error", None, "This request is not allowed."),
    Does.RATE_LIMITED: (429, "requests", "rate_limit_exceeded", "Rate limit reached for requests."),
    Does.OUT_OF_QUOTA: (
        429,
        "insufficient_quota",
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    Does.NO_MODEL: (
        404,
        "invalid_request_error",
        "model_not_found",
        "The model does not exist or you do not have access to it.",
    ),
    Does.FAILED: (500, "server_error", None, "The server had an error while processing your request."),
    Does.OVERLOADED: (503, "service_unavailable_error", None, "The engine is currently overloaded."),
}
# Status, type, message. An empty balance is a 400 at Anthropic, told from a client's mistake by its words alone.
_ANTHROPIC: dict[Does, tuple[int, str, str]] = {
    Does.PAYMENT_REQUIRED: (402, "billing_error", "There is an issue with your billing or payment information."),
    Does.UNAUTHORIZED: (401, "authentication_error", "invalid x-api-key"),
    Does.EXPIRED: (401, "authentication_error", "OAuth token has expired."),
    Does.FORBIDDEN: (403, "permission_error", "Your API key does not have permission to use the specified resource."),
    Does.RATE_LIMITED: (429, "rate_limit_error", "This request would exceed your organization's rate limit."),
    Does.OUT_OF_QUOTA: (
        400,
        "invalid_request_error",
        "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or "
        "purchase credits.",
    ),
    Does.NO_MODEL: (404, "not_found_error", "model: no such model"),
    Does.FAILED: (500, "api_error", "Internal server error"),
    Does.OVERLOADED: (529, "overloaded_error", "Overloaded"),
}
# Status, status in words, message. A wrong key is a 400 at Google, told from a client's mistake by the details.
_GEMINI: dict[Does, tuple[int, str, str]] = {
    Does.PAYMENT_REQUIRED: (402, "FAILED_PRECONDITION", "Billing is not enabled for this project."),
    Does.UNAUTHORIZED: (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
    Does.EXPIRED: (401, "UNAUTHENTICATED", "Request had invalid authentication credentials."),
    Does.FORBIDDEN: (403, "PERMISSION_DENIED", "The caller does not have permission"),
    Does.RATE_LIMITED: (429, "RESOURCE_EXHAUSTED", "You exceeded your current quota. Please retry later."),
    Does.OUT_OF_QUOTA: (429, "RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan."),
    Does.NO_MODEL: (404, "NOT_FOUND", "models/none is not found for API version v1beta."),
    Does.FAILED: (500, "INTERNAL", "An internal error has occurred."),
    Does.OVERLOADED: (503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
}
_RPC = "type.googleapis.com/google.rpc."


def refusal(api: Api, does: Does, wait: Wait) -> ProviderError:
    """Returns the error for a request that is not answered. KeyError for a `does` that is no error."""
    headers = wait_headers(api, wait) if does is Does.RATE_LIMITED else ()
    if api is Api.OPENAI:
        status, kind, code, text = _OPENAI[does]
        return ProviderError(status, headers, _openai_document(kind, code, text))
    if api is Api.ANTHROPIC:
        status, kind, text = _ANTHROPIC[does]
        return ProviderError(status, headers, _anthropic_document(kind, text))
    status, kind, text = _GEMINI[does]
    return ProviderError(status, headers, _gemini_document(status, kind, text, _gemini_details(does, wait)))


def mistake(api: Api, text: str) -> ProviderError:
    """Returns the error for a request that is the client's mistake, whatever its key."""
    if api is Api.OPENAI:
        return ProviderError(400, (), _openai_document("invalid_request_error", None, text))
    if api is Api.ANTHROPIC:
        return ProviderError(400, (), _anthropic_document("invalid_request_error", text))
    return ProviderError(400, (), _gemini_document(400, "INVALID_ARGUMENT", text, []))


def wait_headers(api: Api, wait: Wait) -> Headers:
    """Returns the fields of a 429 head that say how long to wait. Rounded, if at all, to a longer wait."""
    match wait.tells:
        case Tells.RETRY_AFTER:
            return (("retry-after", str(math.ceil(wait.seconds))),)
        case Tells.RETRY_AFTER_DATE:
            return (("retry-after", formatdate(math.ceil(wait.now_unix_s + wait.seconds), usegmt=True)),)
        case Tells.RETRY_AFTER_MS:
            return (("retry-after-ms", str(math.ceil(wait.seconds * 1000))),)
        case Tells.RESET:
            return _anthropic_reset(wait) if api is Api.ANTHROPIC else _openai_reset(wait)
        case Tells.RETRY_INFO | Tells.NOTHING:
            return ()


def told_wait_s(wait: Wait) -> float:
    """How long a client that reads what it is told will wait."""
    match wait.tells:
        case Tells.RETRY_AFTER:
            return math.ceil(wait.seconds)
        case Tells.RETRY_AFTER_DATE:
            return math.ceil(wait.now_unix_s + wait.seconds) - wait.now_unix_s
        case _:
            return wait.seconds


def _openai_reset(wait: Wait) -> Headers:
    """Requests are used up and tokens are not: their reset, though longer, is none of the client's business."""
    return (
        ("x-ratelimit-limit-requests", "60"),
        ("x-ratelimit-limit-tokens", "150000"),
        ("x-ratelimit-remaining-requests", "0"),
        ("x-ratelimit-remaining-tokens", "149984"),
        ("x-ratelimit-reset-requests", go_duration(wait.seconds)),
        ("x-ratelimit-reset-tokens", "6m0s"),
    )


def _anthropic_reset(wait: Wait) -> Headers:
    return (
        ("anthropic-ratelimit-requests-limit", "50"),
        ("anthropic-ratelimit-requests-remaining", "0"),
        ("anthropic-ratelimit-requests-reset", rfc3339(wait.now_unix_s + wait.seconds)),
        ("anthropic-ratelimit-tokens-limit", "40000"),
        ("anthropic-ratelimit-tokens-remaining", "39000"),
        ("anthropic-ratelimit-tokens-reset", rfc3339(wait.now_unix_s + 3600)),
    )


def go_duration(seconds: float) -> str:
    """As OpenAI spells a duration: `850ms`, `1.5s`, `6m0s`."""
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes}m{rest / 1000:g}s" if minutes else f"{rest / 1000:g}s"


def rfc3339(unix_s: float) -> str:
    """To the millisecond, rounded up."""
    moment = dt.datetime.fromtimestamp(math.ceil(unix_s * 1000) / 1000, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _openai_document(kind: str, code: str | None, text: str) -> Json:
    return {"error": {"message": text, "type": kind, "param": None, "code": code}}


def _anthropic_document(kind: str, text: str) -> Json:
    return {"type": "error", "error": {"type": kind, "message": text}, "request_id": "req_fake"}


def _gemini_document(status: int, kind: str, text: str, details: list[Json]) -> Json:
    error: Json = {"code": status, "message": text, "status": kind}
    return {"error": error | ({"details": details} if details else {})}


def _gemini_details(does: Does, wait: Wait) -> list[Json]:
    if does is Does.UNAUTHORIZED:
        service = {"service": "generativelanguage.googleapis.com"}
        info = {"reason": "API_KEY_INVALID", "domain": "googleapis.com", "metadata": service}
        return [{"@type": f"{_RPC}ErrorInfo", **info}]
    if does is Does.OUT_OF_QUOTA:
        return [_quota_failure("GenerateRequestsPerDayPerProjectPerModel-FreeTier")]
    if does is not Does.RATE_LIMITED:
        return []
    failure = _quota_failure("GenerateRequestsPerMinutePerProjectPerModel-FreeTier")
    if wait.tells is not Tells.RETRY_INFO:
        return [failure]
    return [failure, {"@type": f"{_RPC}RetryInfo", "retryDelay": f"{wait.seconds:.9f}s"}]


def _quota_failure(quota: str) -> Json:
    metric = "generativelanguage.googleapis.com/generate_content_free_tier_requests"
    violation = {"quotaMetric": metric, "quotaId": quota, "quotaValue": "15"}
    return {"@type": f"{_RPC}QuotaFailure", "violations": [violation]}
