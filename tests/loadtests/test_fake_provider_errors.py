"""Refusals are spelled as the providers spell them, and a wait is told in each of its forms."""

from email.utils import parsedate_to_datetime

import pytest

from loadtests.fake_provider_errors import Api, Wait, go_duration, mistake, refusal, rfc3339, told_wait_s, wait_headers
from loadtests.fake_provider_keys import Does, Tells

NOW_UNIX_S = 1_763_718_000.25
ERRORS = [
    Does.PAYMENT_REQUIRED,
    Does.UNAUTHORIZED,
    Does.EXPIRED,
    Does.FORBIDDEN,
    Does.RATE_LIMITED,
    Does.OUT_OF_QUOTA,
    Does.NO_MODEL,
    Does.FAILED,
    Does.OVERLOADED,
]


def wait(tells: Tells, seconds: float = 1.5) -> Wait:
    return Wait(seconds, tells, NOW_UNIX_S)


@pytest.mark.parametrize(
    ("api", "statuses"),
    [
        (Api.OPENAI, [402, 401, 401, 403, 429, 429, 404, 500, 503]),
        (Api.ANTHROPIC, [402, 401, 401, 403, 429, 400, 404, 500, 529]),
        (Api.GEMINI, [402, 400, 401, 403, 429, 429, 404, 500, 503]),
    ],
)
def test_each_api_has_its_own_statuses(api: Api, statuses: list[int]) -> None:
    assert [refusal(api, does, wait(Tells.NOTHING)).status for does in ERRORS] == statuses


@pytest.mark.parametrize(
    ("api", "tells", "field", "value"),
    [
        (Api.OPENAI, Tells.RETRY_AFTER, "retry-after", "2"),
        (Api.OPENAI, Tells.RETRY_AFTER_MS, "retry-after-ms", "1500"),
        (Api.OPENAI, Tells.RESET, "x-ratelimit-reset-requests", "1.5s"),
        (Api.ANTHROPIC, Tells.RESET, "anthropic-ratelimit-requests-reset", "2025-11-21T09:40:01.750Z"),
    ],
)
def test_a_wait_is_told_in_a_field(api: Api, tells: Tells, field: str, value: str) -> None:
    assert dict(refusal(api, Does.RATE_LIMITED, wait(tells)).headers)[field] == value
    assert refusal(api, Does.OUT_OF_QUOTA, wait(tells)).headers == ()


def test_a_wait_is_told_as_a_date_that_is_not_too_early() -> None:
    ((_, value),) = wait_headers(Api.OPENAI, wait(Tells.RETRY_AFTER_DATE))
    told_s = parsedate_to_datetime(value).timestamp() - NOW_UNIX_S
    assert told_s == told_wait_s(wait(Tells.RETRY_AFTER_DATE)) == 1.75


def test_gemini_tells_a_wait_in_the_body() -> None:
    details = refusal(Api.GEMINI, Does.RATE_LIMITED, wait(Tells.RETRY_INFO)).document["error"]["details"]
    assert details[-1] == {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.500000000s"}


@pytest.mark.parametrize(
    ("seconds", "spelled"),
    [(0.0, "0ms"), (0.0071, "8ms"), (0.85, "850ms"), (1, "1s"), (20.5, "20.5s"), (360, "6m0s"), (90.25, "1m30.25s")],
)
def test_durations_are_spelled_as_openai_does(seconds: float, spelled: str) -> None:
    assert go_duration(seconds) == spelled


def test_a_moment_is_rounded_up() -> None:
    assert rfc3339(0.0001) == "1970-01-01T00:00:00.001Z"


def test_a_mistake_looks_like_none_of_the_keys_faults() -> None:
    for api in Api:
        assert mistake(api, "missing").status == 400
        refused = [refusal(api, does, wait(Tells.NOTHING)).document for does in ERRORS]
        assert mistake(api, "missing").document not in refused
