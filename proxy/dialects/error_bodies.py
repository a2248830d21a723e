"""What the body of an error says, read as far as it can be: any bytes, whole or cut, coded or not. Never raises.

The shapes: OpenAI `{"error": {"message", "type", "param", "code"}}`; Anthropic `{"type": "error", "error": {"type",
"message"}}`; Google `{"error": {"code", "message", "status", "details": [...]}}`, in a list where a stream was asked
for; and of others `{"error": "text", "code": "word"}`, `{"message", "type", "code"}`.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from proxy.dialects.codings import decoded
from proxy.rules.headers import Header


class Told(NamedTuple):
    """What an error says of itself. `words` are its code, type and status, the narrowest first; `details` Google's."""

    words: tuple[str, ...] = ()
    message: str = ""
    details: tuple[dict[str, Any], ...] = ()


def told(fields: Iterable[Header], body: bytes) -> Told:
    """Returns what an error's body says; nothing where it cannot be read, such as a document that was cut."""
    try:
        document = msgspec.json.decode(plain(fields, body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Told()
    if isinstance(document, list) and document:
        document = document[0]
    if not isinstance(document, dict):
        return Told()
    error = document.get("error")
    if not isinstance(error, dict):
        error = {**document, "message": error if isinstance(error, str) else document.get("message")}
    details = error.get("details")
    return Told(
        tuple(word.lower() for name in ("code", "type", "status") if (word := text(error.get(name)))),
        text(error.get("message")),
        tuple(item for item in details if isinstance(item, dict)) if isinstance(details, list) else (),
    )


def plain(fields: Iterable[Header], body: bytes) -> bytes:
    """Returns the body without its coding, as much as has come; nothing where the coding is not known here."""
    return decoded(b",".join(value for name, value in fields if name == b"content-encoding"), body)


def is_page(fields: Iterable[Header]) -> bool:
    """Tells whether an answer is a page for people: then it comes from an edge before the API, not from that."""
    return any(name == b"content-type" and value[:9].lower() == b"text/html" for name, value in fields)


def text(value: object) -> str:
    """Returns a text of a document, empty where it is something else."""
    return value if isinstance(value, str) else ""
