"""The shape of `auth.json`, which other programs read and write too: an object with three keys that count.

`refresh_token`, `api_key` (the access token; `access_token` where there is no `api_key`, as the provider's own programs
spell it) and `expires_at` in milliseconds since 1970. Other keys are kept as they are.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from admin.rules.oauth import Kept, State, is_usable

SECONDS_BELOW = 10**11
"""A smaller time is one in seconds: as milliseconds it would be before March 1973."""


class DocumentError(ValueError):
    """A text that is no `auth.json`, and what is wrong with it, in words that repeat nothing of it."""


def read(data: bytes) -> dict[str, Any]:
    """Returns the whole object; an empty file says nothing, and is one without keys. Raises DocumentError."""
    text = data.removeprefix(b"\xef\xbb\xbf").strip()
    if not text:
        return {}
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise DocumentError("it is not JSON") from None
    if not isinstance(document, dict):
        raise DocumentError("it is not a JSON object")
    return document


def understood(document: Mapping[str, Any], written_at_ms: int) -> Kept:
    """Returns what counts in it. Raises DocumentError."""
    return Kept(
        _token(document, "refresh_token"),
        _token(document, _access_key(document)),
        _milliseconds(document.get("expires_at")),
        written_at_ms,
    )


def with_state(document: Mapping[str, Any], state: State) -> dict[str, Any]:
    """The document that says what the state is."""
    said = {
        "refresh_token": state.refresh_token,
        _access_key(document): state.access_token,
        "expires_at": state.expires_at_ms,
    }
    return {**document, **said}


def _access_key(document: Mapping[str, Any]) -> str:
    return "access_token" if "api_key" not in document and "access_token" in document else "api_key"


def _token(document: Mapping[str, Any], key: str) -> str | None:
    token = document.get(key)
    if token is None or token == "":
        return None
    if not is_usable(token):
        raise DocumentError(f"its {key} is not ASCII text without spaces")
    return token


def _milliseconds(time: object) -> int | None:
    if isinstance(time, str) and time.isascii() and time.isdecimal() and len(time) < 20:
        time = int(time)
    if isinstance(time, bool) or not isinstance(time, (int, float)) or not 0 < time < 10**15:
        return None
    return int(time * 1000) if time < SECONDS_BELOW else int(time)
