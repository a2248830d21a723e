"""A system with a canary in every place that a secret can sit in, and all that came out of it."""

import contextlib
import json
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet

from loadtests.fake_provider import TOKEN_PATH, FakeProvider
from loadtests.fake_provider_balances import SUBSCRIPTION_USAGE
from loadtests.fake_provider_keys import Behaviour, Does
from tests.end_to_end.calls import ANTHROPIC, GEMINI, OPENAI, Call
from tests.end_to_end.canaries import Canaries
from tests.end_to_end.key_pool import SETTINGS, WORKERS
from tests.end_to_end.raw_client import ClosedEarlyError, Header, RawClient
from tests.end_to_end.system import System
from tests.redis_servers import server

PLANS = {
    "good": [],
    "payment": [Behaviour(Does.PAYMENT_REQUIRED)],
    "dead": [Behaviour(Does.UNAUTHORIZED)],
    "limited": [Behaviour(Does.RATE_LIMITED, for_s=1)],
    "failing": [Behaviour(Does.FAILED)],
    "cut": [Behaviour(Does.CUT_BEFORE)],
    "broken": [Behaviour(Does.CUT_AFTER)],
}
"""What becomes of requests with each key of the pool."""
SOURCES = ("pool", "fixed", "oauth", "auto", "client")
EXCUSED_FILES = ("auth.json",)
"""Where the OAuth tokens lie for other programs too, as is promised."""
WAIT_S = 2.0


