"""How far SQL falls behind Redis at full load: the age of the oldest row of the ledger that is not in SQL yet.

Rows leave Redis's stream when they are committed, so the first entry of the stream is the oldest that is not, and its
id says since when. That is exact at any moment; the control plane tells what it found when it last looked.
"""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from redis.exceptions import RedisError

from loadtests import keep_alive
from loadtests.cases import WrongAnswerError, exchange, expect
from loadtests.keep_alive import KeepAlive
from loadtests.metering_cost import DEADLINE_S
from loadtests.relay_pairs import CONNECTIONS, target
from loadtests.samples import Reading, Unit
from loadtests.servers import RELAYGATE_ROUTE_LIMITS
from loadtests.serving import ADMIN_TOKEN, Serving, serving, wait_for
from loadtests.upstreams import ANSWER, Upstreams
from loadtests.wrk import REQUEST_BODY, REQUEST_HEADERS, REQUEST_PATH, WrkError, WrkFigures, run_wrk, write_script
from proxy.rules.access_tokens import AMOUNT_MAX
from proxy.shared_state.client import Client, connect
from proxy.shared_state.embedded import EmbeddedRedis
from proxy.shared_state.keys import METER_LEDGER

LAG_S_MAX = 5.0
POLL_S = 0.2
DRAIN_S_MAX = 60.0
"""How long after the load the last row may take to get into SQL, before the round counts as failed."""
PREFIX = "/metered"
PATH = PREFIX + REQUEST_PATH
NEW_TOKEN = {
    "ws_id": "loadtests",
    "email": "loadtests@example.com",
    "operation": "unlimited",
    "quota_type": "count",
    "total_quota": AMOUNT_MAX,
}
FIELDS = b"authorization: Bearer %b\r\ncontent-type: application/json\r\n" % ADMIN_TOKEN.encode()


class Lags(NamedTuple):
    """Seconds, one for each look: by Redis, and as the admin API told it just then."""

    exact_s: list[float]
    told_s: list[float]


@dataclass(frozen=True)
class LedgerLag:
    """`relaygate serve` with one worker and SQLite, with all the load that it takes on a route with `access: token`."""

    seconds: float = 10.0
    name: str = "ledger-lag"

    @property
    def title(self) -> str:
        return (
            f"{CONNECTIONS} connections with one access token to `relaygate serve` with one worker and SQLite, for "
            f"{self.seconds:g} s, until the last row of the ledger is in SQL; looked at every {POLL_S:g} s"
        )

    def measure(self, upstreams: Upstreams, directory: Path) -> list[Reading]:
        route = {"target": target(upstreams), "access": "token", **RELAYGATE_ROUTE_LIMITS}
        with serving(upstreams, directory, routes={PREFIX: route}) as system:
            url = EmbeddedRedis(directory / "data" / "redis").url
            try:
                lags, figures = asyncio.run(self._observed(system, url, directory))
            except (OSError, EOFError, RedisError, keep_alive.WrongAnswerError) as error:
                raise WrongAnswerError(f"the ledger cannot be observed: {error!r}") from error
        lines = [
            ("longest lag", Unit.SECONDS, max(lags.exact_s), LAG_S_MAX),
            ("longest lag that the admin API told", Unit.SECONDS, max(lags.told_s), None),
            ("requests", Unit.PER_SECOND, figures.requests / figures.duration_s, None),
        ]
        return [Reading(self.name, what, unit, [value], bound) for what, unit, value, bound in lines]

    async def _observed(self, system: Serving, url: str, directory: Path) -> tuple[Lags, WrkFigures]:
        """Raises WrongAnswerError also where the ledger does not have a row for each request."""
        client = connect(url, deadline_s=DEADLINE_S)
        admin = Admin(await KeepAlive.open(system.admin_port))
        try:
            token = await admin.ask(b"POST", b"/flow/tokens", NEW_TOKEN)
            headers = {**REQUEST_HEADERS, "Authorization": f"Bearer {token['access_token']}"}
            await asyncio.to_thread(
                wait_for, lambda: expect(exchange(system.port, "POST", PATH, REQUEST_BODY, headers), ANSWER)
            )
            script = write_script(directory, headers)
            load = asyncio.create_task(asyncio.to_thread(run_wrk, script, system.port, CONNECTIONS, self.seconds, PATH))
            lags = await watched(load, client, admin)
            figures = await load
            if figures.errors or not figures.requests:
                raise WrkError("; ".join(figures.errors) or "no request was answered")
            await expect_rows(admin, token["id"], figures.requests)
        finally:
            await admin.close()
            await client.aclose()
        return lags, figures


class Admin:
    """The admin API, on one connection. Its methods raise OSError, EOFError, and WrongAnswerError of either module."""

    def __init__(self, wire: KeepAlive) -> None:
        self._wire = wire

    async def ask(self, method: bytes, path: bytes, body: Any = None) -> Any:
        """Returns the `data` of the answer."""
        answer = await self._wire.ask(method, path, b"" if body is None else json.dumps(body).encode(), FIELDS)
        if answer.status != 200:
            raise WrongAnswerError(f"{path.decode()}: status {answer.status} instead of 200: {answer.body[:200]!r}")
        return json.loads(answer.body)["data"]

    async def close(self) -> None:
        await self._wire.close()


async def watched(load: asyncio.Task[WrkFigures], client: Client, admin: Admin) -> Lags:
    """Looks at the lag until the load has ended and all its rows are in SQL."""
    lags = Lags([], [])
    drained_by_s = float("inf")
    while True:
        ended = load.done()
        waiting, age_s = await oldest(client)
        told = await admin.ask(b"GET", b"/flow/cache-write-pool/stats")
        lags.exact_s.append(age_s)
        if told["lag_seconds"] is not None:
            lags.told_s.append(told["lag_seconds"])
        if ended:
            if not waiting and lags.told_s:
                return lags
            drained_by_s = min(drained_by_s, monotonic() + DRAIN_S_MAX)
            if monotonic() > drained_by_s:
                raise WrongAnswerError(f"{waiting} entries of the ledger wait {DRAIN_S_MAX:g} s after the load")
        await asyncio.sleep(POLL_S)


async def oldest(client: Client) -> tuple[int, float]:
    """How many entries of the ledger are not in SQL, and for how many seconds the oldest has been there."""
    waiting = await client.xlen(METER_LEDGER)
    entries: Any = await client.xrange(METER_LEDGER, count=1)
    seconds, microseconds = await client.time()
    if not entries:
        return waiting, 0.0
    since_ms = int(entries[0][0].partition(b"-")[0])
    return waiting, max(0.0, seconds + microseconds / 1e6 - since_ms / 1000)


async def expect_rows(admin: Admin, token: str, requests: int) -> None:
    """Raises WrongAnswerError unless SQL has a row for each request, also for those whose answers wrk left."""
    logs = await admin.ask(b"GET", b"/flow/tokens/%b/quota/logs?page_size=1" % token.encode())
    quota = await admin.ask(b"GET", b"/flow/tokens/%b/quota" % token.encode())
    rows = logs["total"] - 1  # that of the token's making
    if rows != quota["consumed_quota"] or not requests <= rows <= requests + CONNECTIONS + 1:
        raise WrongAnswerError(f"{requests} requests, {quota['consumed_quota']} of the quota, {rows} rows in SQL")
