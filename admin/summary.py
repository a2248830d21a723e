"""The small form of the figures, in Redis: what workers answer at `server.stats_path`."""

import msgspec

from admin.context import Services
from admin.endpoints.statistics import summary
from proxy.shared_state.breaker import Guard
from proxy.shared_state.client import Client
from proxy.shared_state.keys import SUMMARY

WRITE_S = 2.0
GOOD_FOR_S = 30
"""After so long without a control plane or its database, there are no figures rather than old ones."""


async def write(client: Client, guard: Guard, services: Services) -> None:
    """Writes the figures of now. Raises DatabaseDown, StoreUnavailable."""
    data = msgspec.json.encode(summary(services, await services.statistics.totals()))
    await guard.call(lambda: client.set(SUMMARY, data, ex=GOOD_FOR_S))
