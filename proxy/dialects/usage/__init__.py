"""What an answer tells of the tokens that it took, read beside its stream. Pure, and nothing here ever raises.

The path tells the form, not the dialect: Anthropic's messages are offered by hosts of OpenAI's dialect, OpenAI's chat
completions by Gemini's, and either by a host of which nothing is known.

- `reader(path, status, fields)`: what takes the pieces of an answer as they pass; None where there is nothing to read.
- `asked(path, body, body_bytes, estimates)`: what a request is expected to take, before it is sent.

`openai.py` (chat completions, completions, embeddings), `responses.py`, `anthropic.py` and `gemini.py` are the forms,
`forms.py` says what each consists of, `readers.py` finds their documents in pieces.
"""

import re
from collections.abc import Iterable

from proxy.config import Estimates
from proxy.dialects.codings import streaming
from proxy.dialects.usage import anthropic, gemini, openai, responses
from proxy.dialects.usage.forms import Form
from proxy.dialects.usage.readers import CodedReader, DocumentReader, EventReader, Reader
from proxy.rules.headers import Header
from proxy.rules.targets import as_served
from proxy.rules.usage import Usage, tokens_of_text

AS_USUAL = (
    (b"/chat/completions", openai.FORM),
    (b"/v1/messages", anthropic.FORM),
    (b"/responses", responses.FORM),
    (b":streamGenerateContent", gemini.FORM),
    (b":generateContent", gemini.FORM),
)
"""How clients spell most paths: to find these takes a tenth of the time."""
FORMS: tuple[tuple[re.Pattern[bytes], Form], ...] = (
    (re.compile(rb"/(?:completions|embeddings)/\Z"), openai.FORM),
    (re.compile(rb"/responses/(?:compact/)?\Z"), responses.FORM),
    (re.compile(rb"/v1/messages/\Z|/publishers/anthropic/.*:(?:stream)?rawpredict/\Z"), anthropic.FORM),
    (re.compile(rb":(?:stream)?generatecontent/\Z"), gemini.FORM),
)
"""By how a path ends, as `as_served` gives it."""


def form_of(path: bytes) -> Form | None:
    """Returns the form that an API has behind a path, with or without a query; None where no usage is told."""
    path = path.partition(b"?")[0]
    for ending, form in AS_USUAL:
        if path.endswith(ending):
            return form
    served = as_served(path)
    return next((form for pattern, form in FORMS if pattern.search(served)), None)


def reader(path: bytes, status: int, fields: Iterable[Header]) -> Reader | None:
    """Returns what reads the usage of the answer to a POST; None of an error, and of what tells none.

    `fields` have names in lower case.
    """
    form = form_of(path) if 200 <= status < 300 else None
    if form is None:
        return None
    given = dict(fields)
    kind = given.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind == b"text/event-stream":
        plain: Reader = EventReader(form)
    elif kind == b"application/json":
        plain = DocumentReader(form)
    else:
        return None
    coding = given.get(b"content-encoding", b"")
    if coding.strip().lower() in (b"", b"identity"):
        return plain
    decode = streaming(coding)
    return None if decode is None else CodedReader(decode, plain)


def asked(path: bytes, body: bytes, body_bytes: int | None, estimates: Estimates) -> Usage | None:
    """Returns what a request is expected to take; None where its path tells of no usage.

    `body` is what has come of it, `body_bytes` its whole length if that is known. Input is four bytes a token of the
    body, JSON and all; images and files in it are taken for far more than they are. Output is the most that the request
    allows, or, where it says nothing or has not come whole, as estimated.
    """
    form = form_of(path)
    if form is None:
        return None
    return Usage(
        estimates.input_tokens if body_bytes is None else tokens_of_text(max(0, body_bytes)),
        form.output_max(body, estimates.output_tokens),
    )
