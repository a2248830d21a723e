"""What OpenAI, Anthropic and Google answer, as plain values: documents, server-sent events and errors.

Nothing here does I/O or reads a clock. The fake upstream sends these; their shapes follow the providers' API references
(platform.openai.com/docs/api-reference, docs.anthropic.com/en/api, ai.google.dev/api). Tokens are words: the fake
model answers `words` words, so that a test knows every figure in `usage` beforehand.
"""

import json
from collections.abc import Iterator
from enum import Enum
from typing import Any, NamedTuple

Json = dict[str, Any]

CREATED_UNIX_S = 1_760_000_000
PROMPT_TOKENS = 11


class ProviderError(NamedTuple):
    """An error as its provider documents it: status, extra headers, document."""

    status: int
    headers: tuple[tuple[str, str], ...]
    document: Json


class StreamUsage(Enum):
    """Whether a Chat Completions stream ends with a chunk of usage (`stream_options.include_usage`)."""

    ABSENT = 0
    LAST_CHUNK = 1


def answer_words(count: int) -> list[str]:
    """The fake model's answer, as the pieces in which it streams them."""
    return [f"word{number} " for number in range(count)]


def server_sent_event(document: Json, *, name: str | None = None) -> bytes:
    """One event as the providers frame it: an optional `event:` line, one `data:` line, an empty line."""
    data = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    prefix = f"event: {name}\n" if name else ""
    return f"{prefix}data: {data}\n\n".encode()


# OpenAI, Chat Completions


def chat_completion(model: str, words: int) -> Json:
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": CREATED_UNIX_S,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "".join(answer_words(words)),
                    "refusal": None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": _openai_usage(words),
        "service_tier": "default",
        "system_fingerprint": "fp_fake",
    }


def chat_completion_events(model: str, words: int, usage: StreamUsage) -> Iterator[bytes]:
    """The stream of `stream: true`; asked to include usage, its last chunk carries that and no choice."""

    def chunk(choices: list[Json], counted: Json | None = None) -> bytes:
        document: Json = {
            "id": "chatcmpl-fake",
            "object": "chat.completion.chunk",
            "created": CREATED_UNIX_S,
            "model": model,
            "service_tier": "default",
            "system_fingerprint": "fp_fake",
            "choices": choices,
        }
        return server_sent_event(document | ({} if usage is StreamUsage.ABSENT else {"usage": counted}))

    def choice(delta: Json, finish_reason: str | None = None) -> list[Json]:
        return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]

    yield chunk(choice({"role": "assistant", "content": "", "refusal": None}))
    for word in answer_words(words):
        yield chunk(choice({"content": word}))
    yield chunk(choice({}, "stop"))
    if usage is StreamUsage.LAST_CHUNK:
        yield chunk([], _openai_usage(words))
    yield b"data: [DONE]\n\n"


def _openai_usage(words: int) -> Json:
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": words,
        "total_tokens": PROMPT_TOKENS + words,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


# OpenAI, Responses


def response(model: str, words: int) -> Json:
    return _response(model, "completed", [_response_item(words, "completed")], words)


def response_events(model: str, words: int) -> Iterator[bytes]:
    """The stream of the Responses API: named events, each with a rising `sequence_number`."""
    place: Json = {"item_id": "msg_fake", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    text = "".join(answer_words(words))
    started = _response(model, "in_progress", [], None)
    events: list[Json] = [
        {"type": "response.created", "response": started},
        {"type": "response.in_progress", "response": started},
        {"type": "response.output_item.added", "output_index": 0, "item": _response_item(None, "in_progress")},
        {"type": "response.content_part.added", **place, "part": part},
        *(
            {"type": "response.output_text.delta", **place, "delta": word, "logprobs": []}
            for word in answer_words(words)
        ),
        {"type": "response.output_text.done", **place, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": part | {"text": text}},
        {"type": "response.output_item.done", "output_index": 0, "item": _response_item(words, "completed")},
        {"type": "response.completed", "response": response(model, words)},
    ]
    for number, event in enumerate(events):
        yield server_sent_event(event | {"sequence_number": number}, name=event["type"])


def _response_item(words: int | None, status: str) -> Json:
    text: list[Json] = []
    if words is not None:
        text = [{"type": "output_text", "text": "".join(answer_words(words)), "annotations": [], "logprobs": []}]
    return {"id": "msg_fake", "type": "message", "role": "assistant", "status": status, "content": text}


def _response(model: str, status: str, output: list[Json], words: int | None) -> Json:
    usage = None
    if words is not None:
        usage = {
            "input_tokens": PROMPT_TOKENS,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": words,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": PROMPT_TOKENS + words,
        }
    return {
        "id": "resp_fake",
        "object": "response",
        "created_at": CREATED_UNIX_S,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": model,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": usage,
        "user": None,
        "metadata": {},
    }


def models() -> Json:
    names = ("gpt-fake", "gpt-fake-mini")
    return {
        "object": "list",
        "data": [
            {"id": name, "object": "model", "created": CREATED_UNIX_S, "owned_by": "fake-upstream"} for name in names
        ],
    }


# Anthropic, Messages


def message(model: str, words: int) -> Json:
    return {
        "id": "msg_fake",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": "".join(answer_words(words))}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": _anthropic_usage(words),
    }


def message_events(model: str, words: int) -> Iterator[bytes]:
    """The Messages stream. `output_tokens` is cumulative; a ping comes where Anthropic sends one."""

    def event(document: Json) -> bytes:
        return server_sent_event(document, name=document["type"])

    start = message(model, 0) | {"content": [], "stop_reason": None, "usage": _anthropic_usage(1)}
    yield event({"type": "message_start", "message": start})
    yield event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    yield event({"type": "ping"})
    for word in answer_words(words):
        yield event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}})
    yield event({"type": "content_block_stop", "index": 0})
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    yield event({"type": "message_delta", "delta": delta, "usage": {"output_tokens": words}})
    yield event({"type": "message_stop"})


