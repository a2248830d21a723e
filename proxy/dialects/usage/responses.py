"""Responses of OpenAI. Source: its API reference, "Responses" and "Streaming events".

A stream tells the usage once, in the response that `response.completed`, `response.incomplete` or `response.failed`
carries. That response repeats what the client sent, with names of the client's choice in it, and all that was written,
which the events `...delta` have told already.
"""

from typing import Any

import msgspec

from proxy.dialects.usage.forms import Form, Told, read, texts_behind
from proxy.dialects.usage.openai import Holder, usage_of
from proxy.rules.usage import count


class Document(Holder):
    """An event, with a response in it, or a response."""

    response: Holder | None = None


class Request(msgspec.Struct):
    max_output_tokens: Any = None


DOCUMENT = msgspec.json.Decoder(Document)
REQUEST = msgspec.json.Decoder(Request)


def told(document: bytes, before: Told) -> Told:
    """Returns what is told once a document has come. A usage is told at the end only, so it is final."""
    found = read(DOCUMENT, document)
    tokens = None if found is None else found.usage or (found.response or Holder()).usage
    return before if tokens is None else Told(usage_of(tokens), final=True)


def output_max(body: bytes, otherwise: int) -> int:
    """Returns how many tokens the response may have, reasoning and all."""
    request = read(REQUEST, body)
    return (request and count(request.max_output_tokens)) or otherwise


FORM = Form(b'_tokens"', told, texts_behind(b'"delta'), output_max)
