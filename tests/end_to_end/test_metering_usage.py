"""Quotas of tokens and of money: what is reserved before a request, and what its answer then says was used."""

import json
from typing import Any

import pytest

from loadtests.fake_answers import PROMPT_TOKENS
from tests.end_to_end.calls import ANTHROPIC, GEMINI, OPENAI, Call
from tests.end_to_end.metering import (
    CUT,
    FAILING,
    INPUT_TOKENS,
    LATE,
    OUTPUT_TOKENS,
    SILENT,
    SLOW,
    SLOW_WORDS,
    Metering,
    Token,
)
from tests.end_to_end.raw_client import BodyEnd, RawClient, Response, request_bytes
from tests.end_to_end.waiting import eventually

QUOTA = 1_000_000_000
WORDS = 8
"""So many the provider's models say, a token each."""
RESPONSES = Call("openai", "/v1/responses", {"model": "gpt-fake", "input": "say"})
WITH_USAGE = Call("openai", OPENAI.path, {**OPENAI.document, "stream_options": {"include_usage": True}}).streamed()
TOLD = {
    "chat": OPENAI,
    "chat streamed": WITH_USAGE,
    "responses": RESPONSES,
    "responses streamed": RESPONSES.streamed(),
    "messages": ANTHROPIC,
    "messages streamed": ANTHROPIC.streamed(),
    "gemini": GEMINI,
    "gemini streamed": GEMINI.streamed(),
}


def asked(metering: Metering, token: Token, call: Call, route: str = "/own") -> Response:
    return metering.ask(f"{route}/{call.route}{call.path}", token, call.document)


