"""The API of Gemini, at generativelanguage.googleapis.com and on Vertex AI.

Sources: Gemini API, "Troubleshooting", "Rate limits" (a day's requests are counted anew at midnight Pacific time);
google.rpc.Status with ErrorInfo, QuotaFailure and RetryInfo; google.api.ErrorReason.
"""

from collections.abc import Sequence

import msgspec

from proxy.dialects import by_status, conversations, model_names, openai
from proxy.dialects.error_bodies import Told, is_page, text, told
from proxy.rules.credentials import Says, Verdict
from proxy.rules.headers import Header
from proxy.rules.waits import DAY_S, duration_s

CREDENTIAL_FIELD = b"x-goog-api-key"

REASONS = {
    "API_KEY_INVALID": Says.DEAD,
    "ACCOUNT_STATE_INVALID": Says.DEAD,
    "CONSUMER_SUSPENDED": Says.DEAD,
    "GCP_SUSPENDED": Says.DEAD,
    "SERVICE_DISABLED": Says.DEAD,
    # Of the place that the relay stands at, and there may be several: counted.
    "API_KEY_IP_ADDRESS_BLOCKED": Says.UNAUTHORIZED,
    # A key may be good for some methods of the API only, and which one is asked for is the client's choice.
    "API_KEY_SERVICE_BLOCKED": Says.NOT_ENTITLED,
    # 401 with an API key: the method wants an access token.
    "CREDENTIALS_MISSING": Says.FORBIDDEN,
    # Not here: what depends on a field or path of the client's, as API_KEY_HTTP_REFERRER_BLOCKED and CONSUMER_INVALID.
    "BILLING_DISABLED": Says.OUT_OF_QUOTA,
}
BEGINNINGS = (
    ("api key not valid", Says.DEAD),
    ("api key expired", Says.DEAD),
    ("your api key was reported as leaked", Says.DEAD),
    # Of some models only, too.
    ("your project has been denied access", Says.NOT_ENTITLED),
    # A file that another key's project has, or nobody.
    ("you do not have permission to access the", Says.NOTHING),
)
WORDS = {"resource_exhausted": Says.RATE_LIMITED}
OF_THE_MODEL = frozenset((Says.RATE_LIMITED, Says.OVERLOADED, Says.NOT_ENTITLED))
# Midnight Pacific time, in winter; in summer that is an hour late.
MIDNIGHT_S = 8 * 3600
LONG_S = 3600.0


class Content(msgspec.Struct):
    parts: list[msgspec.Raw] | None = None


class Request(msgspec.Struct, rename="camel"):
    """What of a request tells of its conversation."""

    cached_content: str | None = None
    system_instruction: Content | None = None
    snake_system_instruction: Content | None = msgspec.field(name="system_instruction", default=None)
    contents: list[msgspec.Raw] | None = None


REQUEST = msgspec.json.Decoder(Request)


def model(path: bytes, body: bytes) -> str:
    """Returns the model that a request is for: of the path, or, where Gemini speaks as OpenAI does, of the body."""
    return model_names.in_path(model_names.MODEL, path) or model_names.in_body(body).removeprefix("models/")


def affinity(path: bytes, body: bytes) -> bytes | None:
    """Returns what names the request's conversation; None where nothing does, or the body is not whole.

    `cachedContent` is one key's own and named by it, so all that ask for it stay together.
    """
    try:
        request = REQUEST.decode(body)
        parts = beginning(request)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if parts is None:
        return openai.affinity(path, body)  # Gemini speaks as OpenAI does, too
    return conversations.fingerprint([model_names.in_path(model_names.MODEL, path), *parts])


def beginning(request: Request) -> list[str] | None:
    """Returns what all requests of a conversation begin with."""
    if request.cached_content:
        return ["cached", request.cached_content]
    if not request.contents:
        return None
    system = request.system_instruction or request.snake_system_instruction or Content()
    first = msgspec.json.decode(request.contents[0], type=Content)
    return ["system", *part_texts(system), "first", *part_texts(first)]


def part_texts(content: Content) -> list[str]:
    parts = (content.parts or [])[: conversations.PARTS_MAX]
    return list(conversations.texts([msgspec.json.decode(part) for part in parts]))


def judge(status: int, fields: Sequence[Header], body: bytes, now_s: float) -> Verdict:
    """Returns what an answer says of the credential; of an error, `body` is as much as has come."""
    if status < 400:
        return Verdict(Says.SUCCESS)
    error = told(fields, body)
    reasons = (text(detail.get("reason")) for detail in error.details)
    meaning = next((REASONS[reason] for reason in reasons if reason in REASONS), None)
    meaning = meaning or by_status.from_words(error, BEGINNINGS, WORDS)
    if meaning is None:
        meaning = Says.NOTHING if status == 403 and is_page(fields) else by_status.says(status)
    if meaning is Says.RATE_LIMITED and (spent := day_quotas(error)):
        of_the_model = all("PerModel" in quota for quota in spent)
        return Verdict(Says.OUT_OF_QUOTA, next_day_s(retry_s(error), now_s), of_the_model)
    return by_status.verdict(meaning, fields, now_s, retry_s(error), OF_THE_MODEL)


def details(error: Told, kind: str) -> list[dict[str, object]]:
    """Returns the details of one kind, such as `RetryInfo`."""
    return [detail for detail in error.details if text(detail.get("@type")).endswith("google.rpc." + kind)]


def day_quotas(error: Told) -> list[str]:
    """Returns the names of a day's quotas that are used up, such as `GenerateRequestsPerDayPerProjectPerModel`."""
    violations = [item for detail in details(error, "QuotaFailure") for item in listed(detail.get("violations"))]
    quotas = [text(item.get("quotaId")) for item in violations if isinstance(item, dict)]
    return [quota for quota in quotas if "PerDay" in quota]


def listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def retry_s(error: Told) -> float | None:
    """Returns the `retryDelay` of RetryInfo in seconds."""
    delays = [duration_s(text(detail.get("retryDelay")).encode()) for detail in details(error, "RetryInfo")]
    return max((delay for delay in delays if delay is not None), default=None)


def next_day_s(asked_s: float | None, now_s: float) -> float:
    """Returns how long a day's quota stays used up.

    RetryInfo names half a minute for such a quota too, so only one that is long is believed.
    """
    return asked_s if asked_s is not None and asked_s >= LONG_S else (MIDNIGHT_S - now_s) % DAY_S or DAY_S
