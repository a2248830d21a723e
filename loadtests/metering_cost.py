"""The cost of metering: requests that are counted against a quota in Redis, against the same on a public route; and
streams whose usage is read, against streams that count as one request each.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtests.measure import cpu_spent_ns, read_cpu
from loadtests.processes import Running
from loadtests.relay_pairs import Variant, compared_at, embedded_redis, load, relay, target
from loadtests.samples import Reading, Unit
from loadtests.sse_client import StreamError, event_streams
from loadtests.streaming_upstream import EVENTS_PER_S
from loadtests.upstreams import Upstreams
from loadtests.wrk import REQUEST_BODY, REQUEST_HEADERS, REQUEST_PATH
from proxy.rules.access_tokens import AMOUNT_MAX, AccessToken, Terms, digest_of
from proxy.rules.access_tokens import Unit as Counted
from proxy.rules.metering import Counter
from proxy.shared_state.breaker import Breaker, Guard
from proxy.shared_state.client import Client, connect
from proxy.shared_state.token_store import PublishedToken, TokenStore

METERING_RATIO_MAX = 1.25
DEADLINE_S = 5.0
USAGE_RATIO_MAX = 1.15
WARM_UP_S = 0.5
ONE = {Counted.REQUESTS: REQUEST_HEADERS["Authorization"].removeprefix("Bearer ").encode()}
BY_UNIT = {Counted.TOKENS: b"flow_tokens", Counted.REQUESTS: b"flow_requests"}
REQUEST_HEAD = (
    b"POST /events/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %b\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)


@dataclass(frozen=True)
class MeteringCost:
    """Requests through a route with `access: token`, and through the same one that is public."""

    pairs: int
    bursts: int = 4
    name: str = "metering"

    @property
    def title(self) -> str:
        which = "Requests counted against the quota of an access token against those of a public route"
        return f"{which}, both with a Redis; {load(self.pairs, self.bursts)}"

    def measure(self, upstreams: Upstreams, directory: Path) -> list[Reading]:
        metered, public = (
            Variant({"/": {"target": target(upstreams), "access": access}}, {}) for access in ("token", "public")
        )
        digests = list(map(digest_of, ONE.values()))
        with embedded_redis(directory / "redis") as url:
            asyncio.run(publish(url, counting(ONE)))
            values = compared_at(url, directory, metered, public, REQUEST_PATH, self.pairs, self.bursts)
            of_redis_ms = 1000 * asyncio.run(cpu_s_of(url)) / asyncio.run(taken_of(url, digests))
        what = "CPU/request of the relay, counted / public"
        return [
            Reading(self.name, what, Unit.RATIO, values, METERING_RATIO_MAX),
            Reading(self.name, "CPU of Redis for each that is counted", Unit.MILLISECONDS, [of_redis_ms]),
        ]


@dataclass(frozen=True)
class UsageCost:
    """Streams of events whose tokens are counted, and the same streams for a token that counts requests."""

    pairs: int
    streams: int = 100
    seconds: float = 2.0
    name: str = "usage-reading"

    @property
    def title(self) -> str:
        which = "Streams of chat completions of which tokens are counted against those that count as a request"
        return (
            f"{which}; {self.streams} of each at {EVENTS_PER_S} events a second, {self.pairs} pairs of relays a round"
        )

    def measure(self, upstreams: Upstreams, directory: Path) -> list[Reading]:
        variant = Variant({"/": {"target": f"http://127.0.0.1:{upstreams.streaming.port}", "access": "token"}}, {})
        found = []
        with embedded_redis(directory / "redis") as url:
            asyncio.run(publish(url, counting(BY_UNIT)))
            for number in range(self.pairs):
                folder = directory / str(number)
                with relay(folder / "one", url, variant) as one, relay(folder / "other", url, variant) as other:
                    # The relay that the kernel wakes last finds more events at once, and so has less to do for each.
                    found.append(math.sqrt(self._ratio(one, other) * self._ratio(other, one)))
        return [Reading(self.name, "CPU/event, read / not read", Unit.RATIO, found, USAGE_RATIO_MAX)]

    def _ratio(self, ours: Running, theirs: Running) -> float:
        tokens = {ours: BY_UNIT[Counted.TOKENS], theirs: BY_UNIT[Counted.REQUESTS]}
        programs = sorted(tokens, key=lambda program: program.port)
        with ExitStack() as stack, ThreadPoolExecutor(len(programs)) as together:
            opened = [
                stack.enter_context(event_streams(program.port, self.streams, asking(tokens[program])))
                for program in programs
            ]
            for streams in opened:
                streams.receive(WARM_UP_S)
            before = [read_cpu(program.session) for program in programs]
            tallies = list(together.map(lambda streams: streams.receive(self.seconds), opened))
            after = [read_cpu(program.session) for program in programs]
        if any(tally.ended or not tally.events for tally in tallies):
            raise StreamError("a stream ended, or none had an event")
        ns_an_event = {
            program: cpu_spent_ns(*readings) / tally.events
            for program, readings, tally in zip(programs, zip(before, after, strict=True), tallies, strict=True)
        }
        return float(ns_an_event[ours] / ns_an_event[theirs])


def asking(token: bytes) -> bytes:
    """Returns a request for a stream without an end."""
    return REQUEST_HEAD % (token, len(REQUEST_BODY)) + REQUEST_BODY


def counting(tokens: Mapping[Counted, bytes]) -> list[PublishedToken]:
    """Returns tokens whose quota is never used up, by what it counts."""
    counter = Counter(AMOUNT_MAX, AMOUNT_MAX, 1)
    return [
        PublishedToken(digest_of(token), AccessToken(f"tok_{unit.value}", 1, unit), Terms(), counter)
        for unit, token in tokens.items()
    ]


async def publish(url: str, tokens: Sequence[PublishedToken]) -> None:
    """Puts the tokens of a benchmark into a Redis that has none."""
    async with asked(url) as client:
        store = TokenStore(client, Guard(client, Breaker(), DEADLINE_S))
        await store.publish(tokens)
        await store.set_ready()


async def taken_of(url: str, digests: Sequence[str]) -> int:
    """How much has been taken of the quotas of these tokens, in all."""
    async with asked(url) as client:
        counters = await TokenStore(client, Guard(client, Breaker(), DEADLINE_S)).counters(digests)
    return sum(counter.total - counter.remaining for counter in counters if counter is not None)


async def cpu_s_of(url: str) -> float:
    """How much CPU a Redis has spent in all."""
    async with asked(url) as client:
        spent = await client.info("cpu")
    return float(spent["used_cpu_user"]) + float(spent["used_cpu_sys"])


@asynccontextmanager
async def asked(url: str) -> AsyncIterator[Client]:
    client = connect(url, deadline_s=DEADLINE_S)
    try:
        yield client
    finally:
        await client.aclose()
