"""The cost of the key pool: requests that get a key of many, against requests whose own credential is passed on."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.relay_pairs import Variant, compared_at, embedded_redis, load, target
from loadtests.samples import Reading, Unit
from loadtests.upstreams import Upstreams
from loadtests.wrk import REQUEST_PATH
from proxy.rules.credentials import Credential
from proxy.secrets import VARIABLE, Secrets, new_key
from proxy.shared_state.breaker import Breaker, Guard
from proxy.shared_state.client import connect
from proxy.shared_state.published import Mark
from proxy.shared_state.published_credentials import Replace, publish_credentials

KEY_POOL_RATIO_MAX = 1.15
DEADLINE_S = 5.0


@dataclass(frozen=True)
class KeyPoolCost:
    """Requests through a route with a key pool, and through the same one that passes the client's own key on."""

    pairs: int
    bursts: int = 4
    keys: int = 1000
    name: str = "key-pool"

    @property
    def title(self) -> str:
        which = f"A key of {self.keys:,} for each request against the client's own passed on"
        return f"{which}, both with a Redis; {load(self.pairs, self.bursts)}"

    def measure(self, upstreams: Upstreams, directory: Path) -> list[Reading]:
        encryption = new_key()
        pool, own = (
            Variant(
                {"/": {"target": target(upstreams), "dialect": "openai", "credential": source}}, {VARIABLE: encryption}
            )
            for source in ("pool", "client")
        )
        keys = credentials(Secrets([encryption], VARIABLE), self.keys)
        with embedded_redis(directory / "redis") as url:
            asyncio.run(publish(url, keys))
            values = compared_at(url, directory, pool, own, REQUEST_PATH, self.pairs, self.bursts)
        what = f"CPU/request, one of {self.keys:,} keys / the client's own"
        return [Reading(self.name, what, Unit.RATIO, values, KEY_POOL_RATIO_MAX)]


def credentials(secrets: Secrets, count: int) -> list[Credential]:
    """So many keys, as the control plane publishes them."""
    names = [f"key_{number}" for number in range(count)]
    return [Credential(name, secrets.encrypt(f"sk-benchmark-{name}", f"credential:{name}")) for name in names]


async def publish(url: str, keys: Sequence[Credential]) -> None:
    """Puts them into a Redis that has none."""
    client = connect(url, deadline_s=DEADLINE_S)
    try:
        guard = Guard(client, Breaker(), DEADLINE_S)
        await publish_credentials(client, guard, keys, (), Mark(1, 1), Replace.WHOLE)
    finally:
        await client.aclose()
