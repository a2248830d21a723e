"""Answers of each form, shaped as the providers' documents and recorded streams show them, with what they took."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from proxy.rules.usage import Usage

EVENTS = b"text/event-stream; charset=utf-8"
JSON = b"application/json"


class Transcript(NamedTuple):
    """One whole answer. `usage` is what the provider counts, None where the answer does not tell."""

    path: bytes
    content_type: bytes
    body: bytes
    usage: Usage | None


def data(*documents: Any, end: bytes = b"\n\n") -> bytes:
    """Events without names, as OpenAI (and Gemini, with other line ends) sends them."""
    return b"".join(b"data: " + msgspec.json.encode(document) + end for document in documents)


def named(*documents: Any) -> bytes:
    """Events named by the type of their document, as Anthropic and OpenAI's responses have them."""
    lines = [f"event: {document['type']}\n".encode() + data(document) for document in documents]
    return b"".join(lines)


def spaced(document: bytes) -> bytes:
    """As a server writes JSON in Python: with a space behind colons and commas."""
    return document.replace(b'":', b'": ').replace(b',"', b', "')


def chunk(choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG",
        "object": "chat.completion.chunk",
        "created": 1741570283,
        "model": "gpt-4o-2024-08-06",
        "service_tier": "default",
        "system_fingerprint": "fp_fc9f1d7035",
        "choices": choices,
        **more,
    }


def choice(finish_reason: str | None = None, **delta: Any) -> list[dict[str, Any]]:
    return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]


TEXTS = ("Hello", "!", ' A "quoted" word, a \\ and \u4e2d\u6587;', ' {"usage":{"prompt_tokens":1}} data: ', "\n\ndone")
CHAT_USAGE = {
    "prompt_tokens": 1486,
    "completion_tokens": 651,
    "total_tokens": 2137,
    "prompt_tokens_details": {"cached_tokens": 1408, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 512, "audio_tokens": 0, "accepted_prediction_tokens": 0},
}
CHAT_USED = Usage(78, 651, 1408)
DONE = b"data: [DONE]\n\n"


def chat_events(texts: Iterable[str], **more: Any) -> bytes:
    first = data(chunk(choice(role="assistant", content="", refusal=None), **more))
    return first + data(*(chunk(choice(content=text), **more, obfuscation="zK3xQ") for text in texts))


CHAT_STREAM = Transcript(
    b"/v1/chat/completions",
    EVENTS,
    chat_events(TEXTS, usage=None) + data(chunk(choice("stop"), usage=None), chunk([], usage=CHAT_USAGE)) + DONE,
    CHAT_USED,
)
CHAT_STREAM_UNTOLD = Transcript(
    b"/v1/chat/completions", EVENTS, chat_events(TEXTS) + data(chunk(choice("stop"))) + DONE, None
)
CHAT_STREAM_OF_TOOLS = Transcript(
    b"/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
    EVENTS,
    data(
        chunk(choice(role="assistant", content=None)),
        chunk(choice(tool_calls=[{"index": 0, "id": "call_1", "function": {"name": "f", "arguments": ""}}])),
        chunk(choice(tool_calls=[{"index": 0, "function": {"arguments": '{"city":"Paris"}'}}])),
        chunk(choice("tool_calls")),
        chunk([], usage={"prompt_tokens": 82, "completion_tokens": 17, "total_tokens": 99}),
    )
    + DONE,
    Usage(82, 17),
)
DEEPSEEK_STREAM = Transcript(
    b"/chat/completions",
    EVENTS,
    data(
        chunk(choice(content=None, reasoning_content="The user"), usage=None),
        chunk(choice(content="Hi", reasoning_content=None), usage=None),
        chunk(
            choice("stop", content="", reasoning_content=None),
            usage={
                "prompt_tokens": 100,
                "completion_tokens": 30,
                "total_tokens": 130,
                "prompt_tokens_details": {"cached_tokens": 64},
                "completion_tokens_details": {"reasoning_tokens": 20},
                "prompt_cache_hit_tokens": 64,
                "prompt_cache_miss_tokens": 36,
            },
        ),
    )
    + DONE,
    Usage(36, 30, 64),
)
# Each event tells what was used by then, and completion tokens do not include the reasoning.
XAI_STREAM = Transcript(
    b"/v1/chat/completions",
    EVENTS,
    data(
        *(
            chunk(
                choice("stop" if number == 4 else None, content="word "),
                usage={
                    "prompt_tokens": 12,
                    "completion_tokens": number,
                    "total_tokens": 12 + number + 200,
                    "prompt_tokens_details": {"text_tokens": 12, "cached_tokens": 4},
                    "completion_tokens_details": {"reasoning_tokens": 200},
                },
            )
            for number in range(1, 5)
        )
    )
    + DONE,
    Usage(8, 204, 4),
)
GROQ_STREAM = Transcript(
    b"/openai/v1/chat/completions",
    EVENTS,
    data(chunk(choice(content="Hi"), x_groq={"id": "req_01j"}))
    + data(
        chunk(
            choice("stop"),
            x_groq={"id": "req_01j", "usage": {"queue_time": 0.02, "prompt_tokens": 19, "completion_tokens": 2}},
        )
    )
    + DONE,
    Usage(19, 2),
)
CHAT_STREAM_SPACED = CHAT_STREAM._replace(body=spaced(CHAT_STREAM.body))
CHAT = Transcript(
    b"/v1/chat/completions",
    JSON,
    msgspec.json.encode(
        {
            "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
            "object": "chat.completion",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "".join(TEXTS)}, "finish_reason": "stop"}
            ],
            "usage": CHAT_USAGE,
        }
    ),
    CHAT_USED,
)
COMPLETION = Transcript(
    b"/v1/completions",
    JSON,
    b'{"id":"cmpl-uqkv","object":"text_completion","choices":[{"text":"\\n\\nThis is a test","index":0,'
    b'"logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}',
    Usage(5, 7),
)
EMBEDDINGS = Transcript(
    b"/v1/embeddings",
    JSON,
    b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.0023,-0.0093]}],'
    b'"model":"text-embedding-3-small","usage":{"prompt_tokens":8,"total_tokens":8}}',
    Usage(8),
)


