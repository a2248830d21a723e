"""The control plane, put together: what it does before it serves, and the application with all that runs beside it."""

import asyncio
import contextlib
import importlib
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from litestar import Litestar

from admin import jobs, server, summary
from admin.about_keys import about_keys
from admin.about_tokens import about_tokens
from admin.app import Lifespan, create_app
from admin.auth import refuse_to_start
from admin.balancing_ports import Management
from admin.consumer import OF_EVENTS, Consumer
from admin.context import Services
from admin.data_directory import data_directory
from admin.database import Database, DatabaseDown, TransactionLost, open_database
from admin.health_checks import HealthChecks
from admin.management import BalancingManagement, Known
from admin.migrations import migrate
from admin.ports import ActionsService
from admin.publisher import Publisher
from admin.readiness import Health, View
from admin.rules import tokens
from admin.server import Listener
from admin.services.actions import Actions
from admin.services.backend_states import LOOK_S as LOOK_AT_BACKENDS_S
from admin.services.backend_states import BackendStates
from admin.services.credential_exports import unreadable
from admin.services.credential_intake import CredentialIntake
from admin.services.edits import Editor
from admin.services.events import Handler
from admin.services.retention import Retention
from admin.services.routes import Routes
from admin.services.settings import Settings
from admin.services.shared_reports import SharedReports
from admin.services.statistics import Statistics
from admin.services.statistics_intake import StatisticsIntake
from admin.services.stream import Stream
from admin.services.upstreams import Upstreams
from admin.services.versions import Versions
from admin.services.workers import LOOK_S, Workers
from admin.sources import apply_file
from admin.tls_reload import TlsReload, fingerprint_of
from admin.upstream_calls import Connections, UpstreamCalls
from proxy import logs
from proxy.config import Admin, Config, ConfigError, Grpc, Route, Server, Upstream
from proxy.key_pool.pool import KeyPool
from proxy.metering.gate import Gate
from proxy.rules.addresses import target_refusal
from proxy.rules.own_paths import hidden_by, own_paths
from proxy.secrets import KEY_FILE, Secrets, load_secrets
from proxy.server import check_address
from proxy.shared_state import credential_events
from proxy.shared_state.breaker import Breaker, Guard, unavailable_reason
from proxy.shared_state.client import Aof, check, connect
from proxy.shared_state.events import STATISTICS
from proxy.shared_state.tasks import end
from proxy.snapshot import Shared, compile_snapshot
from proxy.sources import tls_files
from proxy.upstream.groups import Groups
from proxy.upstream.pool import Pools

log = logging.getLogger("relaygate")

DRAIN_S = 5.0
"""For what lies in the stream at the end, half of what the server gives its worker."""
FORGET_FIRST_S = 60.0
FORGET_S = 3600.0
EVENTS_LAG_MAX_S = 30.0
"""From an older event on, the consumer counts as down."""

CHECK_REDIS_S = 5.0
SAID = {
    Aof.ON: "on",
    Aof.TURNED_ON: "turned on, but not in its configuration file: at its next start it is off again",
    Aof.OFF: "off, and it may not be turned on: if Redis stops, what workers have counted last is lost",
}
ADMIN_TOKEN = "admin_token"  # noqa: S105 - the name of the setting that keeps its digest


def run(load: Callable[[], Config]) -> int:
    """Runs the control plane until a signal ends it; returns the exit status. Raises ConfigError, DatabaseDown.

    SIGHUP has the settings loaded again: the file is applied, as at the start, and the worker replaced.
    """
    config = load()
    if config.redis.url is None:
        raise ConfigError("redis.url", "the control plane publishes through Redis, expected a URL or `relaygate serve`")
    if config.grpc.enabled:
        check_address("grpc", config.grpc.host, config.grpc.port)
    logs.start(config.server.log_level)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    token_hash = asyncio.run(prepare(config))
    asyncio.run(check_redis(config.redis.url))

    def reload() -> Listener | None:
        nonlocal config, token_hash
        try:
            fresh = load()
            config, token_hash = fresh, asyncio.run(prepare(fresh))
        except (ConfigError, DatabaseDown, TransactionLost) as error:
            log.error("configuration not reloaded: %s", error)  # noqa: TRY400 - a line, not a traceback
            return None
        log.info("configuration reloaded")
        return listener(config)

    server.run(lambda: make(config, token_hash), listener(config), reload)
    return 0


def listener(config: Config) -> Listener:
    return Listener(config.admin.host, config.admin.port, config.tls)


