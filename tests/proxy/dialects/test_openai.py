"""OpenAI: what its answers say, which model is asked for, and what names a conversation."""

from typing import Any

import msgspec
import pytest

from proxy.dialects.openai import affinity, judge, model
from proxy.rules.credentials import Says, Verdict
from tests.proxy.dialects.bodies import JSON, openai

NOW_S = 1_700_000_000.0
CHAT = b"/v1/chat/completions"

QUOTA = "You exceeded your current quota, please check your plan and billing details."
TOO_LARGE = (
    "Request too large for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, Requested 30601."
    " The input or output tokens must be reduced in order to run successfully."
)
LIMIT = (
    "Rate limit reached for gpt-4 in organization org-1 on tokens per min (TPM): Limit 10000, Used 8554, Requested"
    " 3082. Please try again in 9.816s. Visit https://platform.openai.com/account/rate-limits to learn more."
)
NO_MODEL = "The model `gpt-4o-2024-08-06` does not exist or you do not have access to it."
SCOPES = "You have insufficient permissions for this operation. Missing scopes: %s. Check that you have the role."
TERMINATED = "Your access was terminated due to violation of our policies, please check your email."
KEY_LIMIT = "Key limit exceeded (total limit). Manage it using https://openrouter.ai/settings/keys"
NO_CREDITS = "Your newly created team doesn't have any credits or licenses yet."
RESTRICTED = "Organization has been restricted. Please reach out to support if you believe this was in error."
FREE_TIER = "The free tier of the model has been exhausted."


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, b"", Verdict(Says.SUCCESS)),
        (302, b"", Verdict(Says.SUCCESS)),
        (429, openai(QUOTA, "insufficient_quota", "insufficient_quota"), Verdict(Says.OUT_OF_QUOTA)),
        (429, openai(QUOTA, "insufficient_quota", None), Verdict(Says.OUT_OF_QUOTA)),
        (429, openai(LIMIT, "tokens", "rate_limit_exceeded"), Verdict(Says.RATE_LIMITED, 9.816, for_model=True)),
        (429, openai(TOO_LARGE, "tokens", "rate_limit_exceeded"), Verdict(Says.NOTHING)),
        (429, openai("Your account is not active.", "billing_not_active", None), Verdict(Says.OUT_OF_QUOTA)),
        (429, b"", Verdict(Says.RATE_LIMITED, None, for_model=True)),
        (
            401,
            openai("Incorrect API key provided: sk-a***b.", "invalid_request_error", "invalid_api_key"),
            Verdict(Says.DEAD),
        ),
        (401, openai("Your account was deactivated.", None, "account_deactivated"), Verdict(Says.DEAD)),
        (
            401,
            openai("You must be a member of an organization to use the API.", None, "no_organization"),
            Verdict(Says.DEAD),
        ),
        (
            401,
            openai("Your authentication token has expired.", "invalid_request_error", None),
            Verdict(Says.UNAUTHORIZED),
        ),
        (
            401,
            openai("OpenAI-Organization header should match", None, "mismatched_organization"),
            Verdict(Says.NOTHING),
        ),
        (
            401,
            openai(SCOPES % "model.request", "invalid_request_error", None),
            Verdict(Says.NOT_ENTITLED, None, for_model=True),
        ),
        (401, openai(SCOPES % "api.responses.write", "invalid_request_error", None), Verdict(Says.FORBIDDEN)),
        (
            401,
            openai("Your request to GET /v1/dashboard/billing/usage must be made", "server_error", None),
            Verdict(Says.NOTHING),
        ),
        (403, openai("Missing scopes: api.files.read", None, "missing_scope"), Verdict(Says.FORBIDDEN)),
        (401, openai("Your IP is not authorized.", None, "ip_not_authorized"), Verdict(Says.UNAUTHORIZED)),
        (403, openai(TERMINATED, "access_terminated", None), Verdict(Says.DEAD)),
        (400, openai(RESTRICTED, "invalid_request_error", "organization_restricted"), Verdict(Says.DEAD)),
        (403, msgspec.json.encode({"error": {"message": KEY_LIMIT, "code": 403}}), Verdict(Says.OUT_OF_QUOTA)),
        (403, msgspec.json.encode({"code": "x", "error": NO_CREDITS}), Verdict(Says.OUT_OF_QUOTA)),
        (403, b'{"code":"INSUFFICIENT_BALANCE","message":"Insufficient account balance"}', Verdict(Says.OUT_OF_QUOTA)),
        (400, openai("Access denied.", "Arrearage", "Arrearage"), Verdict(Says.OUT_OF_QUOTA)),
        (429, openai("No credits.", "insufficient_quota", "credit_balance_exhausted"), Verdict(Says.OUT_OF_QUOTA)),
        (
            403,
            openai(FREE_TIER, "AllocationQuota.FreeTierOnly", "AllocationQuota.FreeTierOnly"),
            Verdict(Says.NOT_ENTITLED, None, for_model=True),
        ),
        (
            403,
            openai("The model `m` is blocked.", "permissions_error", "model_permission_blocked_project"),
            Verdict(Says.NOT_ENTITLED, None, for_model=True),
        ),
        (
            403,
            openai("Project `p` does not have access to model `m`", None, "model_not_found"),
            Verdict(Says.NOT_ENTITLED, None, for_model=True),
        ),
        (
            404,
            openai(NO_MODEL, "invalid_request_error", "model_not_found"),
            Verdict(Says.NOT_ENTITLED, None, for_model=True),
        ),
        (404, openai("Invalid URL (GET /v1/x)", "invalid_request_error", None), Verdict(Says.NOTHING)),
        (
            403,
            openai("Country not supported", "request_forbidden", "unsupported_country_region_territory"),
            Verdict(Says.NOTHING),
        ),
        (403, openai("No.", None, None), Verdict(Says.FORBIDDEN)),
        (
            402,
            b'{"error":{"message":"Insufficient Balance","code":"invalid_request_error"}}',
            Verdict(Says.OUT_OF_QUOTA),
        ),
        (
            400,
            openai("context length exceeded", "invalid_request_error", "context_length_exceeded"),
            Verdict(Says.NOTHING),
        ),
        (
            400,
            b'{"code":"Client specified an invalid argument","error":"Incorrect API key provided: xai."}',
            Verdict(Says.DEAD),
        ),
        (413, b"", Verdict(Says.NOTHING)),
        (422, b"", Verdict(Says.NOTHING)),
        (500, openai("The server had an error", "server_error", None), Verdict(Says.FAILED)),
        (503, openai("Slow Down", "server_error", "slow_down"), Verdict(Says.OVERLOADED)),
        (520, b"<html>", Verdict(Says.FAILED)),
    ],
)
def test_an_answer_says_what_its_code_means_and_else_its_status(status: int, body: bytes, verdict: Verdict) -> None:
    assert judge(status, JSON, body, NOW_S) == verdict


