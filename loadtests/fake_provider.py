"""A provider of paid APIs that knows its keys: OpenAI's, Anthropic's and Gemini's, with a plan for each key.

The law of this file: what a key meets is planned by the test alone, lasts as long as it says, and every request is
recorded, with its key, how many ran with that key at once, and whether it was **processed**, which is what must not
happen twice for one request of a client. A key that nobody was given is refused.

    python -m loadtests.fake_provider --port 0          prints "listening on 127.0.0.1:PORT"
    with running() as provider:                         inside a test, with the records at hand
        provider.plan("sk-1", Behaviour(Does.RATE_LIMITED, for_s=2))
        …
        assert provider.processed("marker") == 1

Paths: /v1/chat/completions, /v1/responses, /v1/messages, /v1/messages/count_tokens, /v1/models, /v1beta/models,
/v1beta/models/X:generateContent, /v1beta/models/X:streamGenerateContent; streamed where the request says so. Any other
path is 404. A request that lacks what its API demands is 400, whatever its key. Beside them

    POST /user_management/authenticate    WorkOS' token endpoint: each refresh token once, then the one it was
                                          exchanged for; the access token is a good key from then on
    GET /api/organization/members/chat-usage
    POST /api/organization/subscription/usage   what a key has used of its allowance, as Factory says it
    PUT /_control/keys                    {"sk-1": [{"does": "rate_limited", "for_s": 2}], …}, as `plan`
    GET /_control/asked?since=N           the records; /_control/requests has every byte of them
    GET /_control/reset                   forgets keys and records
"""

import argparse
import contextlib
import itertools
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Iterator
from urllib.parse import parse_qs

import msgspec

from loadtests.fake_provider_answers import play, refuse
from loadtests.fake_provider_balances import METHODS, Allowance, usage_of
from loadtests.fake_provider_errors import Api, Wait, mistake, refusal
from loadtests.fake_provider_keys import Behaviour, Does, Keys, Tells
from loadtests.fake_provider_requests import (
    GEMINI_MODELS,
    MARKER,
    Asked,
    api_of,
    credentials_of,
    key_of,
    mistake_in,
    model_of,
)
from loadtests.fake_upstream import CONTROL, UpstreamInThread, in_thread
from loadtests.fake_wire import Exchange

PATHS = frozenset(
    (
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/models",
        GEMINI_MODELS,
    )
)
TOKEN_PATH = "/user_management/authenticate"
PLANS = msgspec.json.Decoder(dict[str, list[Behaviour]])