async def check_redis(url: str) -> None:
    """Sees to it that Redis is new enough and keeps an append-only file, and says in a line what was found.

    One that does not answer, or may not be asked, is no reason not to start: it is published to when it does. Raises
    ConfigError for one that is too old.
    """
    client = connect(url, deadline_s=CHECK_REDIS_S)
    try:
        found = await check(client)
    except ConfigError:
        raise
    except Exception as error:
        log.warning("redis is not checked: %s", unavailable_reason(error) or type(error).__name__)
    else:
        level = logging.INFO if found.aof is Aof.ON else logging.WARNING
        log.log(level, "redis %s, append-only file %s", found.version, SAID[found.aof])
    finally:
        await client.aclose()


async def prepare(config: Config) -> str:
    """Brings the tables up to date and the YAML file in; returns the digest of the admin token.

    Raises ConfigError, DatabaseDown.
    """
    async with opened(config) as database:
        settings = Settings(database)
        token_hash = await admin_token(config.admin, settings)
        refuse_to_start(config.admin.host, token_hash)
        await apply_file(config.routes, Routes(editor(config, database)), config.key_pool, config.upstreams)
        if problem := await unreadable(database, secrets_of(config)):
            log.error("stored secrets cannot be used, %s: put that key back, beside the one that is there", problem)
    return token_hash


def make(config: Config, token_hash: str) -> Litestar:
    """Returns the application. While it runs, publisher, consumer and what is done now and then run beside it."""
    database = open_database(database_url(config))
    settings = Settings(database)
    client = connect(config.redis.url or "")
    guard = Guard(client, Breaker())
    edits = editor(config, database)
    routes, versions = Routes(edits), Versions(edits)

    publisher = Publisher(client, guard, versions.mark, versions.current)
    edits.notify = publisher.publish_soon
    keys = about_keys(config, edits, secrets_of(config), client, guard, now_ms)

    access_tokens = about_tokens(config, database, client, guard, now_ms)

    backends = BackendStates(client, guard)
    calls = UpstreamCalls(allow_private_targets=config.server.allow_private_targets, connections=Connections.OWN)
    checks = HealthChecks(client, guard, versions.mark, versions.current, calls)

    stream, workers = Stream(), Workers(client, guard)
    handlers: dict[bytes, Handler] = {
        STATISTICS: StatisticsIntake(stream, now_ms),
        credential_events.KIND: CredentialIntake(now_ms),
    }
    consumer = Consumer(client, guard, database, handlers, stream, OF_EVENTS)
    statistics = Statistics(database, config.retention, time.time)
    services = Services(
        routes,
        versions,
        settings,
        Actions(database, now_ms),
        statistics,
        workers,
        stream,
        keys.services,
        access_tokens.services,
        BalancingManagement(
            config,
            Upstreams(edits),
            versions.current,
            statistics,
            stream,
            workers,
            Known(backends.health, backends.running, SharedReports(client, guard)),
            None if config.tls is None else TlsReload(client, guard, workers, fingerprint_of(config.tls)).reload,
        ),
    )
    retention = Retention(database, config.retention, lambda: [one.name for one in workers.living()], time.time)
    beside: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = (
        publisher.run,
        *keys.beside,
        *access_tokens.beside,
        consumer.run,
        checks.run,
        lambda: jobs.repeat("looking for workers", workers.look, LOOK_S),
        lambda: jobs.repeat("looking at backends", backends.look, LOOK_AT_BACKENDS_S),
        lambda: jobs.repeat("the summary", lambda: summary.write(client, guard, services), summary.WRITE_S),
        lambda: jobs.repeat("retention", retention.forget, FORGET_S, FORGET_FIRST_S),
    )

    @asynccontextmanager
    async def running(_: Litestar) -> AsyncIterator[None]:
        tasks = [asyncio.get_running_loop().create_task(work()) for work in beside]
        try:
            yield
        finally:
            await asyncio.gather(*map(end, tasks))
            await asyncio.gather(keys.close(), checks.close())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_S):
                    await asyncio.gather(consumer.drain(), access_tokens.drain())
            await client.aclose()
            await database.close()

    return create_app(
        services,
        token_hash=token_hash,
        trusted_proxies=config.admin.trusted_proxies,
        probes={"database": versions.newest, "redis": lambda: guard.call(client.ping)},
        views={
            "workers": lambda: workers_view(workers),
            "backends": lambda: backends_view(backends),
            "events": lambda: events_view(stream),
            **access_tokens.views,
            **keys.views,
        },
        outages=[DatabaseDown],
        lifespan=[running, *over_grpc(config.grpc, services.management, services.actions)],
    )


def workers_view(workers: Workers) -> View:
    """Whether anybody relays."""
    count = len(workers.living())
    return View(Health.OK if count else Health.DOWN, {"count": count})