class Planted:
    """The canaries, the system that has them, and what its clients and operators were answered."""

    def __init__(self, directory: Path, provider: FakeProvider) -> None:
        self.directory = directory
        self.provider = provider
        self.canaries = Canaries()
        self.answers: list[tuple[str, bytes]] = []
        self.commands = bytearray()
        """All that was said to Redis."""

    @contextlib.contextmanager
    def running(self) -> Iterator[System]:
        password = self.canaries.plant("redis")
        options = ("--requirepass", password, "--appendonly", "yes", "--appendfsync", "always")
        with server(self.directory, *options) as port:
            url = f"redis://:{urllib.parse.quote(password, safe='')}@127.0.0.1:{port}/0"
            self.system = System(self.directory, self._settings(), environment=self._environment(url))
            with overheard(port, password, self.commands):
                self.system.start()
                try:
                    yield self.system
                    self.system.stop()
                finally:
                    if self.system.process is not None and self.system.process.poll() is None:
                        self.system.kill()

    def _settings(self) -> dict[str, Any]:
        routes = {
            f"/{source}/{dialect}": {"target": self.provider.url, "dialect": dialect, "credential": source}
            for source in SOURCES
            for dialect in ("openai", "anthropic", "gemini")
        }
        routes["/refused"] = {**routes["/pool/openai"], "target": "http://127.0.0.1:1"}
        server_settings = {"workers": WORKERS, "access_log": True, "log_level": "debug", "stats_path": "/stats"}
        query = {
            "url": f"{self.provider.url}{SUBSCRIPTION_USAGE}?key={{key}}",
            "method": "POST",
            "headers": {"authorization": "Bearer {key}"},
            "body": {"useCache": True, "key": "{key}"},
            "used": "/usage/standard/orgTotalTokensUsed",
        }
        key_pool = {**SETTINGS, "groups": {}, "balance_queries": {"own": query}}
        return {"server": server_settings, "key_pool": key_pool, "routes": routes}

    def _environment(self, redis_url: str) -> dict[str, str]:
        fixed, refresh = self.canaries.plant("fixed"), self.canaries.plant("oauth")
        self.provider.plan(fixed)
        self.provider.refresh_tokens.add(refresh)
        return {
            "ADMIN_TOKEN": self.canaries.plant("admin"),
            "FACTORY_API_KEY": fixed,
            "DROID_REFRESH_KEY": refresh,
            "RELAYGATE_CREDENTIALS_TOKEN_URL": self.provider.url + TOKEN_PATH,
            "RELAYGATE_CREDENTIALS_CLIENT_ID": "client",
            "RELAYGATE_SECRET_KEY": self.canaries.known("encryption", Fernet.generate_key().decode()),
            "REDIS_URL": redis_url,
        }

    @property
    def admin_token(self) -> str:
        return self.canaries.secrets["admin"]

    # Traffic

    def keys(self) -> list[str]:
        """Keys of the pool, given out with their plans."""
        found = []
        for name, plan in PLANS.items():
            found.append(self.canaries.plant(f"key-{name}"))
            self.provider.plan(found[-1], *plan)
        return found

    def ask(self, prefix: str, call: Call, query: str = "") -> None:
        """A request with the client's own secrets wherever a client may have some."""
        own = self.canaries.secrets.get("client") or self.canaries.plant("client")
        fields = ["authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "proxy-authorization"]
        values = [f"Bearer {own}", own, own, own, f"session={own}", f"Basic {own}"]
        headers: list[Header] = [(b"content-type", b"application/json")]
        headers += [(name.encode(), value.encode()) for name, value in zip(fields, values, strict=True)]
        mark = "&" if "?" in call.path else "?"
        secret = urllib.parse.quote(own, safe="")
        target = f"{prefix}{call.path}{mark}key={secret}&token={secret}{query}"
        with contextlib.suppress(OSError, ClosedEarlyError):
            response = self.system.request("POST", target, headers, json.dumps(call.document).encode())
            self.answers.append((f"client of {prefix}{call.path}", response.head + response.body))

    def traffic(self) -> None:
        """Good and bad requests by every route; some break, some find no route."""
        for source in SOURCES:
            for call in (OPENAI, ANTHROPIC, GEMINI, OPENAI.streamed(), ANTHROPIC.streamed()):
                for _ in range(4):
                    self.ask(f"/{source}/{call.route}", call)
        for prefix in ("/refused", "/nowhere", "/pool/openai/../..", "/pool/openai/%2e%2e"):
            self.ask(prefix, OPENAI)

    # The admin API

    def admin(self, method: str, path: str, body: bytes | None = None, content_type: str = "application/json") -> bytes:
        """One answer of the admin API, kept for the search."""
        token = f"Bearer {self.admin_token}".encode()
        headers: list[Header] = [(b"authorization", token), (b"content-type", content_type.encode())]
        with RawClient("127.0.0.1", self.system.admin_port) as client:
            client.socket.settimeout(WAIT_S * 5)
            response = client.request(method, path, headers, body)
        self.answers.append((f"{method} {path}", response.head + response.body))
        return response.body

    def listen(self, path: str) -> bytes:
        """What an endless stream has told within a moment."""
        head = f"GET {path} HTTP/1.1\r\nHost: admin\r\nAuthorization: Bearer {self.admin_token}\r\n\r\n"
        received = bytearray()
        with RawClient("127.0.0.1", self.system.admin_port) as client:
            client.send(head.encode())
            client.socket.settimeout(WAIT_S)
            end_s = time.monotonic() + WAIT_S
            with contextlib.suppress(TimeoutError):
                while time.monotonic() < end_s and (piece := client.read_some()):
                    received += piece
        self.answers.append((f"GET {path}", bytes(received)))
        return bytes(received)


@contextlib.contextmanager
def overheard(port: int, password: str, heard: bytearray) -> Iterator[None]:
    """Adds every command that a Redis gets to `heard`; it leaves AUTH out by itself."""
    with socket.create_connection(("127.0.0.1", port)) as wire:
        wire.sendall(f"AUTH {password}\r\nMONITOR\r\n".encode())

        def listen() -> None:
            with contextlib.suppress(OSError):
                while piece := wire.recv(65536):
                    heard.extend(piece)

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield
        finally:
            wire.shutdown(socket.SHUT_RDWR)
            thread.join()
