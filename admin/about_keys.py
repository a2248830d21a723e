"""All that is about keys, put together: what endpoints ask, and what runs beside them."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from admin import jobs, readiness
from admin.auth_file import AuthFile
from admin.context import KeyServices
from admin.credential_publisher import CredentialPublisher
from admin.data_directory import data_directory
from admin.explanations import Explanations
from admin.key_balances import LOOK_S as LOOK_AT_BALANCES_S
from admin.key_balances import KeyBalances
from admin.key_tests import KeyTests
from admin.live_log import LiveLog, follow
from admin.oauth import LOCK_MS, LOOK_S, Health, OAuth, Standing
from admin.oauth_sources import Sources
from admin.readiness import View
from admin.redis_lock import RedisLock
from admin.services.balances import Balances
from admin.services.credential_bans import SharedBans
from admin.services.credential_feed import CredentialFeed
from admin.services.credential_statistics import CredentialStatistics
from admin.services.credentials import Credentials
from admin.services.edits import Editor
from admin.services.key_pool import KeyPoolSettings
from admin.services.oauth import OAuthTokens
from admin.services.pool_groups import PoolGroups
from admin.services.upstreams import Upstreams
from admin.token_endpoint import TokenEndpoint
from admin.upstream_calls import UpstreamCalls
from proxy.config import Config
from proxy.rules.credentials import OAUTH_ID, Kind
from proxy.secrets import Secrets
from proxy.shared_state.breaker import Guard
from proxy.shared_state.client import Client
from proxy.shared_state.keys import BALANCES_TURN, OAUTH_LOCK

AUTH_FILE = "auth.json"
"""In the data directory."""


class AboutKeys(NamedTuple):
    """`beside` is what runs until it is cancelled; then `close` is called. `views` are for readiness."""

    services: KeyServices
    beside: tuple[Callable[[], Coroutine[Any, Any, None]], ...]
    close: Callable[[], Awaitable[None]]
    views: Mapping[str, Callable[[], View]]


def about_keys(
    config: Config,
    edits: Editor,
    secrets: Secrets,
    client: Client,
    guard: Guard,
    now_ms: Callable[[], int],
) -> AboutKeys:
    """Puts it together. Raises ConfigError."""
    database = edits.database
    publisher = CredentialPublisher(client, guard, CredentialFeed(database))
    credentials = Credentials(database, secrets, now_ms, SharedBans(client, guard))
    groups = PoolGroups(edits, now_ms)
    balances = Balances(database, config.retention, now_ms)
    credentials.notify = groups.notify = balances.notify = publisher.publish_soon
    key_pool = KeyPoolSettings(edits)
    calls = UpstreamCalls(allow_private_targets=config.server.allow_private_targets)
    tests = KeyTests(credentials, key_pool, Upstreams(edits).routes_to_backends, calls)
    sync = KeyBalances(credentials, key_pool, balances, calls, lambda interval_s: turn(client, guard, interval_s))
    live_log = LiveLog()
    statistics = CredentialStatistics(database, now_ms)
    explanations = Explanations(client, guard)
    services = KeyServices(credentials, groups, key_pool, statistics, tests, balances, sync, live_log, explanations)
    oauth = OAuth(
        Sources(config.credentials.refresh_token, AuthFile(auth_file(config))),
        OAuthTokens(database, secrets),
        TokenEndpoint(config, now_ms),
        RedisLock(client, guard, OAUTH_LOCK, LOCK_MS),
        lambda token: put_access_token(credentials, token),
        now_ms,
    )

    async def close() -> None:
        live_log.close()
        await sync.cancel()
        await tests.close()

    return AboutKeys(
        services,
        (
            publisher.run,
            lambda: jobs.repeat("the OAuth credential", oauth.look, LOOK_S),
            lambda: follow(live_log, client, guard),
            lambda: jobs.repeat("the look at balances", sync.look, LOOK_AT_BALANCES_S),
        ),
        close,
        {"oauth": lambda: oauth_view(oauth.standing)},
    )


def oauth_view(standing: Standing) -> View:
    """Whether the access token is kept fresh, if there is one to keep. Why not says the log: it may name a file."""
    return View(readiness.Health.DOWN if standing.health is Health.FAILING else readiness.Health.OK, {})


def auth_file(config: Config) -> Path:
    """Returns where the OAuth credential's state lies for other programs too."""
    given = config.credentials.auth_file
    return data_directory(config) / AUTH_FILE if given is None else Path(given)


async def put_access_token(credentials: Credentials, token: str | None) -> None:
    """Has all workers use this access token; None: there is none any more."""
    if token is None:
        await credentials.delete_many(ids=[OAUTH_ID])
    else:
        await credentials.put(id=OAUTH_ID, secret=token, kind=Kind.OAUTH)


async def turn(client: Client, guard: Guard, interval_s: float) -> bool:
    """Whether no control plane has begun to read balances within the interval; this one has, then."""
    lock = RedisLock(client, guard, f"{BALANCES_TURN}{interval_s:g}", int(interval_s * 1000))
    return await lock.take()
