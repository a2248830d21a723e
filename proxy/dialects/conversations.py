"""What names a conversation, in 16 bytes: the same for all its turns, so that they can go to the same credential.

Providers keep the beginning of a prompt in a cache that belongs to one account and find it again by its very content
(OpenAI, guide "Prompt caching"; Anthropic, "Prompt caching"; Gemini, "Context caching"). What stays at the beginning in
all turns is the model, the system prompt and the first message. Only their texts count: clients move marks such as
`cache_control` from turn to turn.
"""

import hashlib
from collections.abc import Iterable, Iterator

import msgspec

PARTS_MAX = 64
TEXT_CHARS_MAX = 32 * 1024
MESSAGES_MAX = 16
"""Bounds of the work: how much of one text, how many parts of one content and messages before the first are read."""

SYSTEM_ROLES = frozenset(("system", "developer"))


def fingerprint(parts: Iterable[str]) -> bytes:
    """Returns the digest of texts; their lengths count, so that no two lists of them run into one."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part[:TEXT_CHARS_MAX].encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(4, "big") + data)
    return digest.digest()


def texts(content: object) -> Iterator[str]:
    """Yields the texts of a content: a text itself, or a list of parts with one each (`text`), as all APIs have them.

    A part of another kind, such as an image, counts as its place only.
    """
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content[:PARTS_MAX]:
            text = part if isinstance(part, str) else part.get("text") if isinstance(part, dict) else None
            yield text if isinstance(text, str) else ""


def beginning(messages: Iterable[msgspec.Raw]) -> list[str] | None:
    """Returns the texts of the system's messages and of the first that is not the system's; None if there is none."""
    found: list[str] = []
    for raw, _ in zip(messages, range(MESSAGES_MAX), strict=False):
        message = msgspec.json.decode(raw)
        if not isinstance(message, dict):
            return None
        found += [str(message.get("role")), *texts(message.get("content"))]
        if message.get("role") not in SYSTEM_ROLES:
            return found
    return None
