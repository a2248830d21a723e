"""Access tokens under test: `relaygate serve` with two workers, tokens made by the admin API, and what the ledger says.

Each test makes tokens of its own, so that they share a system. Whatever a token was, `spilled` finds its text where it
must not be.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import redis

from loadtests.fake_provider import FakeProvider
from loadtests.fake_provider_keys import Behaviour, Does
from loadtests.fake_upstream import UpstreamInThread
from proxy.rules.access_tokens import digest_of
from proxy.shared_state.keys import METER_LEDGER, METER_TOKEN
from tests.end_to_end.harness import Places
from tests.end_to_end.key_pool import client_of_each_worker
from tests.end_to_end.raw_client import Header, RawClient, Response
from tests.end_to_end.relay_process import CANARY
from tests.end_to_end.system import System
from tests.end_to_end.waiting import eventually
from tests.end_to_end.websocket_upstream import WebSocketUpstream

WORKERS = 2
GROUP = "metered"
INPUT_TOKENS, OUTPUT_TOKENS = 50, 200
"""What is estimated where a request tells nothing."""
PRICES = {"gpt-fake*": {"input": 1.0, "output": 2.0}, "claude-fake": {"input": 3.0, "output": 15.0}}
"""In dollars per million: thousands of nano-USD per token."""
SLOW, LATE, CUT, SILENT, FAILING = (f"gpt-fake-{name}" for name in ("slow", "late", "cut", "silent", "failing"))
SLOW_WORDS = 12
BEHAVIOURS = (
    Behaviour(model=SLOW, words=SLOW_WORDS, interval_s=0.05),
    Behaviour(model=LATE, delay_s=0.4),
    Behaviour(Does.CUT_AFTER, model=CUT, events=5),
    Behaviour(Does.SILENT, model=SILENT),
    Behaviour(Does.FAILED, model=FAILING),
)
"""What the provider does with some models, whatever the key."""
ROWS_S = 8.0
"""How long a row may take to be in SQL; 5 s are promised."""


class Token(NamedTuple):
    """An access token: its id, and its text."""

    id: str
    text: str

    @property
    def fields(self) -> list[Header]:
        return [(b"authorization", f"Bearer {self.text}".encode())]


def configuration(
    provider: FakeProvider, upstream: UpstreamInThread, websockets: WebSocketUpstream, places: Places, **access: Any
) -> dict[str, Any]:
    """Routes to the provider with the pool's key, and with the client's own; to an upstream, and to nobody."""
    token = {"access": "token"}
    routes: dict[str, Any] = {
        "/up": {"target": upstream.url, **token},
        "/other": {"target": upstream.url, **token},
        "/refused": {"target": f"http://{places.refused}", **token},
        "/ws": {"target": websockets.url, **token},
    }
    for dialect in ("openai", "anthropic", "gemini"):
        to_provider = {"target": provider.url, "dialect": dialect, **token}
        routes[f"/{dialect}"] = {**to_provider, "credential": "pool", "pool_groups": [GROUP]}
        routes[f"/own/{dialect}"] = {**to_provider, "credential": "client"}
        routes[f"/drained/{dialect}"] = {**to_provider, "credential": "client", "on_client_gone": "drain"}
    return {
        "server": {"workers": WORKERS, "access_log": True, "trusted_proxies": ["127.0.0.1/32"], "body_timeout_s": 2.0},
        "access": {"wrong_tokens_max": 20, **access},
        "key_pool": {"groups": {GROUP: {"priority": 1}}},
        "prices": {"version": "1", "models": PRICES},
        "estimates": {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS},
        "routes": routes,
    }


class Metering:
    """A system with routes for access tokens."""

    def __init__(self, system: System, provider: FakeProvider) -> None:
        self.system = system
        self.provider = provider
        self.own_key = f"sk-{CANARY}-own"
        self.pool_key = f"sk-{CANARY}-metered"
        self.made: list[Token] = []

    def begin(self) -> None:
        """Gives the provider's keys out, and has the pool know its own."""
        for key in (self.own_key, self.pool_key):
            self.provider.plan(key, *BEHAVIOURS)
        answer = self.system.admin("POST", "/admin/keys/batch", {"keys": [self.pool_key], "poolGroup": GROUP})
        assert answer.body["success"] is True, answer

    # Tokens

    def token(self, quota: int | None = None, **fields: Any) -> Token:
        """One that Redis has. Without a quota only time ends it."""
        new = {"ws_id": "w", "email": "a@example.com", "operation": "unlimited", **fields}
        if quota is not None:
            new |= {"quota_type": "count", "total_quota": quota}
        answer = self.system.admin("POST", "/flow/tokens", new)
        assert answer.status == 200, answer
        assert answer.body["message"] == "Token created.", "Redis has it"
        token = Token(answer.body["data"]["id"], answer.body["data"]["access_token"])
        self.made.append(token)
        return token

    def change(self, token: Token, **fields: Any) -> None:
        answer = self.system.admin("PUT", f"/flow/tokens/{token.id}", fields)
        assert answer.status == 200, answer

    def delete(self, token: Token) -> None:
        assert self.system.admin("DELETE", f"/flow/tokens/{token.id}").status == 200

    def remaining(self, token: Token) -> int:
        """What remains just now, as Redis has it; waits for that, where the control plane has lost it for a moment."""

        def live() -> dict[str, Any]:
            answer = self.system.admin("GET", f"/flow/tokens/{token.id}/quota")
            assert answer.status == 200, answer
            return answer.body["data"] if answer.body["data"]["live"] else {}

        return int(eventually(live, what="an answer from Redis")["remaining_quota"])

    def remains(self, token: Token, amount: int) -> None:
        """Waits until so much remains. Settlements leave a worker up to 50 ms late."""
        eventually(lambda: self.remaining(token) == amount, what=f"{amount} that remain, not {self.remaining(token)}")

    # Rows

    def rows(self, token: Token) -> list[dict[str, Any]]:
        """The ledger but for its first row, oldest first."""
        found: list[dict[str, Any]] = []
        while True:
            page = f"page={len(found) // 1000 + 1}&page_size=1000"
            answer = self.system.admin("GET", f"/flow/tokens/{token.id}/quota/logs?{page}")
            assert answer.status == 200, answer
            found += answer.body["data"]["logs"]
            if len(found) == answer.body["data"]["total"]:
                return [row for row in reversed(found) if row["action"] != "init"]

    def ended_rows(self, token: Token, consumed: int) -> list[dict[str, Any]]:
        """The rows, once so many requests have theirs and all have ended."""

        def ended() -> list[dict[str, Any]]:
            rows = self.rows(token)
            requests = [row for row in rows if row["action"] == "consume"]
            is_whole = len(requests) == consumed and all(row["execution_success"] is not None for row in requests)
            return rows if is_whole else []

        return eventually(ended, ROWS_S, what=f"{consumed} rows of requests that have ended")

    def changes(self, token: Token, consumed: int) -> list[tuple[str, int]]:
        return [(row["action"], row["quota_change"]) for row in self.ended_rows(token, consumed)]

    # Requests

    def ask(
        self,
        path: str,
        token: Token,
        document: Mapping[str, Any] | None = None,
        *,
        client: RawClient | None = None,
        headers: Sequence[Header] = (),
    ) -> Response:
        """A GET, or, with a document, a POST of it; on a connection of its own unless there is a client for it.

        On routes that leave the credential to the client, the provider's is in `Authorization`.
        """
        method, fields, body = "GET", [*headers], None
        if document is not None:
            method, body = "POST", json.dumps(document).encode()
            fields.append((b"content-type", b"application/json"))
        return (client or self.system).request(method, path, [*self.shown(path, token), *fields], body)

    def shown(self, path: str, token: Token) -> list[Header]:
        """How a request shows the token, and the provider's key where the route leaves that to the client."""
        if not path.startswith(("/own/", "/drained/")):
            return token.fields
        key = self.own_key.encode()
        named = {"anthropic": (b"x-api-key", key), "gemini": (b"x-goog-api-key", key)}
        return [
            (b"access-token", token.text.encode()),
            named.get(path.split("/")[2], (b"authorization", b"Bearer " + key)),
        ]

    def asked_by_each_worker(self, path: str, token: Token) -> list[Response]:
        with client_of_each_worker(self.system) as clients:
            return [self.ask(path, token, client=client) for client in clients]

    # Redis

    def running(self, token: Token) -> int:
        """How many of its requests run, as Redis has been told."""
        with self.redis() as client:
            return sum(map(int, client.hvals(f"{METER_TOKEN}{digest_of(token.text.encode())}:held")))

    def redis(self) -> "redis.Redis":
        return redis.Redis(unix_socket_path=str(Path(self.system.directory) / "data" / "redis" / "redis.sock"))

    def redis_pid(self) -> int:
        (pid,) = self.system.pids_of(r"redis-server|valkey-server")
        return pid

    def is_taken(self) -> bool:
        """Whether all of the ledger is in SQL. What the admin API tells of it is half a second old."""
        with self.redis() as client:
            return int(client.xlen(METER_LEDGER)) == 0

    # What must be nowhere

    def spilled(self) -> list[str]:
        """Where the text of a token lies: files of the system, its output, Redis. A test asserts that it is nowhere."""
        needles = [token.text.removeprefix("flow_").encode() for token in self.made]
        directory = Path(self.system.directory)
        places = {str(file): file.read_bytes() for file in directory.rglob("*") if file.is_file()}
        with self.redis() as client:
            for key in client.scan_iter(count=1000):
                places[f"redis: {key!r}"] = key + (client.dump(key) or b"")
        return [place for place, data in places.items() if any(needle in data for needle in needles)]


def request_id_of(response: Response) -> str:
    (value,) = response.values("x-relaygate-request-id") or response.values("x-request-id")
    return value.decode()
