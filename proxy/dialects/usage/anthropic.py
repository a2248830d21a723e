"""Messages of Anthropic. Source: its pages "Streaming messages", "Prompt caching".

A stream tells the input in `message_start`, with the few tokens of output that there are by then, and the output in
`message_delta`, once or more often. All figures are cumulative, so of each the largest is the newest; a `message_delta`
may tell input again, which then has what the provider's own tools have read. `input_tokens` are those beside caches.
What is written to a cache for an hour is part of `cache_creation_input_tokens`, and not told each time that these are.
"""

from typing import Any

import msgspec

from proxy.dialects.usage.forms import Form, Told, read, texts_behind
from proxy.rules.usage import Usage, count


class CacheCreation(msgspec.Struct):
    ephemeral_1h_input_tokens: Any = None


class Tokens(msgspec.Struct):
    input_tokens: Any = None
    output_tokens: Any = None
    cache_read_input_tokens: Any = None
    cache_creation_input_tokens: Any = None
    cache_creation: CacheCreation | None = None


class Holder(msgspec.Struct):
    usage: Tokens | None = None


class Delta(msgspec.Struct):
    stop_reason: Any = None


class Document(Holder):
    """An event, or a whole message."""

    message: Holder | None = None
    delta: Delta | None = None


class Request(msgspec.Struct):
    max_tokens: Any = None


DOCUMENT = msgspec.json.Decoder(Document)
REQUEST = msgspec.json.Decoder(Request)
texts = texts_behind(b'"text', b'"thinking', b'"partial_json')


def told(document: bytes, before: Told) -> Told:
    """Returns what is told once a document has come. Final is what comes with the reason to stop."""
    found = read(DOCUMENT, document)
    if found is None:
        return before
    tokens = found.usage or (found.message or Holder()).usage
    if tokens is None:
        return before
    stopped = (found.delta or Delta()).stop_reason is not None
    earlier = before.usage or Usage()
    written = count(tokens.cache_creation_input_tokens)
    for_an_hour = count((tokens.cache_creation or CacheCreation()).ephemeral_1h_input_tokens)
    for_an_hour = max(earlier.cache_write_1h, min(written, for_an_hour))
    usage = Usage(
        max(earlier.input, count(tokens.input_tokens)),
        max(earlier.output, count(tokens.output_tokens)),
        max(earlier.cache_read, count(tokens.cache_read_input_tokens)),
        max(earlier.cache_write, written - for_an_hour),
        for_an_hour,
    )
    return Told(usage, before.final or stopped)


def output_max(body: bytes, otherwise: int) -> int:
    """Returns how many tokens the message may have, thinking and all."""
    request = read(REQUEST, body)
    return (request and count(request.max_tokens)) or otherwise


FORM = Form(b'_tokens"', told, texts, output_max)
