"""What a request to the fake provider is, read as a provider reads it: which API, whose key, which model, any mistake.

Pure: a recorded request in, values out.
"""

import urllib.parse
from dataclasses import dataclass, field, fields
from typing import Any

from loadtests.fake_provider_errors import Api
from loadtests.fake_provider_keys import Does
from loadtests.fake_requests import Recorded

MARKER = "x-marker"
"""A client's header field that names what it wants done: the provider counts how often it was."""

PLACES = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
QUERY_PLACE = "?key"
GEMINI_MODELS = "/v1beta/models"

_WANTED: dict[str, tuple[str, ...]] = {
    "/v1/chat/completions": ("model", "messages"),
    "/v1/responses": ("model", "input"),
    "/v1/messages": ("model", "messages", "max_tokens"),
    "/v1/messages/count_tokens": ("model", "messages"),
}


@dataclass(slots=True)
class Asked:
    """One request, as the provider saw it. Times are `time.monotonic()`, comparable between processes.

    `at_once` requests with this key were running as it began, itself among them. `status` is 0 where nothing was
    answered. `told_wait_s` is how long a 429 asked to be left alone, from `began_s` on.
    """

    key: str
    api: Api
    path: str
    began_s: float
    at_once: int
    recorded: Recorded
    credentials: dict[str, str] = field(default_factory=dict)
    marker: str = ""
    model: str = ""
    does: Does | None = None
    status: int = 0
    processed: bool = False
    told_wait_s: float | None = None
    body_bytes: int = 0
    body_sha256: str = ""
    ended_s: float | None = None

    def document(self) -> dict[str, Any]:
        """As JSON, for tests in other processes; the whole request is at `/_control/requests`."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "recorded"}


def api_of(recorded: Recorded, path: str) -> Api:
    """By its path; of paths that two APIs share, by the field that every client of Anthropic's sends."""
    if path.startswith(GEMINI_MODELS):
        return Api.GEMINI
    if path.startswith("/v1/messages") or recorded.values("anthropic-version"):
        return Api.ANTHROPIC
    return Api.OPENAI


def credentials_of(recorded: Recorded) -> dict[str, str]:
    """Every credential in a request, by the place that it stands in."""
    found = {place: ", ".join(value.decode("latin-1") for value in recorded.values(place)) for place in PLACES}
    query = urllib.parse.parse_qs(recorded.target.decode("latin-1").partition("?")[2], keep_blank_values=True)
    found[QUERY_PLACE] = ", ".join(query.get("key", []))
    return {place: value for place, value in found.items() if value}


def key_of(api: Api, credentials: dict[str, str]) -> str:
    """The key, if it stands where this API wants it; else empty. Anthropic takes OAuth tokens as Bearer."""
    bearer = credentials.get("authorization", "")
    bearer = bearer[7:] if bearer[:7].lower() == "bearer " else ""
    if api is Api.OPENAI:
        return bearer
    if api is Api.ANTHROPIC:
        return credentials.get("x-api-key", bearer)
    return credentials.get("x-goog-api-key", credentials.get(QUERY_PLACE, ""))


def model_of(api: Api, path: str, document: dict[str, Any]) -> str:
    if api is Api.GEMINI:
        return path.removeprefix(GEMINI_MODELS).removeprefix("/").partition(":")[0]
    return str(document.get("model", ""))


def mistake_in(recorded: Recorded, path: str, document: dict[str, Any]) -> str | None:
    """What is wrong with a request whatever its key, None where nothing is."""
    if recorded.method == "GET":
        return None
    wanted = ("contents",) if path.startswith(GEMINI_MODELS) else _WANTED.get(path, ())
    missing = [name for name in wanted if name not in document]
    return f"Missing required parameter: '{missing[0]}'." if missing else None