def reserved(call: Call, output: int = OUTPUT_TOKENS) -> int:
    """What a call takes before it is sent: a token for four bytes of its body, and what it may answer."""
    return -(-len(json.dumps(call.document)) // 4) + output


def amounts(metering: Metering, token: Token) -> tuple[list[tuple[str, int]], str]:
    """The changes of the only request, and what its usage rests on."""
    rows = metering.ended_rows(token, 1)
    return [(row["action"], row["quota_change"]) for row in rows], rows[0]["usage"]


@pytest.mark.parametrize("call", TOLD.values(), ids=TOLD.keys())
@pytest.mark.parametrize("route", ["", "/own"])
def test_what_the_provider_tells_is_what_is_taken(metering: Metering, call: Call, route: str) -> None:
    token = metering.token(QUOTA, unit="tokens")
    assert asked(metering, token, call, route).status == 200
    metering.remains(token, QUOTA - PROMPT_TOKENS - WORDS)
    before = reserved(call, call.document.get("max_tokens", OUTPUT_TOKENS))
    taken, usage = amounts(metering, token)
    assert taken == [("consume", -before), ("settle", before - PROMPT_TOKENS - WORDS)]
    assert usage == "exact"


def test_a_stream_that_tells_nothing_is_estimated(metering: Metering) -> None:
    token = metering.token(QUOTA, unit="tokens")
    call = OPENAI.streamed()
    assert asked(metering, token, call).status == 200
    taken, usage = amounts(metering, token)
    text = len("".join(f"word{number} " for number in range(WORDS)))
    used = -(-len(json.dumps(call.document)) // 4) + -(-text // 4)
    assert -sum(change for _, change in taken) == pytest.approx(used, abs=3)
    assert usage == "estimated"


def test_money_is_counted_to_the_billionth(metering: Metering) -> None:
    token = metering.token(QUOTA, unit="nano_usd")
    assert asked(metering, token, WITH_USAGE).status == 200
    metering.remains(token, QUOTA - PROMPT_TOKENS * 1000 - WORDS * 2000)
    assert asked(metering, token, ANTHROPIC.streamed()).status == 200
    metering.remains(token, QUOTA - PROMPT_TOKENS * 1000 - WORDS * 2000 - PROMPT_TOKENS * 3000 - WORDS * 15_000)


def test_errors_cost_nothing(metering: Metering) -> None:
    token = metering.token(QUOTA, unit="tokens")
    failing = OPENAI._replace(document={**OPENAI.document, "model": FAILING})
    assert asked(metering, token, failing).status == 500
    metering.remains(token, QUOTA)
    taken, usage = amounts(metering, token)
    assert taken == [("consume", -reserved(failing)), ("settle", reserved(failing))]
    assert usage is None


def test_what_only_reads_costs_nothing_and_what_tells_nothing_the_estimate(metering: Metering) -> None:
    token = metering.token(QUOTA, unit="tokens")
    assert metering.ask("/own/openai/v1/models", token).status == 200
    assert metering.ask("/up/echo", token, {"n": 1}).status == 200
    metering.remains(token, QUOTA - INPUT_TOKENS - OUTPUT_TOKENS)
    assert [row["usage"] for row in metering.ended_rows(token, 2)] == ["unknown", "unknown"]


@pytest.mark.parametrize(
    "document",
    [
        {"max_tokens": -5},
        {"max_tokens": "many"},
        {"max_tokens": 1e300},
        {"max_tokens": [], "n": {}},
        {"max_tokens": 10**30},
    ],
)
def test_a_request_cannot_reserve_less_than_nothing(metering: Metering, document: dict[str, Any]) -> None:
    token = metering.token(10_000, unit="tokens")
    call = OPENAI._replace(document={**OPENAI.document, **document})
    if asked(metering, token, call).status == 200:
        metering.remains(token, 10_000 - PROMPT_TOKENS - WORDS)
    else:
        assert metering.remaining(token) == 10_000


def test_the_quota_ends_exactly(metering: Metering) -> None:
    """What is reserved must fit, and what was not used comes back for others."""
    call = OPENAI._replace(document={**OPENAI.document, "max_tokens": 30})
    cost, used = reserved(call, 30), PROMPT_TOKENS + WORDS
    token = metering.token(cost + 2 * used, unit="tokens")
    for turn in range(3):
        assert asked(metering, token, call).status == 200
        metering.remains(token, cost + (1 - turn) * used)
    answer = asked(metering, token, call)
    assert (answer.status, answer.error_type()) == (429, "quota_exceeded")
    assert metering.remaining(token) == cost - used


# Clients that leave, and streams that break off


def streaming(metering: Metering, token: Token, client: RawClient, call: Call, route: str) -> None:
    """Returns once some of the answer has come."""
    path = f"{route}/{call.route}{call.path}"
    client.send(request_bytes("POST", path, metering.shown(path, token), json.dumps(call.document).encode()))
    assert client.read_head().status == 200
    while b"word" not in client.buffered():
        client.receive_more()


@pytest.mark.parametrize("call", [WITH_USAGE, ANTHROPIC.streamed()], ids=["openai", "anthropic"])
def test_a_client_that_leaves_a_drained_route_is_charged_what_was_used(metering: Metering, call: Call) -> None:
    call = call._replace(document={**call.document, "model": SLOW})
    token = metering.token(QUOTA, unit="tokens")
    with metering.system.client() as client:
        streaming(metering, token, client, call, "/drained")
    taken, usage = amounts(metering, token)
    assert (-sum(change for _, change in taken), usage) == (PROMPT_TOKENS + SLOW_WORDS, "exact")
    (consumed, _) = metering.ended_rows(token, 1)
    assert (consumed["execution_success"], consumed["execution_error_type"]) == (False, "client_left")


def test_a_client_that_leaves_another_route_is_charged_what_was_seen(metering: Metering) -> None:
    call = WITH_USAGE._replace(document={**WITH_USAGE.document, "model": SLOW})
    token = metering.token(QUOTA, unit="tokens")
    with metering.system.client() as client:
        streaming(metering, token, client, call, "/own")
    taken, usage = amounts(metering, token)
    input_tokens = -(-len(json.dumps(call.document)) // 4)
    assert input_tokens < -sum(change for _, change in taken) < input_tokens + 2 * SLOW_WORDS
    assert usage == "estimated"


@pytest.mark.parametrize("route", ["/own", "/drained"])
def test_a_stream_that_is_cut_is_charged_what_was_seen(metering: Metering, route: str) -> None:
    call = WITH_USAGE._replace(document={**WITH_USAGE.document, "model": CUT})
    token = metering.token(QUOTA, unit="tokens")
    assert asked(metering, token, call, route).end is not BodyEnd.COMPLETE
    taken, usage = amounts(metering, token)
    assert 0 < -sum(change for _, change in taken) < reserved(call)
    assert usage == "estimated"


@pytest.mark.parametrize("refunds", [True, False])
def test_who_leaves_before_an_answer_pays_what_was_reserved(metering: Metering, refunds: bool) -> None:  # noqa: FBT001
    """It was sent, so that the provider may well work on."""
    call = OPENAI._replace(document={**OPENAI.document, "model": SILENT})
    token = metering.token(QUOTA, unit="tokens", refunds=refunds)
    leave_unanswered(metering, token, call, "/own")
    taken, usage = amounts(metering, token)
    assert (taken, usage) == ([("consume", -reserved(call))], "unknown")


def leave_unanswered(metering: Metering, token: Token, call: Call, route: str) -> None:
    """Leaves once the provider has the request."""
    path = f"{route}/{call.route}{call.path}"
    since = len(metering.provider.asked)
    with metering.system.client() as client:
        client.send(request_bytes("POST", path, metering.shown(path, token), json.dumps(call.document).encode()))
        eventually(lambda: len(metering.provider.asked) > since, what="the request at the provider")


@pytest.mark.parametrize("call", [OPENAI, WITH_USAGE], ids=["whole", "streamed"])
def test_who_leaves_a_drained_route_before_an_answer_pays_what_it_tells(metering: Metering, call: Call) -> None:
    token = metering.token(QUOTA, unit="tokens")
    leave_unanswered(metering, token, call._replace(document={**call.document, "model": LATE}), "/drained")
    taken, usage = amounts(metering, token)
    assert (-sum(change for _, change in taken), usage) == (PROMPT_TOKENS + WORDS, "exact")