def backends_view(backends: BackendStates) -> View:
    """Whether each upstream has a healthy backend among those that are checked."""
    known = backends.health()
    served = {upstream for (upstream, _), health in known.items() if health.healthy}
    unhealthy = [upstream for (upstream, _), health in known.items() if not health.healthy]
    health = Health.OK if served.issuperset(unhealthy) else Health.DOWN
    return View(health, {"count": len(known), "unhealthy": len(unhealthy)})


def events_view(stream: Stream) -> View:
    """Whether what workers report gets into the database."""
    lag = stream.lag()
    if lag is None:
        return View(Health.DOWN, {})
    waiting, lag_s = lag
    return View(Health.OK if lag_s < EVENTS_LAG_MAX_S else Health.DOWN, {"waiting": waiting, "lag_s": round(lag_s, 3)})


def over_grpc(grpc: Grpc, management: Management, actions: ActionsService) -> list[Lifespan]:
    """What serves the management service over gRPC, where it is enabled. Its packages are imported only then."""
    if not grpc.enabled:
        return []
    lifespan: Lifespan = importlib.import_module("admin.grpc_api.server").serving(grpc, management, actions)
    return [lifespan]


def editor(config: Config, database: Database) -> Editor:
    return Editor(database, lambda touched: validate(config, touched.routes, touched.upstreams), now_ms)


def secrets_of(config: Config) -> Secrets:
    """What secrets at rest are encrypted with. Raises ConfigError."""
    return load_secrets(os.environ, data_directory(config) / KEY_FILE)


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Database]:
    """The database of the settings with all its tables, which are made if need be, for the time of the block.

    Raises ConfigError, DatabaseDown.
    """
    if config.database.url is None:
        data_directory(config)
    async with looked_at(config) as database:
        await migrate(database)
        yield database


@asynccontextmanager
async def looked_at(config: Config) -> AsyncIterator[Database]:
    """The database of the settings as it is, if it is there at all. Nothing is made."""
    database = open_database(database_url(config))
    try:
        yield database
    finally:
        await database.close()


def database_url(config: Config) -> str:
    """Returns the URL that the settings name, or that of a file in the data directory."""
    return config.database.url or f"sqlite:///{Path(config.data_dir).absolute() / 'relaygate.db'}"


async def admin_token(admin: Admin, settings: Settings) -> str:
    """Returns the digest of the admin token: of the one that is set, or else of one made at the first start.

    That one is printed, once. A token that is set takes the place of what was kept.
    """
    kept = await settings.get(ADMIN_TOKEN)
    if admin.token is not None:
        if kept is None or not tokens.matches(admin.token, kept):
            kept = tokens.digest(admin.token, os.urandom(tokens.SALT_BYTES))
            await settings.put(ADMIN_TOKEN, kept)
    elif kept is None:
        token = tokens.made(os.urandom(tokens.RANDOM_BYTES))
        kept = tokens.digest(token, os.urandom(tokens.SALT_BYTES))
        await settings.put(ADMIN_TOKEN, kept)
        print(f"relaygate: admin token, shown this once: {token}", file=sys.stderr, flush=True)  # noqa: T201
    return kept


def validate(config: Config, routes: dict[str, Route], upstreams: dict[str, Upstream]) -> None:
    """Raises ConfigError for routes that a worker could not compile, would not relay to, or would never match.

    The same for upstreams. Those that the routes use are among them.
    """
    loop = asyncio.get_running_loop()
    own = own_paths(config.server)
    for prefix, route in routes.items():
        if prefix in own:
            raise ConfigError(f"routes.{prefix}", hidden_by(own[prefix]))
        if route.upstream is None:
            refuse_private(config.server, f"routes.{prefix}.target", route.target)
    for name, upstream in upstreams.items():
        for place, backend in enumerate(upstream.backends):
            refuse_private(config.server, f"upstreams.{name}.backends.{place}.url", backend.url)
        tls_files.check_upstream("", f"upstreams.{name}.tls", upstream.tls)
    try:
        trial = Config(server=config.server, routes=routes, upstreams=upstreams)
        compile_snapshot(trial, Shared(Pools(loop), Groups(loop), None, KeyPool(), Gate()))
    except (OSError, ValueError) as error:
        raise ConfigError("routes", str(error)) from None


def refuse_private(server: Server, field: str, url: str) -> None:
    """Raises ConfigError for what no worker would relay to."""
    word = None if server.allow_private_targets else target_refusal(url)
    if word is not None:
        raise ConfigError(field, f"{url} is {word}, expected a public host")


def now_ms() -> int:
    return time.time_ns() // 1_000_000
