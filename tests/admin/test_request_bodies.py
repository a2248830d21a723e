"""The bodies that endpoints take, from clients that do not send them well."""

import asyncio
from typing import Any

import msgspec
import pytest

from admin import request_bodies
from admin.app import create_app
from admin.request_bodies import Operation, takes, takes_some_of
from proxy.config import Route
from tests.admin.api import TOKEN, TOKEN_HASH, there
from tests.admin.memory import Memory

Event = dict[str, Any]


def answer_to(*events: Event) -> tuple[int, Any]:
    """Status and body of the answer to a new mapping whose body arrives in `events`, and then no more."""
    app = create_app(Memory().services, token_hash=TOKEN_HASH, probes={"database": there})
    sent: list[Event] = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/api/mappings",
        "raw_path": b"/api/mappings",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"admin.test"), (b"x-admin-key", TOKEN.encode())],
        "client": ("192.0.2.1", "1234"),
        "server": ("192.0.2.2", 8001),
    }
    waiting = list(events)

    async def receive() -> Any:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    async def scenario() -> None:
        await app(scope, receive, send)  # type: ignore[arg-type]

    asyncio.run(scenario())
    return sent[0]["status"], msgspec.json.decode(b"".join(event.get("body", b"") for event in sent))


def piece(body: bytes, *, more: bool) -> Event:
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_body_in_pieces_is_read() -> None:
    text = b'{"prefix": "/x", "target": "https://x.test"}'
    pieces = [piece(text[at : at + 1], more=at + 1 < len(text)) for at in range(len(text))]
    assert answer_to(*pieces)[0] == 201


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_bodies, "TIMEOUT_S", 0.01)
    status, problem = answer_to(piece(b"{", more=True))
    assert (status, problem["error"]) == (408, "body_timeout")


def test_a_client_that_leaves_is_no_failure() -> None:
    status, problem = answer_to(piece(b"{", more=True), {"type": "http.disconnect"})
    assert (status, problem["error"]) == (400, "bad_request")


def described(kind: type[Operation]) -> Any:
    return kind().to_schema()["requestBody"]["content"]["application/json"]


def test_a_body_is_described_whole() -> None:
    media_type = described(takes(Route, {"target": "https://x.test"}))
    assert media_type["example"] == {"target": "https://x.test"}
    assert media_type["schema"].get("required", []) == [], "an upstream may stand in for the target"
    assert media_type["schema"]["properties"]["tls"]["properties"]["verify"]["type"] == "boolean"
    assert "$ref" not in str(media_type)


def test_of_a_change_nothing_is_required_but_something() -> None:
    schema = described(takes_some_of(Route, {"target": "https://x.test"}, Operation))["schema"]
    assert "required" not in schema
    assert schema["minProperties"] == 1
