"""A key pool under test: `relaygate serve` with two workers, the fake provider, and a group of keys for each test.

A group is what keeps tests apart that share a system: each has routes of its own that use its keys only. All keys have
the canary in them, so that the search of all output that follows each test finds any that was printed.
"""

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from loadtests.fake_provider import FakeProvider
from loadtests.fake_provider_keys import Behaviour
from loadtests.fake_provider_requests import MARKER, Asked
from tests.end_to_end.calls import HEADERS, OPENAI, Call, Told
from tests.end_to_end.load import worker_of
from tests.end_to_end.raw_client import ClosedEarlyError, Header, RawClient, Response
from tests.end_to_end.relay_process import CANARY
from tests.end_to_end.system import System
from tests.end_to_end.waiting import eventually

WORKERS = 2
GROUPS = 150
BODY_BYTES_MAX = 64 * 1024
HASTY_S = 0.5
"""How long a route named `hasty` waits for an answer."""

LOOK_S = 0.05

KEY_NUMBERS = itertools.count()
MARKER_NUMBERS = itertools.count()
SETTINGS: Mapping[str, Any] = {
    "retry_delay_ms": 20,
    "error_threshold": 3,
    "retry_body_bytes_max": BODY_BYTES_MAX,
    "overload_s": 1.0,
    "groups": {f"group-{number}": {"priority": number} for number in range(GROUPS)},
}


def routes(provider: FakeProvider, groups: int = GROUPS) -> dict[str, Any]:
    """For each group one route for each API, and a hasty one; and routes that pass the client's own key on."""
    found: dict[str, Any] = {}
    for dialect in ("openai", "anthropic", "gemini"):
        found[f"/client/{dialect}"] = {"target": provider.url, "dialect": dialect, "credential": "client"}
        for number in range(groups):
            pool = {"credential": "pool", "pool_groups": [f"group-{number}"]}
            found[f"/{number}/{dialect}"] = {"target": provider.url, "dialect": dialect, **pool}
    for number in range(groups):
        found[f"/{number}/hasty"] = {**found[f"/{number}/openai"], "head_timeout_s": HASTY_S}
    return found


def configuration(provider: FakeProvider, groups: int = GROUPS, **key_pool: Any) -> dict[str, Any]:
    server = {"workers": WORKERS, "access_log": True}
    return {"server": server, "key_pool": {**SETTINGS, **key_pool}, "routes": routes(provider, groups)}


