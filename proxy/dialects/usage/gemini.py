"""`generateContent` and `streamGenerateContent` of Gemini, at generativelanguage.googleapis.com and on Vertex AI.

`usageMetadata` comes with each part of a stream and is cumulative; on Vertex AI it may have no figures before the last.
`promptTokenCount` includes the cached content; `toolUsePromptTokenCount`, which is input too, and `thoughtsTokenCount`,
which is output, are not in the other counts, but in `totalTokenCount`. Without `alt=sse` a stream is one JSON list.

Source: Gemini API, "UsageMetadata"; Vertex AI, "GenerateContentResponse".
"""

from typing import Any

import msgspec

from proxy.dialects.usage.forms import Form, Told, read, texts_behind
from proxy.rules.usage import Usage, count


class Metadata(msgspec.Struct, rename="camel"):
    prompt_token_count: Any = None
    cached_content_token_count: Any = None
    tool_use_prompt_token_count: Any = None
    candidates_token_count: Any = None
    thoughts_token_count: Any = None
    total_token_count: Any = None


class Candidate(msgspec.Struct, rename="camel"):
    finish_reason: Any = None


class Document(msgspec.Struct, rename="camel"):
    usage_metadata: Metadata | None = None
    candidates: list[Candidate] | None = None


class GenerationConfig(msgspec.Struct, rename="camel"):
    """Protocol buffers take a field in either spelling."""

    max_output_tokens: Any = None
    candidate_count: Any = None
    snake_max_output_tokens: Any = msgspec.field(name="max_output_tokens", default=None)
    snake_candidate_count: Any = msgspec.field(name="candidate_count", default=None)


class Request(msgspec.Struct, rename="camel"):
    generation_config: GenerationConfig | None = None
    snake_generation_config: GenerationConfig | None = msgspec.field(name="generation_config", default=None)


DOCUMENT = msgspec.json.Decoder(Document)
REQUEST = msgspec.json.Decoder(Request)


def told(document: bytes, before: Told) -> Told:
    """Returns what is told once a document has come. Final is what comes without candidates, or with a finished one."""
    found = read(DOCUMENT, document)
    if found is None or found.usage_metadata is None:
        return before
    usage = usage_of(found.usage_metadata)
    if usage == Usage():
        return before
    candidates = found.candidates or ()
    return Told(usage, not candidates or any(candidate.finish_reason is not None for candidate in candidates))


def usage_of(tokens: Metadata) -> Usage:
    """Returns what tokens are spent on, each of them once."""
    whole = count(tokens.prompt_token_count) + count(tokens.tool_use_prompt_token_count)
    written = count(tokens.candidates_token_count) + count(tokens.thoughts_token_count)
    cached = min(whole, count(tokens.cached_content_token_count))
    return Usage(whole - cached, max(written, count(tokens.total_token_count) - whole), cached)


def output_max(body: bytes, otherwise: int) -> int:
    """Returns how many tokens all candidates may have together, thoughts and all."""
    request = read(REQUEST, body)
    if request is None:
        return otherwise
    settings = request.generation_config or request.snake_generation_config or GenerationConfig()
    limit = max(count(settings.max_output_tokens), count(settings.snake_max_output_tokens)) or otherwise
    return count(limit * max(1, count(settings.candidate_count), count(settings.snake_candidate_count)))


FORM = Form(b'"usageMetadata"', told, texts_behind(b'"text'), output_max)
