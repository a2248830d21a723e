"""All that is about access tokens, put together: what endpoints ask, and what runs beside them."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, NamedTuple

from admin import jobs
from admin.consumer import OF_LEDGER, Consumer
from admin.context import TokenServices
from admin.database import Database
from admin.quota_cleanup import QuotaCleanup
from admin.readiness import Health, View
from admin.services.access_tokens import AccessTokens
from admin.services.counters import SharedCounters
from admin.services.ledger_export import LedgerExport
from admin.services.ledger_intake import LedgerIntake
from admin.services.ledger_retention import LedgerRetention
from admin.services.quota_logs import QuotaLogs
from admin.services.stream import Stream
from admin.services.token_feed import TokenFeed
from admin.token_ports import LedgerQueue
from admin.token_publisher import TokenPublisher
from proxy.config import Config
from proxy.shared_state.breaker import Guard
from proxy.shared_state.client import Client
from proxy.shared_state.ledger import LEDGER

FORGET_S = 3600.0
LEDGER_LAG_MAX_S = 30.0
"""From an older row on, the ledger counts as down."""


class AboutTokens(NamedTuple):
    """`beside` is what runs until it is cancelled; then `drain` is called. `views` are for readiness."""

    services: TokenServices
    beside: tuple[Callable[[], Coroutine[Any, Any, None]], ...]
    drain: Callable[[], Awaitable[None]]
    views: Mapping[str, Callable[[], View]]


def about_tokens(
    config: Config, database: Database, client: Client, guard: Guard, now_ms: Callable[[], int]
) -> AboutTokens:
    """Puts it together."""
    stream, intake = Stream(), LedgerIntake(now_ms)
    consumer = Consumer(client, guard, database, {LEDGER: intake}, stream, OF_LEDGER)
    publisher = TokenPublisher(client, guard, TokenFeed(database, now_ms), consumer.take_all)
    intake.on_fork = publisher.refill_soon
    tokens = AccessTokens(database, now_ms, SharedCounters(client, guard))
    tokens.published = publisher.published
    cleanup = QuotaCleanup(
        config.quota_cleanup, LedgerRetention(database, config.quota_cleanup.retention_days, now_ms), now_ms
    )
    queue = LedgerQueue(stream, OF_LEDGER.poll_s, OF_LEDGER.entries_max)
    return AboutTokens(
        TokenServices(tokens, QuotaLogs(database), LedgerExport(database), queue, cleanup),
        (
            publisher.run,
            consumer.run,
            cleanup.run,
            lambda: jobs.repeat("the forgetting of deleted access tokens", publisher.forget_deleted, FORGET_S),
        ),
        consumer.drain,
        {"ledger": lambda: ledger_view(stream)},
    )


def ledger_view(stream: Stream) -> View:
    """Whether changes of quotas get into the database."""
    lag = stream.lag()
    if lag is None:
        return View(Health.DOWN, {})
    waiting, lag_s = lag
    numbers = {"waiting": waiting, "lag_s": round(lag_s, 3)}
    return View(Health.OK if lag_s < LEDGER_LAG_MAX_S else Health.DOWN, numbers)
