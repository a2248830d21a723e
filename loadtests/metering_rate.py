"""How many requests one worker gets counted in a second, and how long each waits for that: the meter and Redis alone.

Redis is the embedded one of the same machine, and neither is held to a CPU. `meter_askers.py` says who asks.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.cases import WrongAnswerError
from loadtests.meter_askers import Asking, ask
from loadtests.metering_cost import publish, taken_of
from loadtests.relay_pairs import embedded_redis
from loadtests.samples import Reading, Side, Unit
from loadtests.upstreams import Upstreams
from proxy.rules.access_tokens import AMOUNT_MAX, AccessToken, Terms, digest_of
from proxy.rules.access_tokens import Unit as Counted
from proxy.rules.metering import Counter
from proxy.shared_state.token_store import PublishedToken

ADMISSIONS_PER_S_MIN = 15_000
WAIT_P95_MS_MAX = 10.0
NEVER_REACHED = 1_000_000
QUOTA = Counter(AMOUNT_MAX, AMOUNT_MAX, 1)
UNBOUNDED = Terms()
BOUNDED = Terms(per_minute=NEVER_REACHED, per_second=NEVER_REACHED, concurrent=NEVER_REACHED)


@dataclass(frozen=True)
class MeteringRate:
    """Requests that are only admitted and settled: of one token without bounds, and of many that have every bound."""

    askers: int = 256
    seconds: float = 2.0
    tokens: int = 64
    name: str = "metering-rate"

    @property
    def title(self) -> str:
        return (
            f"{self.askers} askers of one worker's meter, each of which has a request counted, settles it and asks "
            f"again, for {self.seconds:g} s, with an embedded Redis; nothing is relayed"
        )

    def measure(self, upstreams: Upstreams, directory: Path) -> list[Reading]:  # noqa: ARG002 - nothing is relayed
        one, many = published("one", 1, UNBOUNDED), published("many", self.tokens, BOUNDED)
        with embedded_redis(directory / "redis") as url:
            asyncio.run(publish(url, [*one, *many]))
            of_one, of_many = (self._asked(url, [token.digest for token in tokens]) for tokens in (one, many))
        which = f"{self.tokens} tokens with every bound"
        return [
            self._rate("one token", of_one, ADMISSIONS_PER_S_MIN),
            self._wait("one token", of_one, WAIT_P95_MS_MAX),
            self._rate(which, of_many),
            self._wait(which, of_many),
        ]

    def _asked(self, url: str, digests: Sequence[str]) -> Asking:
        """Raises WrongAnswerError also where the counters do not say what was admitted."""
        asking = ask(url, digests, self.askers, self.seconds)
        taken = asyncio.run(taken_of(url, digests))
        if taken != asking.admitted_in_all:
            raise WrongAnswerError(f"{asking.admitted_in_all} requests were admitted, and {taken} counted")
        return asking

    def _rate(self, which: str, asking: Asking, bound: float | None = None) -> Reading:
        rate = asking.admitted_per_s
        return Reading(self.name, f"admissions, {which}", Unit.PER_SECOND, [rate], bound, Side.AT_LEAST)

    def _wait(self, which: str, asking: Asking, bound: float | None = None) -> Reading:
        wait_ms = 1000 * asking.wait_p95_s
        return Reading(self.name, f"p95 of the wait for one, {which}", Unit.MILLISECONDS, [wait_ms], bound)


def published(name: str, count: int, terms: Terms) -> list[PublishedToken]:
    """So many tokens, as the control plane publishes them."""
    names = [f"tok_{name}_{number}" for number in range(count)]
    return [
        PublishedToken(digest_of(each.encode()), AccessToken(each, 1, Counted.REQUESTS), terms, QUOTA) for each in names
    ]