class FakeProvider(UpstreamInThread):
    """The listener, the keys that were given out, and everything that was asked with them."""

    def __init__(self) -> None:
        super().__init__("http")
        self.asked: list[Asked] = []
        self.refresh_tokens: set[str] = set()
        """Those that may be exchanged, each once."""
        self.allowances: dict[str, Allowance] = {}
        """By key; of others, the usual one, of which nothing is used."""
        self.moved: set[str] = set()
        """Paths of balance queries that are not there (any more, or yet)."""
        self.balances_asked: list[tuple[str, str]] = []
        """Path and key of each balance query."""
        self._keys = Keys()
        self._running: Counter[str] = Counter()
        self._numbers = itertools.count(1)

    # What a test tells and asks. Called from its own thread: each is one change of a dict.

    def plan(self, key: str, *behaviours: Behaviour) -> None:
        """Give a key out, or replace what was planned for it. Without behaviours it is good."""
        self._keys.plan(key, behaviours)

    def revoke(self, key: str) -> None:
        self._keys.forget(key)

    def forget(self) -> None:
        """Forget all keys and records, but not the requests that are running."""
        self._keys.clear()
        self.refresh_tokens.clear()
        self.allowances.clear()
        self.moved.clear()
        self.balances_asked.clear()
        self.asked.clear()
        self.requests.clear()

    def with_key(self, key: str) -> list[Asked]:
        return [each for each in list(self.asked) if each.key == key]

    def with_marker(self, marker: str) -> list[Asked]:
        return [each for each in list(self.asked) if each.marker == marker]

    def processed(self, marker: str) -> int:
        """How often what the client wanted was done."""
        return sum(each.processed for each in self.with_marker(marker))

    def uses(self) -> Counter[str]:
        """Number of requests by key."""
        return Counter(each.key for each in list(self.asked))

    # What requests meet

    def play(self, exchange: Exchange) -> Awaitable[None]:
        path = exchange.path()
        if path.startswith(CONTROL):
            return self.control(exchange, path)
        if path in METHODS:
            return self._tell_balance(exchange, path)
        return self._exchange_token(exchange) if path == TOKEN_PATH else self._serve(exchange, path)

    async def _serve(self, exchange: Exchange, path: str) -> None:
        asked = self._begin(exchange, path)
        try:
            await exchange.read_as_told()
            asked.body_bytes, asked.body_sha256 = exchange.recorded.body_bytes, exchange.recorded.body_sha256
            asked.model = model_of(asked.api, path, exchange.json_body())
            await self._answer(exchange, asked)
        finally:
            asked.ended_s = time.monotonic()
            self._running[asked.key] -= 1

    def _begin(self, exchange: Exchange, path: str) -> Asked:
        recorded = exchange.recorded
        api, credentials = api_of(recorded, path), credentials_of(recorded)
        key = key_of(api, credentials)
        self._running[key] += 1
        marker = b"".join(recorded.values(MARKER)).decode("latin-1")
        asked = Asked(key, api, path, recorded.received_s, self._running[key], recorded, credentials, marker)
        self.asked.append(asked)
        return asked

    async def _answer(self, exchange: Exchange, asked: Asked) -> None:
        if asked.path not in PATHS and not asked.path.startswith(GEMINI_MODELS + "/"):
            asked.status = 404
            await exchange.send_document({"error": {"message": "no such path", "type": "invalid_request_error"}}, 404)
            return
        if text := mistake_in(exchange.recorded, asked.path, exchange.json_body()):
            await refuse(exchange, asked, mistake(asked.api, text))
            return
        met = self._keys.meet(asked.key, asked.model, time.monotonic())
        if met is None:
            asked.does = Does.UNAUTHORIZED
            await refuse(exchange, asked, refusal(asked.api, asked.does, Wait(0, Tells.NOTHING, time.time())))
            return
        asked.does = met.behaviour.does
        await play(exchange, asked, met)

    async def _tell_balance(self, exchange: Exchange, path: str) -> None:
        await exchange.read_as_told()
        key = key_of(Api.OPENAI, credentials_of(exchange.recorded))
        self.balances_asked.append((path, key))
        if path in self.moved:
            await exchange.send_document({"detail": "Not Found"}, 404)
        elif exchange.recorded.method != METHODS[path]:
            await exchange.send_document({"detail": "Method Not Allowed"}, 405)
        elif not self._keys.is_given(key):
            await exchange.send_document({"detail": f"Invalid API key: {key}"}, 401)
        else:
            await exchange.send_document(usage_of(self.allowances.get(key, Allowance())))

    async def _exchange_token(self, exchange: Exchange) -> None:
        await exchange.read_as_told()
        form = parse_qs(bytes(exchange.recorded.body).decode("latin-1"))
        given = form.get("refresh_token", [""])[0]
        if form.get("grant_type") != ["refresh_token"] or given not in self.refresh_tokens:
            error = {"error": "invalid_grant", "error_description": "Session has already ended."}
            await exchange.send_document(error, 400)
            return
        number = next(self._numbers)
        access, refresh = f"access-{number}-{given}", f"{given}-{number}"
        self.refresh_tokens.discard(given)
        self.refresh_tokens.add(refresh)
        self.plan(access)
        tokens = {"access_token": access, "refresh_token": refresh, "authentication_method": "Password"}
        await exchange.send_document({"user": {"object": "user", "id": "user_fake"}, **tokens})

    # Control from another process

    async def control(self, exchange: Exchange, path: str) -> None:
        action = path.removeprefix(CONTROL)
        if action == "keys":
            await exchange.read_as_told()
            plans = PLANS.decode(exchange.recorded.body)
            for key, behaviours in plans.items():
                self.plan(key, *behaviours)
            await exchange.send_document({"keys": len(plans)})
        elif action == "asked":
            since = exchange.query.integer("since", 0)
            await exchange.send_document([each.document() for each in self.asked[since:]])
        elif action == "reset":
            self.forget()
            await exchange.send_document({})
        else:
            await super().control(exchange, path)


@contextlib.contextmanager
def running(port: int = 0) -> Iterator[FakeProvider]:
    """Run a fake provider beside the caller until the block is left."""
    with in_thread(FakeProvider(), port=port) as provider:
        yield provider


def main() -> None:
    parser = argparse.ArgumentParser(description="A provider that knows its keys; see the module's docstring.")
    parser.add_argument("--port", type=int, default=0)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), running(parser.parse_args().port) as provider:
        print(f"listening on {provider.authority}", flush=True)
        while True:
            signal.pause()


if __name__ == "__main__":
    main()