def response(status: str, usage: dict[str, Any] | None) -> dict[str, Any]:
    """A response repeats what was asked for, with a tool whose parameters the client has named."""
    return {
        "id": "resp_67c9fdcecf488190bdd9a0409de3a1ec07b8b0ad4e5eb654",
        "object": "response",
        "created_at": 1741290958,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "max_output_tokens": None,
        "model": "gpt-4.1-2025-04-14",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "".join(TEXTS)}]}],
        "tools": [
            {
                "type": "function",
                "name": "spend",
                "parameters": {"properties": {"usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}}},
            }
        ],
        "usage": usage,
        "metadata": {"output_tokens": "1"},
    }


RESPONSE_USAGE = {
    "input_tokens": 328,
    "input_tokens_details": {"cached_tokens": 300},
    "output_tokens": 52,
    "output_tokens_details": {"reasoning_tokens": 20},
    "total_tokens": 380,
}
RESPONSE_USED = Usage(28, 52, 300)


def response_events(last: str) -> bytes:
    return named(
        {"type": "response.created", "sequence_number": 0, "response": response("in_progress", None)},
        {"type": "response.in_progress", "sequence_number": 1, "response": response("in_progress", None)},
        *(
            {
                "type": "response.output_text.delta",
                "sequence_number": number,
                "item_id": "msg_67c9fdcf37fc8190ba82116e33fb28c507b8b0ad4e5eb654",
                "output_index": 0,
                "content_index": 0,
                "delta": text,
                "logprobs": [],
            }
            for number, text in enumerate(TEXTS, 2)
        ),
        {"type": "response.output_text.done", "sequence_number": 9, "output_index": 0, "text": "".join(TEXTS)},
        {"type": f"response.{last}", "sequence_number": 10, "response": response(last, RESPONSE_USAGE)},
    )


RESPONSES_STREAM = Transcript(b"/v1/responses", EVENTS, response_events("completed"), RESPONSE_USED)
RESPONSES_STREAM_INCOMPLETE = Transcript(b"/v1/responses", EVENTS, response_events("incomplete"), RESPONSE_USED)
RESPONSES_STREAM_FAILED = Transcript(b"/v1/responses", EVENTS, response_events("failed"), RESPONSE_USED)
RESPONSE = Transcript(b"/v1/responses", JSON, msgspec.json.encode(response("completed", RESPONSE_USAGE)), RESPONSE_USED)


def block(index: int, delta: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


MESSAGES_STREAM = Transcript(
    b"/v1/messages",
    EVENTS,
    named(
        {
            "type": "message_start",
            "message": {
                "id": "msg_1nZdL29xx5MUA1yADyHTEsnR8uuvGzszyY",
                "type": "message",
                "role": "assistant",
                "content": [],
                "model": "claude-sonnet-4-5-20250929",
                "stop_reason": None,
                "usage": {
                    "input_tokens": 25,
                    "cache_creation_input_tokens": 200,
                    "cache_read_input_tokens": 1000,
                    "cache_creation": {"ephemeral_5m_input_tokens": 150, "ephemeral_1h_input_tokens": 50},
                    "output_tokens": 1,
                    "service_tier": "standard",
                },
            },
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *(block(0, {"type": "text_delta", "text": text}) for text in TEXTS),
        {"type": "content_block_stop", "index": 0},
        block(1, {"type": "input_json_delta", "partial_json": '{"location": "San Fra'}),
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {
                "input_tokens": 25,
                "cache_creation_input_tokens": 200,
                "cache_read_input_tokens": 1000,
                "output_tokens": 150,
            },
        },
        {"type": "message_stop"},
    ),
    Usage(25, 150, 1000, 150, 50),
)
# With tools of the provider's own, the last event tells what these have read, too.
MESSAGES_STREAM_OF_TOOLS = Transcript(
    b"/anthropic/v1/messages?beta=true",
    EVENTS,
    named(
        {"type": "message_start", "message": {"usage": {"input_tokens": 2679, "output_tokens": 3}}},
        block(0, {"type": "thinking_delta", "thinking": "I'll check"}),
        {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": 40}},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {
                "input_tokens": 10682,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": 510,
                "server_tool_use": {"web_search_requests": 1},
            },
        },
        {"type": "message_stop"},
    ),
    Usage(10682, 510),
)
MESSAGE = Transcript(
    b"/v1/messages",
    JSON,
    b'{"id":"msg_013Zva2CMHLNnjNjJJKqJ2EF","type":"message","role":"assistant","content":[{"type":"text",'
    b'"text":"Hi! My name is Claude."}],"model":"claude-opus-4-1","stop_reason":"end_turn","stop_sequence":null,'
    b'"usage":{"input_tokens":2095,"cache_creation_input_tokens":10,"cache_read_input_tokens":5,"output_tokens":503}}',
    Usage(2095, 503, 5, 10),
)
VERTEX_MESSAGE = MESSAGE._replace(
    path=b"/v1/projects/p/locations/us-east5/publishers/anthropic/models/claude-opus-4-1@20250805:rawPredict"
)


def candidate(text: str, **more: Any) -> list[dict[str, Any]]:
    return [{"content": {"parts": [{"text": text}], "role": "model"}, "index": 0, **more}]


def gemini_part(number: int, text: str, **more: Any) -> dict[str, Any]:
    return {
        "candidates": candidate(text, **more),
        "usageMetadata": {
            "promptTokenCount": 120,
            "cachedContentTokenCount": 100,
            "candidatesTokenCount": 4 * number,
            "toolUsePromptTokenCount": 30,
            "thoughtsTokenCount": 40,
            "totalTokenCount": 190 + 4 * number,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 120}],
        },
        "modelVersion": "gemini-2.5-flash",
        "responseId": "xhTvaLeGG5qCxN8P",
    }


