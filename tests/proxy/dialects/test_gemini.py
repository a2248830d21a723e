"""Gemini: what its answers say, which model is asked for, and what names a conversation."""

from typing import Any

import msgspec
import pytest

from proxy.dialects.gemini import affinity, judge, model
from proxy.rules.credentials import Says, Verdict
from tests.proxy.dialects.bodies import JSON, google, quota, reason, retry

NOW_S = 1_700_000_000.0  # 22:13:20 in UTC: 9 h 46 min 40 s before 8:00
PATH = b"/v1beta/models/gemini-2.5-flash:generateContent"
SPENT = "You exceeded your current quota, please check your plan and billing details."
DAY = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
MINUTE = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        (google(400, "INVALID_ARGUMENT", "API key not valid.", reason("API_KEY_INVALID")), Verdict(Says.DEAD)),
        (google(400, "INVALID_ARGUMENT", "API key expired. Please renew the API key."), Verdict(Says.DEAD)),
        (google(400, "INVALID_ARGUMENT", 'Unknown name "x": API_KEY_INVALID'), Verdict(Says.NOTHING)),
        (google(400, "FAILED_PRECONDITION", "User location is not supported for the API use."), Verdict(Says.NOTHING)),
        (
            google(403, "PERMISSION_DENIED", "Consumer has been suspended.", reason("CONSUMER_SUSPENDED")),
            Verdict(Says.DEAD),
        ),
        (google(403, "PERMISSION_DENIED", "API has not been used", reason("SERVICE_DISABLED")), Verdict(Says.DEAD)),
        (google(403, "PERMISSION_DENIED", "Your API key was reported as leaked."), Verdict(Says.DEAD)),
        (google(403, "PERMISSION_DENIED", "Billing.", reason("BILLING_DISABLED")), Verdict(Says.OUT_OF_QUOTA)),
        (google(403, "PERMISSION_DENIED", "The caller does not have permission"), Verdict(Says.FORBIDDEN)),
        (
            google(403, "PERMISSION_DENIED", "Your project has been denied access. Please contact support."),
            Verdict(Says.NOT_ENTITLED, None, for_model=True),
        ),
        (
            google(403, "PERMISSION_DENIED", "Requests to this API are blocked.", reason("API_KEY_SERVICE_BLOCKED")),
            Verdict(Says.NOT_ENTITLED, None, for_model=True),
        ),
        (
            google(403, "PERMISSION_DENIED", "The IP is blocked.", reason("API_KEY_IP_ADDRESS_BLOCKED")),
            Verdict(Says.UNAUTHORIZED),
        ),
        (
            google(401, "UNAUTHENTICATED", "API keys are not supported by this API.", reason("CREDENTIALS_MISSING")),
            Verdict(Says.FORBIDDEN),
        ),
        *(
            (google(403, "PERMISSION_DENIED", "Not so.", reason(word)), Verdict(Says.FORBIDDEN))
            for word in ("API_KEY_HTTP_REFERRER_BLOCKED", "CONSUMER_INVALID", "USER_PROJECT_DENIED")
        ),
        (google(403, "PERMISSION_DENIED", "You do not have permission to access the File x"), Verdict(Says.NOTHING)),
        (google(404, "NOT_FOUND", "models/x is not found for API version v1beta"), Verdict(Says.NOTHING)),
        (
            google(429, "RESOURCE_EXHAUSTED", SPENT, quota(MINUTE), retry("34.074824224s")),
            Verdict(Says.RATE_LIMITED, 34.074824224, for_model=True),
        ),
        (
            google(429, "RESOURCE_EXHAUSTED", SPENT, quota(MINUTE, DAY), retry("36s")),
            Verdict(Says.OUT_OF_QUOTA, 35_200.0, for_model=True),
        ),
        (
            google(429, "RESOURCE_EXHAUSTED", SPENT, quota(DAY), retry("7200s")),
            Verdict(Says.OUT_OF_QUOTA, 7200.0, for_model=True),
        ),
        (
            google(429, "RESOURCE_EXHAUSTED", SPENT, quota("RequestsPerDayPerProject")),
            Verdict(Says.OUT_OF_QUOTA, 35_200.0),
        ),
        (
            google(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
            Verdict(Says.RATE_LIMITED, None, for_model=True),
        ),
        (
            google(503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
            Verdict(Says.OVERLOADED, None, for_model=True),
        ),
        (google(500, "INTERNAL", "An internal error has occurred."), Verdict(Says.FAILED)),
        (google(504, "DEADLINE_EXCEEDED", "Deadline expired."), Verdict(Says.FAILED)),
    ],
)
def test_an_answer_says_what_its_reason_and_its_quotas_mean(body: bytes, verdict: Verdict) -> None:
    status = msgspec.json.decode(body)["error"]["code"]
    assert judge(status, JSON, body, NOW_S) == verdict
    assert judge(status, JSON, b"[" + body + b"]", NOW_S) == verdict


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        (PATH, b"", "gemini-2.5-flash"),
        (
            b"/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-pro:streamGenerateContent",
            b"",
            "gemini-2.5-pro",
        ),
        (b"/v1beta/models/gemini-2.5-flash", b"", "gemini-2.5-flash"),
        (b"/v1beta/tunedModels/mine:generateContent", b"", "mine"),
        (b"/v1beta/openai/chat/completions", b'{"model":"models/gemini-2.5-flash"}', "gemini-2.5-flash"),
        (b"/v1beta/models", b"", ""),
        (b"/v1beta/files", b"\xff", ""),
        (b"/v1beta/models/" + b"x" * 257, b"", ""),
        (b"/v1beta/models/\xff\x00:x", b"", ""),
    ],
)
def test_the_model_is_in_the_path_or_where_openai_has_it(path: bytes, body: bytes, name: str) -> None:
    assert model(path, body) == name


def request(system: str, *texts: str, **more: Any) -> bytes:
    contents = [{"role": "user", "parts": [{"text": text}]} for text in texts]
    return msgspec.json.encode({"systemInstruction": {"parts": [{"text": system}]}, "contents": contents, **more})


def test_all_turns_of_a_conversation_have_one_name() -> None:
    named = affinity(PATH, request("s", "a"))
    assert named is not None
    assert affinity(PATH, request("s", "a", "b", generationConfig={})) == named
    assert affinity(PATH, request("s", "a").replace(b"systemInstruction", b"system_instruction")) == named
    assert affinity(PATH, request("s", "b")) != named
    assert affinity(PATH, request("t", "a")) != named
    assert affinity(PATH.replace(b"flash", b"pro"), request("s", "a")) != named


def test_what_is_cached_under_a_key_stays_with_it() -> None:
    one, two = request("s", "a", cachedContent="cachedContents/1"), request("t", "b", cachedContent="cachedContents/1")
    assert affinity(PATH, one) == affinity(PATH, two) is not None


def test_where_it_speaks_as_openai_it_is_named_as_there() -> None:
    assert affinity(b"/v1beta/openai/chat/completions", b'{"model":"m","messages":[{"role":"user","content":"a"}]}')


@pytest.mark.parametrize("body", [b"", b"{}", b'{"contents":[7]}', b'{"contents":[]}', request("s", "a")[:-1], b"\xff"])
def test_what_has_no_beginning_has_no_name(body: bytes) -> None:
    assert affinity(PATH, body) is None