def test_a_message_that_repeats_the_clients_words_does_not_speak_for_the_provider() -> None:
    body = openai("Unknown parameter: 'incorrect api key provided'. insufficient_quota", "invalid_request_error", None)
    assert judge(400, JSON, body, NOW_S) == Verdict(Says.NOTHING)


def test_a_field_that_the_client_made_up_does_not_speak_for_the_provider() -> None:
    body = openai("Incorrect API key provided: sk-a: Extra inputs are not permitted", "invalid_request_error", None)
    assert judge(400, JSON, body, NOW_S) == Verdict(Says.NOTHING)


def test_azure_writes_the_wait_in_seconds() -> None:
    body = openai("Requests have exceeded token rate limit. Please retry after 86400 seconds.", None, "429")
    assert judge(429, JSON, body, NOW_S).wait_s == 86_400.0


def test_a_refusal_of_the_edge_before_the_api_says_nothing_of_the_key() -> None:
    page = [(b"content-type", b"text/html; charset=UTF-8")]
    assert judge(403, page, b"<!DOCTYPE html><title>Attention Required!</title>", NOW_S) == Verdict(Says.NOTHING)


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        (CHAT, b'{"messages":[],"model":"gpt-4o"}', "gpt-4o"),
        (b"/openai/deployments/my-gpt/chat/completions", b"{}", "my-gpt"),
        (CHAT, b'{"model":"gpt-4o","mess', ""),
        (CHAT, b'{"model":7}', ""),
        (CHAT, b'{"model":"a\\u0000b"}', ""),
        (CHAT, b'{"model":"' + b"x" * 257 + b'"}', ""),
        (CHAT, b"--boundary\r\n", ""),
        (CHAT, b"", ""),
        (CHAT, b"[" * 100_000, ""),
        (CHAT, b'{"model":"\xff"}', ""),
    ],
)
def test_the_model_is_in_the_body_or_in_azures_path(path: bytes, body: bytes, name: str) -> None:
    assert model(path, body) == name


def chat(*turns: tuple[str, Any], **more: Any) -> bytes:
    messages = [{"role": role, "content": content} for role, content in turns]
    return msgspec.json.encode({"model": "gpt-4o", "messages": messages, **more})


FIRST = (("system", "Be brief."), ("user", "Hello"))


def test_all_turns_of_a_conversation_have_one_name() -> None:
    named = affinity(CHAT, chat(*FIRST))
    assert named is not None
    assert len(named) == 16
    assert affinity(CHAT, chat(*FIRST, ("assistant", "Hi"), ("user", "And now?"), temperature=1)) == named
    assert affinity(CHAT, chat(*FIRST).replace(b",", b" , ")) == named


@pytest.mark.parametrize(
    "other",
    [
        chat(("system", "Be brief."), ("user", "Hello!")),
        chat(("system", "Be long."), ("user", "Hello")),
        chat(("system", "Be brief.Hello"), ("user", "")),
        chat(("user", "Hello")),
        chat(*FIRST).replace(b"gpt-4o", b"gpt-5"),
        chat(*FIRST, prompt_cache_key="k"),
    ],
)
def test_another_conversation_has_another(other: bytes) -> None:
    assert affinity(CHAT, other) not in (None, affinity(CHAT, chat(*FIRST)))


def test_the_clients_own_key_names_it_whatever_is_said() -> None:
    one, two = chat(*FIRST, prompt_cache_key="k"), chat(("user", "Other"), prompt_cache_key="k")
    assert affinity(CHAT, one) == affinity(CHAT, two) is not None


def test_a_response_is_named_by_its_conversation_or_its_beginning() -> None:
    def responded(**request: Any) -> bytes | None:
        return affinity(b"/v1/responses", msgspec.json.encode({"model": "gpt-5", **request}))

    assert (
        responded(conversation="conv_1", input="a") == responded(conversation={"id": "conv_1"}, input="b") is not None
    )
    items = [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}]
    assert responded(instructions="i", input="a") == responded(instructions="i", input=[*items, {"type": "reasoning"}])
    assert responded(previous_response_id="resp_1", input="b") is None


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b'{"messages":[]}', b'{"messages":7}', b'{"messages":[7]}', chat(*FIRST)[:-1], b"\xff", b"[" * 9999],
)
def test_what_has_no_beginning_has_no_name(body: bytes) -> None:
    assert affinity(CHAT, body) is None
