"""How the fake provider answers: what a key's plan says, in the words of the API that was asked."""

import asyncio
import gzip
import json
import time
from collections.abc import Callable, Iterator, Mapping

import brotli
import zstandard

from loadtests import fake_answers
from loadtests.fake_answers import PROMPT_TOKENS, Json, ProviderError, StreamUsage
from loadtests.fake_provider_errors import WAIT_UNKNOWN_S, Api, Wait, refusal, told_wait_s
from loadtests.fake_provider_keys import PROCESSED, Behaviour, Does, Met
from loadtests.fake_provider_requests import GEMINI_MODELS, Asked
from loadtests.fake_requests import Ending
from loadtests.fake_wire import LAST_CHUNK, Exchange, chunk, response_head

REQUEST_ID = {Api.OPENAI: "x-request-id", Api.ANTHROPIC: "request-id", Api.GEMINI: "x-fake-request-id"}
EVENT_STREAM = [("content-type", "text/event-stream; charset=utf-8"), ("transfer-encoding", "chunked")]
JSON_TYPE = ("content-type", "application/json")
CODINGS: Mapping[bytes, Callable[[bytes], bytes]] = {
    b"br": brotli.compress,
    b"zstd": zstandard.compress,
    b"gzip": gzip.compress,
}
"""What errors are coded in for who takes it, the first that he does: so do the edges that providers stand behind."""


async def play(exchange: Exchange, asked: Asked, met: Met) -> None:
    """Do with a request what its key's plan says, and take note of it before the first byte is sent."""
    behaviour = met.behaviour
    if behaviour.delay_s:
        await asyncio.sleep(behaviour.delay_s)
    asked.processed = behaviour.does in PROCESSED
    match behaviour.does:
        case Does.OK | Does.CUT_AFTER:
            await _answer(exchange, asked, behaviour)
        case Does.SILENT:
            await exchange.connection.end(Ending.HOLD)
        case Does.CUT_BEFORE | Does.CUT_AFTER_WORK:
            await exchange.connection.end(behaviour.ending)
        case does:
            left_s = WAIT_UNKNOWN_S if met.left_s is None else met.left_s
            wait = Wait(left_s, behaviour.tells, time.time())
            asked.told_wait_s = told_wait_s(wait) if does is Does.RATE_LIMITED else None
            await refuse(exchange, asked, refusal(asked.api, does, wait))


async def refuse(exchange: Exchange, asked: Asked, error: ProviderError) -> None:
    asked.status = error.status
    headers = [JSON_TYPE, (REQUEST_ID[asked.api], "req_fake"), *error.headers]
    body = json.dumps(error.document).encode()
    taken = {name.strip() for value in asked.recorded.values("accept-encoding") for name in value.split(b",")}
    coding = next((name for name in CODINGS if name in taken), None)
    if coding is not None:
        headers.append(("content-encoding", coding.decode()))
        body = CODINGS[coding](body)
    await exchange.send(response_head(error.status, [*headers, ("content-length", str(len(body)))]) + body)


async def _answer(exchange: Exchange, asked: Asked, behaviour: Behaviour) -> None:
    asked.status = 200
    events = events_of(exchange, asked, behaviour.words)
    if events is not None:
        await _stream(exchange, asked, events, behaviour)
        return
    document = document_of(asked, behaviour.words)
    if behaviour.does is Does.OK:
        await exchange.send_document(document, headers=[(REQUEST_ID[asked.api], "req_fake")])
        return
    body = json.dumps(document).encode()
    head = response_head(200, [JSON_TYPE, ("content-length", str(len(body)))])
    await exchange.send(head + body[: len(body) // 2])
    await exchange.connection.end(behaviour.ending)


async def _stream(exchange: Exchange, asked: Asked, events: Iterator[bytes], behaviour: Behaviour) -> None:
    await exchange.send(response_head(200, [*EVENT_STREAM, (REQUEST_ID[asked.api], "req_fake")]))
    for number, event in enumerate(events):
        if behaviour.does is Does.CUT_AFTER and number == behaviour.events:
            await exchange.connection.end(behaviour.ending)
            return
        await exchange.send(chunk(event))
        await asyncio.sleep(behaviour.interval_s)
    await exchange.send(LAST_CHUNK)


def events_of(exchange: Exchange, asked: Asked, words: int) -> Iterator[bytes] | None:
    """The events of a stream, None for a request that wants none."""
    document = exchange.json_body()
    if asked.path.endswith(":streamGenerateContent"):
        return fake_answers.generate_content_events(asked.model, words)
    if not document.get("stream"):
        return None
    if asked.path == "/v1/messages":
        return fake_answers.message_events(asked.model, words)
    if asked.path == "/v1/responses":
        return fake_answers.response_events(asked.model, words)
    wants_usage = (document.get("stream_options") or {}).get("include_usage")
    usage = StreamUsage.LAST_CHUNK if wants_usage else StreamUsage.ABSENT
    return fake_answers.chat_completion_events(asked.model, words, usage)


def document_of(asked: Asked, words: int) -> Json:
    if asked.path in ("/v1/models", GEMINI_MODELS):
        return models_of(asked.api)
    match asked.path:
        case "/v1/messages":
            return fake_answers.message(asked.model, words)
        case "/v1/messages/count_tokens":
            return {"input_tokens": PROMPT_TOKENS}
        case "/v1/responses":
            return fake_answers.response(asked.model, words)
        case "/v1/chat/completions":
            return fake_answers.chat_completion(asked.model, words)
        case _:
            return fake_answers.generate_content(asked.model, words)


def models_of(api: Api) -> Json:
    """The list of models, which programs ask for to see whether a key is good."""
    if api is Api.OPENAI:
        return fake_answers.models()
    if api is Api.GEMINI:
        methods = ["generateContent", "countTokens"]
        return {"models": [{"name": "models/gemini-fake", "supportedGenerationMethods": methods}]}
    model = {"type": "model", "id": "claude-fake", "display_name": "Claude Fake", "created_at": "2025-10-09T08:53:20Z"}
    return {"data": [model], "has_more": False, "first_id": "claude-fake", "last_id": "claude-fake"}
