"""The API of OpenAI, and of the many that copy it.

Sources: OpenAI, guides "Error codes", "Rate limits", "Prompt caching"; the codes below are those of its error bodies,
and, where a name is marked, of programs and providers that speak the same.
"""

import re
from collections.abc import Sequence

import msgspec

from proxy.dialects import by_status, conversations, model_names
from proxy.dialects.error_bodies import is_page, told
from proxy.rules.credentials import Says, Verdict
from proxy.rules.headers import Header
from proxy.rules.waits import duration_s

CREDENTIAL_FIELD = b"authorization"
OTHER_KEYS = (b"/v1/organization/", b"/dashboard/")
"""Of administrators, and of people who have logged in."""

WORDS = {
    "insufficient_quota": Says.OUT_OF_QUOTA,
    "credit_balance_exhausted": Says.OUT_OF_QUOTA,
    "organization_spend_limit_exceeded": Says.OUT_OF_QUOTA,
    "organization_usage_limit_exceeded": Says.OUT_OF_QUOTA,
    "project_spend_limit_exceeded": Says.OUT_OF_QUOTA,
    "billing_not_active": Says.OUT_OF_QUOTA,
    "billing_hard_limit_reached": Says.OUT_OF_QUOTA,
    "exceeded_current_quota_error": Says.OUT_OF_QUOTA,  # Moonshot
    "insufficient_user_quota": Says.OUT_OF_QUOTA,  # new-api
    "insufficient_balance": Says.OUT_OF_QUOTA,  # Sub2API, with 403
    "arrearage": Says.OUT_OF_QUOTA,  # DashScope, with 400
    "invalid_api_key": Says.DEAD,
    "account_deactivated": Says.DEAD,
    "access_terminated": Says.DEAD,
    "no_organization": Says.DEAD,
    "organization_restricted": Says.DEAD,  # Groq, with 400
    "model_not_found": Says.NOT_ENTITLED,
    "model_permission_blocked_org": Says.NOT_ENTITLED,  # Groq
    "model_permission_blocked_project": Says.NOT_ENTITLED,  # Groq
    "allocationquota.freetieronly": Says.NOT_ENTITLED,  # DashScope: nothing of this model is left for free
    "rate_limit_exceeded": Says.RATE_LIMITED,
    "engine_overloaded_error": Says.OVERLOADED,  # Moonshot
    "slow_down": Says.OVERLOADED,
    # The client asks for what this kind of key may not do; another may.
    "missing_scope": Says.FORBIDDEN,
    # The client's doing: it asks for an organization that is not the key's.
    "mismatched_organization": Says.NOTHING,
    "mismatched_project": Says.NOTHING,
    "invalid_organization": Says.NOTHING,
    "invalid_project": Says.NOTHING,
    # Of the place that the relay stands at.
    "unsupported_country_region_territory": Says.NOTHING,
}
BEGINNINGS = (
    # 429 with `rate_limit_exceeded`: one request that alone is more than a minute's tokens. Waiting does not help.
    ("request too large", Says.NOTHING),
    # "... must be made with a session key (that is, it can only be made from the browser)"
    ("your request to ", Says.NOTHING),
    # 401. A restricted key lacks the scope of what was asked for: of all models, or of an operation, which must not put
    # it aside for the models that it is there for.
    ("you have insufficient permissions for this operation. missing scopes: model.request", Says.NOT_ENTITLED),
    ("you have insufficient permissions for this operation", Says.FORBIDDEN),
    ("incorrect api key provided", Says.DEAD),
    ("your openai account has been deactivated", Says.DEAD),
    ("your access was terminated", Says.DEAD),
    ("you exceeded your current quota", Says.OUT_OF_QUOTA),
    ("your account is not active", Says.OUT_OF_QUOTA),
    # With 403:
    ("key limit exceeded", Says.OUT_OF_QUOTA),  # OpenRouter
    ("you have run out of credits", Says.OUT_OF_QUOTA),  # xAI
    ("your newly created team doesn't have any credits", Says.OUT_OF_QUOTA),  # xAI
)
OF_THE_MODEL = frozenset((Says.RATE_LIMITED, Says.NOT_ENTITLED))
# "Please try again in 9.816s." It is the true wait where the `reset` fields only say when a limit is quite full again.
TRY_AGAIN = re.compile(r"(?:try again in|retry after) ((?:\d{1,9}(?:\.\d{1,9})?(?:ms|[dhms]))+|\d{1,9}(?= seconds))")


class Request(msgspec.Struct):
    """What of a request for completions or a response tells of its conversation."""

    model: str = ""
    prompt_cache_key: str | None = None
    conversation: str | dict[str, msgspec.Raw] | None = None
    previous_response_id: str | None = None
    instructions: str | None = None
    messages: list[msgspec.Raw] | None = None
    input: str | list[msgspec.Raw] | None = None


REQUEST = msgspec.json.Decoder(Request)


def model(path: bytes, body: bytes) -> str:
    """Returns the model that a request is for, which Azure has in the path; empty where that cannot be told."""
    return model_names.in_path(model_names.DEPLOYMENT, path) or model_names.in_body(body)


def affinity(path: bytes, body: bytes) -> bytes | None:
    """Returns what names the request's conversation; None where nothing does, or the body is not whole.

    A client's own key (`prompt_cache_key`, `conversation`) does so by itself. A request that goes on from an earlier
    response has none of the conversation's beginning, and nothing in that one has named this.
    """
    try:
        request = REQUEST.decode(body)
        parts = beginning(request)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    name = model_names.in_path(model_names.DEPLOYMENT, path) or request.model
    return conversations.fingerprint([name, *parts]) if parts else None


def beginning(request: Request) -> list[str] | None:
    """Returns what all requests of a conversation begin with."""
    if request.prompt_cache_key:
        return ["key", request.prompt_cache_key]
    if isinstance(request.conversation, dict) and "id" in request.conversation:
        return ["conversation", bytes(request.conversation["id"]).decode()]
    if isinstance(request.conversation, str):
        return ["conversation", f'"{request.conversation}"']
    if request.previous_response_id:
        return None
    system = request.instructions or ""
    if isinstance(request.input, str):
        return [system, "user", request.input]
    first = conversations.beginning(request.messages or request.input or ())
    return None if first is None else [system, *first]


def judge(status: int, fields: Sequence[Header], body: bytes, now_s: float) -> Verdict:
    """Returns what an answer says of the credential; of an error, `body` is as much as has come."""
    if status < 400:
        return Verdict(Says.SUCCESS)
    error = told(fields, body)
    meaning = by_status.from_words(error, BEGINNINGS, WORDS)
    if meaning is None:
        meaning = Says.NOTHING if status == 403 and is_page(fields) else by_status.says(status)
    if meaning is Says.OUT_OF_QUOTA and status != 402:
        return Verdict(meaning)  # the fields of such a 429 are those of its rate limits, which are not what is spent
    again = TRY_AGAIN.search(error.message.lower())
    again_s = duration_s((again[1] if again[1][-1].isalpha() else again[1] + "s").encode()) if again else None
    return by_status.verdict(meaning, fields, now_s, again_s, OF_THE_MODEL)
