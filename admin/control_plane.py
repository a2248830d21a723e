"""The control plane, put together: what it does before it serves, and the application with all that runs beside it."""

import asyncio
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from litestar import Litestar

from admin import server
from admin.app import create_app
from admin.auth import refuse_to_start
from admin.context import Services
from admin.data_directory import data_directory
from admin.database import Database, DatabaseDown, TransactionLost, open_database
from admin.migrations import migrate
from admin.publisher import Publisher
from admin.rules import tokens
from admin.server import Listener
from admin.services.actions import Actions
from admin.services.edits import Editor
from admin.services.routes import Routes
from admin.services.settings import Settings
from admin.services.versions import Versions
from admin.sources import apply_file
from proxy.config import Admin, Config, ConfigError, Route
from proxy.rules.addresses import target_refusal
from proxy.shared_state.breaker import Breaker, Guard
from proxy.shared_state.client import connect
from proxy.shared_state.published import RoutesSection
from proxy.shared_state.tasks import end
from proxy.snapshot import compile_snapshot
from proxy.statistics import Statistics
from proxy.upstream.pool import Pools

log = logging.getLogger("relaygate")

ADMIN_TOKEN = "admin_token"  # noqa: S105 - the name of the setting that keeps its digest


def run(load: Callable[[], Config]) -> int:
    """Runs the control plane until a signal ends it; returns the exit status. Raises ConfigError, DatabaseDown.

    SIGHUP has the settings loaded again: the file is applied, as at the start, and the worker replaced.
    """
    config = load()
    if config.redis.url is None:
        raise ConfigError("redis.url", "the control plane publishes through Redis, expected a URL or `relaygate serve`")
    logging.basicConfig(
        level=config.server.log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)
    token_hash = asyncio.run(prepare(config))

    def reload() -> bool:
        nonlocal config, token_hash
        try:
            fresh = load()
            config, token_hash = fresh, asyncio.run(prepare(fresh))
        except (ConfigError, DatabaseDown, TransactionLost) as error:
            log.error("configuration not reloaded: %s", error)  # noqa: TRY400 - a line, not a traceback
            return False
        log.info("configuration reloaded")
        return True

    server.run(lambda: make(config, token_hash), Listener(config.admin.host, config.admin.port, config.tls), reload)
    return 0


async def prepare(config: Config) -> str:
    """Brings the tables up to date and the YAML file in; returns the digest of the admin token.

    Raises ConfigError, DatabaseDown.
    """
    async with opened(config) as database:
        await migrate(database)
        settings = Settings(database)
        token_hash = await admin_token(config.admin, settings)
        refuse_to_start(config.admin.host, token_hash)
        await apply_file(config.routes, Routes(editor(config, database)), settings)
    return token_hash


def make(config: Config, token_hash: str) -> Litestar:
    """Returns the application. While it runs, the publisher runs beside it."""
    database = open_database(database_url(config))
    settings = Settings(database)
    client = connect(config.redis.url or "")
    guard = Guard(client, Breaker())
    edits = editor(config, database)
    routes, versions = Routes(edits), Versions(edits)

    async def newest() -> RoutesSection:
        return RoutesSection(*await versions.current())

    publisher = Publisher(client, guard, versions.newest, newest)
    edits.notify = publisher.publish_soon

    @asynccontextmanager
    async def publishing(_: Litestar) -> AsyncIterator[None]:
        task = asyncio.get_running_loop().create_task(publisher.run())
        try:
            yield
        finally:
            await end(task)
            await client.aclose()
            await database.close()

    return create_app(
        Services(routes, versions, settings, Actions(database, now_ms)),
        token_hash=token_hash,
        probes={"database": versions.newest, "redis": lambda: guard.call(client.ping)},
        outages=[DatabaseDown],
        lifespan=[publishing],
    )


def editor(config: Config, database: Database) -> Editor:
    return Editor(database, lambda routes: validate(config, routes), now_ms)


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Database]:
    """The database of the settings, for the time of the block."""
    database = open_database(database_url(config))
    try:
        yield database
    finally:
        await database.close()


def database_url(config: Config) -> str:
    """Returns the URL that the settings name, or that of a file in the data directory, which is made if need be.

    Raises ConfigError.
    """
    if config.database.url is not None:
        return config.database.url
    return f"sqlite:///{data_directory(config) / 'relaygate.db'}"


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


def validate(config: Config, routes: dict[str, Route]) -> None:
    """Raises ConfigError for routes that a worker could not compile, or would not relay to."""
    loop = asyncio.get_running_loop()
    for prefix, route in routes.items():
        word = None if config.server.allow_private_targets else target_refusal(route.target)
        if word is not None:
            raise ConfigError(f"routes.{prefix}.target", f"{route.target} is {word}, expected a public host")
    try:
        compile_snapshot(Config(server=config.server, routes=routes), Pools(loop), Statistics("", 0))
    except (OSError, ValueError) as error:
        raise ConfigError("routes", str(error)) from None


def now_ms() -> int:
    return time.time_ns() // 1_000_000