GEMINI_PARTS = [*(gemini_part(n, text) for n, text in enumerate(TEXTS, 1)), gemini_part(9, "", finishReason="STOP")]
GEMINI_USED = Usage(50, 76, 100)
GEMINI_STREAM = Transcript(
    b"/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
    EVENTS,
    spaced(data(*GEMINI_PARTS, end=b"\r\n\r\n")),
    GEMINI_USED,
)
VERTEX_STREAM = Transcript(
    b"/v1/projects/p/locations/global/publishers/google/models/gemini-3-flash:streamGenerateContent?alt=sse",
    EVENTS,
    data(
        *({"candidates": candidate(text), "usageMetadata": {"trafficType": "ON_DEMAND"}} for text in TEXTS),
        {
            "candidates": candidate("", finishReason="STOP"),
            "usageMetadata": {
                "promptTokenCount": 1,
                "candidatesTokenCount": 9,
                "totalTokenCount": 10,
                "trafficType": "ON_DEMAND",
            },
        },
        end=b"\r\n\r\n",
    ),
    Usage(1, 9),
)
GEMINI_LIST = Transcript(
    b"/v1beta/models/gemini-2.5-flash:streamGenerateContent",
    JSON + b"; charset=UTF-8",
    b"[" + b",\r\n".join(map(msgspec.json.encode, GEMINI_PARTS)) + b"]\n",
    GEMINI_USED,
)
GEMINI = Transcript(
    b"/v1beta/models/gemini-2.5-flash:generateContent",
    JSON,
    msgspec.json.format(msgspec.json.encode(GEMINI_PARTS[-1])),
    GEMINI_USED,
)

STREAMS = {name: value for name, value in globals().items() if isinstance(value, Transcript) and "STREAM" in name}
DOCUMENTS = {name: value for name, value in globals().items() if isinstance(value, Transcript) and "STREAM" not in name}
