"""Chat completions, completions and embeddings of OpenAI, and of the many that copy them.

A stream tells its usage where the request asked for that (`stream_options.include_usage`): in one more event, without
choices, while all others have `"usage": null`. Some tell it in the last event with a choice (DeepSeek, Mistral), some
in each event so far (xAI), Groq in `x_groq`.

`prompt_tokens` include cached ones, `completion_tokens` the reasoning; not so xAI's and Gemini's, whose
`total_tokens` tells the rest. DeepSeek calls cached tokens `prompt_cache_hit_tokens`, OpenRouter adds
`cache_write_tokens`.

Sources: OpenAI, API reference "Chat", guide "Prompt caching"; xAI, "Usage & Pricing"; DeepSeek, "Context Caching".
"""

from typing import Any

import msgspec

from proxy.dialects.usage.forms import Form, Told, read, texts_behind
from proxy.rules.usage import Usage, count


class Details(msgspec.Struct, gc=False):
    cached_tokens: Any = None
    cache_write_tokens: Any = None


class Tokens(msgspec.Struct):
    """A usage as OpenAI spells it, in chat completions or in responses."""

    prompt_tokens: Any = None
    completion_tokens: Any = None
    input_tokens: Any = None
    output_tokens: Any = None
    total_tokens: Any = None
    prompt_cache_hit_tokens: Any = None
    prompt_tokens_details: Details | None = None
    input_tokens_details: Details | None = None


class Choice(msgspec.Struct):
    finish_reason: Any = None


class Holder(msgspec.Struct):
    usage: Tokens | None = None


class Document(msgspec.Struct):
    """What of an event, or of a whole answer, tells of its usage."""

    usage: Tokens | None = None
    choices: list[Choice] | None = None
    x_groq: Holder | None = None


class Request(msgspec.Struct):
    max_tokens: Any = None
    max_completion_tokens: Any = None
    n: Any = None
    best_of: Any = None


DOCUMENT = msgspec.json.Decoder(Document)
REQUEST = msgspec.json.Decoder(Request)
# `content` and `reasoning_content`, or the calls of tools; then what few have.
texts = texts_behind(b"content", b'"arguments', b'"text', b'"reasoning', b'"refusal')


def told(document: bytes, before: Told) -> Told:
    """Returns what is told once a document has come. Final is a usage without choices, or beside a finished one."""
    found = read(DOCUMENT, document)
    if found is None:
        return before
    tokens = found.usage or (found.x_groq or Holder()).usage
    if tokens is None:
        return before
    choices = found.choices or ()
    return Told(usage_of(tokens), not choices or any(choice.finish_reason is not None for choice in choices))


def usage_of(tokens: Tokens) -> Usage:
    """Returns what tokens are spent on, each of them once."""
    details = tokens.prompt_tokens_details or tokens.input_tokens_details or Details()
    whole = max(count(tokens.prompt_tokens), count(tokens.input_tokens))
    output = max(count(tokens.completion_tokens), count(tokens.output_tokens), count(tokens.total_tokens) - whole)
    cache_read = min(whole, max(count(details.cached_tokens), count(tokens.prompt_cache_hit_tokens)))
    cache_write = min(whole - cache_read, count(details.cache_write_tokens))
    return Usage(whole - cache_read - cache_write, output, cache_read, cache_write)


def output_max(body: bytes, otherwise: int) -> int:
    """Returns how many tokens all choices may have together. Of two limits, the larger: which one holds is not told."""
    request = read(REQUEST, body)
    if request is None:
        return otherwise
    limit = max(count(request.max_tokens), count(request.max_completion_tokens)) or otherwise
    return count(limit * max(1, count(request.n), count(request.best_of)))


FORM = Form(b'_tokens"', told, texts, output_max)