def _anthropic_usage(words: int) -> Json:
    return {
        "input_tokens": PROMPT_TOKENS,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": words,
        "service_tier": "standard",
    }


# Google, Gemini


def generate_content(model: str, words: int) -> Json:
    return _gemini_chunk(model, "".join(answer_words(words)), words, "STOP")


def generate_content_events(model: str, words: int) -> Iterator[bytes]:
    """The stream of `alt=sse`: unnamed events that end with CRLF CRLF, usage in each, and no `[DONE]`."""
    pieces = answer_words(words)
    for number, word in enumerate(pieces, start=1):
        chunk = _gemini_chunk(model, word, number, "STOP" if number == len(pieces) else None)
        yield server_sent_event(chunk).replace(b"\n\n", b"\r\n\r\n")


def _gemini_chunk(model: str, text: str, words: int, finish_reason: str | None) -> Json:
    candidate: Json = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    if finish_reason:
        candidate["finishReason"] = finish_reason
    return {
        "candidates": [candidate],
        "usageMetadata": {
            "promptTokenCount": PROMPT_TOKENS,
            "candidatesTokenCount": words,
            "totalTokenCount": PROMPT_TOKENS + words,
        },
        "modelVersion": model,
        "responseId": "fake",
    }


# Errors

RETRY_AFTER = (("retry-after", "7"),)

_OPENAI_ERRORS = {
    400: ("invalid_request_error", "invalid_value", "Invalid value for 'model'."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests."),
    500: ("server_error", None, "The server had an error while processing your request."),
    503: ("service_unavailable_error", None, "The engine is currently overloaded."),
}
_ANTHROPIC_ERRORS = {
    400: ("invalid_request_error", "max_tokens: Field required"),
    401: ("authentication_error", "invalid x-api-key"),
    404: ("not_found_error", "model: no such model"),
    413: ("request_too_large", "Request exceeds the maximum size"),
    429: ("rate_limit_error", "This request would exceed your organization's rate limit."),
    500: ("api_error", "Internal server error"),
    529: ("overloaded_error", "Overloaded"),
}
_GEMINI_ERRORS = {
    400: ("INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
    401: ("UNAUTHENTICATED", "Request had invalid authentication credentials."),
    404: ("NOT_FOUND", "models/none is not found for API version v1beta."),
    429: ("RESOURCE_EXHAUSTED", "You exceeded your current quota."),
    500: ("INTERNAL", "An internal error has occurred."),
    503: ("UNAVAILABLE", "The model is overloaded. Please try again later."),
}


def openai_error(status: int) -> ProviderError:
    kind, code, text = _OPENAI_ERRORS.get(status, _OPENAI_ERRORS[500])
    document = {"error": {"message": text, "type": kind, "param": None, "code": code}}
    limits = (("x-ratelimit-limit-requests", "500"), ("x-ratelimit-remaining-requests", "0"))
    return ProviderError(status, RETRY_AFTER + limits if status == 429 else (), document)


def anthropic_error(status: int) -> ProviderError:
    kind, text = _ANTHROPIC_ERRORS.get(status, _ANTHROPIC_ERRORS[500])
    document = {"type": "error", "error": {"type": kind, "message": text}, "request_id": "req_fake"}
    limits = (("anthropic-ratelimit-requests-limit", "50"), ("anthropic-ratelimit-requests-remaining", "0"))
    return ProviderError(status, RETRY_AFTER + limits if status == 429 else (), document)


def gemini_error(status: int) -> ProviderError:
    kind, text = _GEMINI_ERRORS.get(status, _GEMINI_ERRORS[500])
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}] if status == 429 else []
    return ProviderError(status, (), {"error": {"code": status, "message": text, "status": kind, "details": details}})
