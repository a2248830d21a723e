"""Anthropic: what its answers say, which model is asked for, and what names a conversation."""

from typing import Any

import msgspec
import pytest

from proxy.dialects.anthropic import affinity, judge, model
from proxy.rules.credentials import Says, Verdict
from tests.proxy.dialects.bodies import JSON, anthropic

NOW_S = 1_774_915_200.0  # 2026-03-31T00:00:00Z
MESSAGES = b"/v1/messages"

CREDIT = (
    "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase"
    " credits."
)
SPENT = "You have reached your specified API usage limits. You will regain access on 2026-04-01 at 00:00 UTC."


@pytest.mark.parametrize(
    ("status", "kind", "message", "verdict"),
    [
        (401, "authentication_error", "invalid x-api-key", Verdict(Says.DEAD)),
        (401, "authentication_error", "OAuth token has expired.", Verdict(Says.UNAUTHORIZED)),
        (402, "billing_error", "There's an issue with your billing.", Verdict(Says.OUT_OF_QUOTA)),
        (403, "permission_error", "Your API key does not have permission.", Verdict(Says.FORBIDDEN)),
        (403, "permission_error", "OAuth token does not meet scope requirement user:profile", Verdict(Says.FORBIDDEN)),
        (403, "forbidden", "Request not allowed", Verdict(Says.FORBIDDEN)),
        (403, "permission_error", "OAuth token has been revoked. Please obtain a new token.", Verdict(Says.DEAD)),
        (
            403,
            "permission_error",
            "OAuth authentication is currently not allowed for this organization.",
            Verdict(Says.DEAD),
        ),
        (403, "permission_error", "This organization has been disabled.", Verdict(Says.DEAD)),
        (400, "invalid_request_error", CREDIT, Verdict(Says.OUT_OF_QUOTA)),
        (400, "invalid_request_error", SPENT, Verdict(Says.OUT_OF_QUOTA, 86_400.0)),
        (400, "invalid_request_error", "This organization has been disabled.", Verdict(Says.DEAD)),
        (400, "invalid_request_error", "messages.0.content: your credit balance is too low", Verdict(Says.NOTHING)),
        (400, "invalid_request_error", "prompt is too long: 345320 tokens > 199999 maximum", Verdict(Says.NOTHING)),
        # A validator begins with the name of the field that it does not know, which a client may choose.
        (400, "invalid_request_error", "invalid x-api-key: Extra inputs are not permitted", Verdict(Says.NOTHING)),
        (400, "invalid_request_error", f"{CREDIT}: Extra inputs are not permitted", Verdict(Says.NOTHING)),
        (
            400,
            "invalid_request_error",
            "This organization has been disabled.: Additional input is not allowed",
            Verdict(Says.NOTHING),
        ),
        # Of an access token where the client does not send `anthropic-beta: oauth-...`.
        (401, "authentication_error", "OAuth authentication is currently not supported.", Verdict(Says.FORBIDDEN)),
        (404, "not_found_error", "model: claude-3-5-sonnet-2", Verdict(Says.NOT_ENTITLED, None, for_model=True)),
        (404, "not_found_error", "Not Found", Verdict(Says.NOTHING)),
        (413, "request_too_large", "Request exceeds the maximum size", Verdict(Says.NOTHING)),
        (
            429,
            "rate_limit_error",
            "Number of request tokens has exceeded",
            Verdict(Says.RATE_LIMITED, None, for_model=True),
        ),
        (429, "rate_limit_error", "Extra usage is required for long context requests.", Verdict(Says.NOTHING)),
        (500, "api_error", "Internal server error", Verdict(Says.FAILED)),
        (500, "overloaded_error", "Overloaded", Verdict(Says.OVERLOADED)),
        (529, "overloaded_error", "Overloaded", Verdict(Says.OVERLOADED)),
    ],
)
def test_an_answer_says_what_its_type_and_message_mean(status: int, kind: str, message: str, verdict: Verdict) -> None:
    assert judge(status, JSON, anthropic(kind, message), NOW_S) == verdict


def test_a_rate_limit_lasts_as_long_as_its_fields_say() -> None:
    fields = [*JSON, (b"retry-after", b"17"), (b"anthropic-ratelimit-requests-reset", b"2026-03-31T00:01:00Z")]
    assert judge(429, fields, anthropic("rate_limit_error", "x"), NOW_S) == Verdict(
        Says.RATE_LIMITED, 17.0, for_model=True
    )


def test_access_that_should_be_back_is_no_wait() -> None:
    assert judge(400, JSON, anthropic("invalid_request_error", SPENT), NOW_S + 86_400).wait_s is None


def test_the_model_is_in_the_body() -> None:
    assert model(MESSAGES, b'{"model":"claude-sonnet-4-5","max_tokens":1}') == "claude-sonnet-4-5"
    assert model(MESSAGES, b"x") == ""


def request(system: Any, *contents: Any, **more: Any) -> bytes:
    messages = [{"role": "user", "content": content} for content in contents]
    return msgspec.json.encode({"model": "claude", "system": system, "messages": messages, **more})


def text(value: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": value, **more}


MARK = {"cache_control": {"type": "ephemeral"}}


def test_marks_of_the_cache_move_and_the_name_stays() -> None:
    one = request([text("Be brief.", **MARK)], [text("Hello", **MARK)])
    two = request([text("Be brief.", **MARK)], [text("Hello")], [text("And now?", **MARK)])
    assert affinity(MESSAGES, one) == affinity(MESSAGES, two) is not None
    assert affinity(MESSAGES, one) == affinity(MESSAGES, request("Be brief.", "Hello"))
    assert affinity(MESSAGES, one) != affinity(MESSAGES, request("Be brief.", "Hello?"))
    assert affinity(MESSAGES, one) != affinity(MESSAGES, request("Be brief.", "Hello", metadata={"user_id": "u"}))


def test_a_block_that_is_made_anew_each_time_does_not_count() -> None:
    def billed(mark: str) -> bytes:
        return request(
            [text(f"x-anthropic-billing-header: cc_version=2.1.37; cch={mark};"), text("Be brief.")], "Hello"
        )

    assert affinity(MESSAGES, billed("fa690")) == affinity(MESSAGES, billed("00a11"))


@pytest.mark.parametrize("user", ["user_1_account__session_2", '{"device_id":"a","session_id":"2"}'])
def test_a_session_names_it_by_itself(user: str) -> None:
    one, two = request("a", "b", metadata={"user_id": user}), request("c", "d", metadata={"user_id": user})
    assert affinity(MESSAGES, one) == affinity(MESSAGES, two) is not None


@pytest.mark.parametrize("body", [b"", b"{}", request("a"), request("a", "b")[:-1], b'{"metadata":7}', b"\xff"])
def test_what_has_no_beginning_has_no_name(body: bytes) -> None:
    assert affinity(MESSAGES, body) is None