class Pool:
    """One group's keys, and clients that use them."""

    def __init__(self, system: System, provider: FakeProvider, number: int) -> None:
        self.system = system
        self.provider = provider
        self.number = number
        self.group = f"group-{number}"
        self.keys: list[str] = []
        self._since_s = 0.0

    # Keys

    def add(self, count: int) -> list[str]:
        """Import good keys through the admin API; returns when each worker uses each of them."""
        keys = [self.new_key() for _ in range(count)]
        self.imported(keys)
        self.keys += keys
        with self.client_of_each_worker() as clients:
            for client in clients:
                eventually(lambda client=client: self._uses_all(client), what="the use of all keys")  # type: ignore[misc]
        self._since_s = time.monotonic()
        return keys

    def new_key(self) -> str:
        """A key that the provider has given out. Its end is unlike any other's, by which lists show it."""
        key = f"sk-{CANARY}-{self.number:03}-{next(KEY_NUMBERS):04}"
        self.provider.plan(key)
        return key

    def imported(self, keys: list[str]) -> None:
        answer = self.system.admin("POST", "/admin/keys/batch", {"keys": keys, "poolGroup": self.group})
        assert answer.status in (200, 201), answer
        assert answer.body["success"] is True, answer

    def _uses_all(self, client: RawClient) -> bool:
        """Asks as often as there are keys: they are used in turn."""
        marker = self.marker()
        for _ in self.keys:
            self.ask(Call("openai", "/v1/models", {}), client=client, marker=marker, method="GET")
        return {each.key for each in self.provider.with_marker(marker)} == set(self.keys)

    def plan(self, keys: list[str], *behaviours: Behaviour) -> None:
        for key in keys:
            self.provider.plan(key, *behaviours)

    def used(self, key: str) -> list[Asked]:
        """What was asked with a key since all had been added, in the order of time."""
        return [each for each in self.provider.with_key(key) if each.began_s >= self._since_s]

    def rows(self) -> dict[str, dict[str, Any]]:
        """The admin API's rows of this group's keys, by key."""
        found = rows(self.system)
        return {key: row for key in self.keys for row in found if str(row["key"]).endswith(key[-4:])}

    def id_of(self, key: str) -> str:
        return str(self.rows()[key]["id"])

    def status_of(self, key: str) -> str:
        return str(self.rows()[key]["status"])

    # Clients

    def marker(self) -> str:
        """A name for one request that no other request has."""
        return f"{self.group}-{next(MARKER_NUMBERS)}"

    def ask(
        self,
        call: Call = OPENAI,
        *,
        client: RawClient | None = None,
        marker: str = "",
        method: str = "POST",
        headers: list[Header] = HEADERS,
    ) -> Response:
        """One request, on a connection of its own unless there is a client for it."""
        target = f"/{self.number}/{call.route}{call.path}"
        body = None if method == "GET" else json.dumps(call.document).encode()
        fields = [*headers, (MARKER.encode(), (marker or self.marker()).encode())]
        return (client or self.system).request(method, target, fields, body)

    def crowd(self, call: Call = OPENAI, clients: int = 20, each: int = 3) -> list[Told]:
        """Many clients at once, on both workers, each with a connection that it keeps."""
        return self._at_once(clients, lambda told, _: len(told) < each, call)

    def crowd_for(self, seconds: float, call: Call = OPENAI, clients: int = 8, pause_s: float = 0.02) -> list[Told]:
        """Some clients at once, of each worker one at least."""
        end_s = time.monotonic() + seconds
        return self.crowd_while(lambda: time.monotonic() < end_s, call, clients, pause_s)

    def crowd_while(
        self, is_wanted: Callable[[], bool], call: Call = OPENAI, clients: int = 8, pause_s: float = 0.02
    ) -> list[Told]:
        """The same for as long as it is wanted, which is asked now and then."""
        over = threading.Event()

        def goes_on(_told: list[Told], _client: RawClient) -> bool:
            time.sleep(pause_s)
            return not over.is_set()

        def watch() -> None:
            try:
                while is_wanted():
                    time.sleep(LOOK_S)
            finally:
                over.set()

        with self.client_of_each_worker() as known:
            watcher = threading.Thread(target=watch)
            watcher.start()
            try:
                return self._at_once(clients, goes_on, call, known)
            finally:
                watcher.join()

    def _at_once(
        self,
        clients: int,
        goes_on: Callable[[list[Told], RawClient], bool],
        call: Call,
        known: Sequence[RawClient] = (),
    ) -> list[Told]:
        def one(number: int) -> list[Told]:
            told: list[Told] = []
            own = contextlib.nullcontext(known[number]) if number < len(known) else self.system.client()
            with own as client:
                while goes_on(told, client):
                    told.append(self.told(call, client))
            return told

        with ThreadPoolExecutor(clients) as threads:
            return list(itertools.chain.from_iterable(threads.map(one, range(clients))))

    def told(self, call: Call = OPENAI, client: RawClient | None = None) -> Told:
        marker = self.marker()
        return Told(marker, self.ask(call, client=client, marker=marker))

    @contextlib.contextmanager
    def client_of_each_worker(self) -> Iterator[list[RawClient]]:
        with client_of_each_worker(self.system) as clients:
            yield clients


def rows(system: System) -> list[dict[str, Any]]:
    """All keys as the admin API lists them, whatever the page's size."""
    found: list[dict[str, Any]] = []
    for page in itertools.count(1):
        answer = system.admin("GET", f"/admin/keys?page={page}&limit=100")
        assert answer.status == 200, answer
        listed = answer.body["data"]
        listed = listed if isinstance(listed, list) else listed["keys"]
        found += listed
        if len(listed) < 100:
            return found
    raise AssertionError


@contextlib.contextmanager
def client_of_each_worker(system: System, workers: int = WORKERS) -> Iterator[list[RawClient]]:
    """One kept connection to each worker. The kernel says who gets a new one, so some are opened and closed again."""
    found: dict[str, RawClient] = {}
    with contextlib.ExitStack() as stack:

        def opened() -> bool:
            client = stack.enter_context(system.client())
            with contextlib.suppress(OSError, ClosedEarlyError):
                found.setdefault(worker_of(client.request("GET", "/nowhere")), client)
            return len(found) == workers

        eventually(opened, what="a connection to each worker")
        yield list(found.values())


class Pools:
    """Hands out the groups of a system, one after the other."""

    def __init__(self, system: System, provider: FakeProvider) -> None:
        self.system = system
        self.provider = provider
        self._numbers = iter(range(GROUPS))

    def new(self) -> Pool:
        return Pool(self.system, self.provider, next(self._numbers))
