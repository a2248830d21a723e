"""The admin API in this process, on services in memory."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from litestar import Litestar
from litestar.testing import TestClient

from admin.app import create_app
from admin.readiness import Probe
from admin.rules import tokens
from tests.admin.memory import Memory

TOKEN = tokens.made(bytes(range(32)))
TOKEN_HASH = tokens.digest(TOKEN, b"")
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}

Json = dict[str, Any]
Client = TestClient[Litestar]


async def there() -> None:
    """A probe of a component that is there."""


class Api:
    """A client that has the token, and what lies behind the API."""

    def __init__(self, client: Client, memory: Memory) -> None:
        self.client = client
        self.memory = memory

    def ask(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Any:
        """The answer to a request with the token; one with a body has it as JSON."""
        arguments: Json = {} if body is None else {"json": body}
        return self.client.request(method, path, headers={**AUTHORIZED, **(headers or {})}, **arguments)

    def outcomes(self) -> list[tuple[str, str, str]]:
        """Action, target and outcome of all that was recorded, oldest first."""
        return [(one.action, one.target, one.outcome) for one in self.memory.actions.actions]


@contextmanager
def serving(
    memory: Memory,
    *,
    base_url: str = "http://127.0.0.1:8001",
    probes: Mapping[str, Probe] | None = None,
    peer: str | None = None,
    **options: Any,
) -> Iterator[Client]:
    """A client of an app, connected from `peer`; `options` go to `create_app`."""
    options.setdefault("token_hash", TOKEN_HASH)
    app = create_app(memory.services, probes=probes or {"database": there}, **options)
    if peer is not None:
        called = app.asgi_handler

        async def from_peer(scope: Any, receive: Any, send: Any) -> None:
            scope["client"] = (peer, 1)
            await called(scope, receive, send)

        app.asgi_handler = from_peer
    with TestClient(app, base_url=base_url, raise_server_exceptions=False) as client:
        yield client
