"""What clients ask of a route with credentials, in three APIs, and what they are told."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from tests.end_to_end.raw_client import BodyEnd, Header, Response
from tests.end_to_end.relay_process import CANARY

CLIENTS_KEY = f"sk-client-{CANARY}"
HEADERS: list[Header] = [(b"content-type", b"application/json"), (b"authorization", f"Bearer {CLIENTS_KEY}".encode())]


class Call(NamedTuple):
    """What a client asks: by which route, with which path and document."""

    route: str
    path: str
    document: Mapping[str, Any]

    def streamed(self) -> "Call":
        if self.route == "gemini":
            return self._replace(path=self.path.replace(":generate", ":streamGenerate") + "?alt=sse")
        return self._replace(document={**self.document, "stream": True})


SAY = [{"role": "user", "content": "say something"}]
OPENAI = Call("openai", "/v1/chat/completions", {"model": "gpt-fake", "messages": SAY})
ANTHROPIC = Call("anthropic", "/v1/messages", {"model": "claude-fake", "messages": SAY, "max_tokens": 100})
GEMINI = Call("gemini", "/v1beta/models/gemini-fake:generateContent", {"contents": [{"parts": [{"text": "say"}]}]})


class Told(NamedTuple):
    """A request's marker and its answer."""

    marker: str
    response: Response

    @property
    def worker(self) -> str:
        return request_id(self.response)[:16]

    @property
    def is_good(self) -> bool:
        return self.response.status == 200 and self.response.end is BodyEnd.COMPLETE


def request_id(response: Response) -> str:
    """The relay's own, whose field has another name where the upstream sends one as well."""
    (value,) = response.values("x-relaygate-request-id") or response.values("x-request-id")
    return value.decode()


def bad(told: list[Told]) -> list[tuple[str, int, bytes]]:
    """What clients saw that was not good; a test asserts that it is nothing."""
    return [(each.marker, each.response.status, each.response.body[:300]) for each in told if not each.is_good]
