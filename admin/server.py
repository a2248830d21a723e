"""The process of the control plane: database, publisher and admin API, in one event loop and at low priority."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from granian.constants import Interfaces
from granian.server.embed import Server
from litestar import Litestar

from admin.app import create_app
from admin.auth import refuse_to_start
from admin.context import Services
from admin.database import Database, open_database
from admin.migrations import migrate
from admin.publisher import Publisher
from admin.rules import tokens
from admin.services.actions import Actions
from admin.services.edits import Editor
from admin.services.routes import Routes
from admin.services.settings import Settings
from admin.services.versions import Versions
from admin.sources import ROUTES_OF_THE_FILE, apply_file
from proxy.config import Admin, Config, ConfigError, Route
from proxy.shared_state.breaker import Breaker, Guard
from proxy.shared_state.client import Client, connect
from proxy.shared_state.published import RoutesSection
from proxy.snapshot import compile_snapshot
from proxy.upstream.pool import Pools

log = logging.getLogger("relaygate")

NICENESS = 10
ADMIN_TOKEN = "admin_token"  # noqa: S105 - the name of the setting that keeps its digest


async def serve(config: Config, load: Callable[[], Config]) -> int:
    """Runs the control plane until a signal ends it; returns the exit status. Raises ConfigError."""
    if config.redis.url is None:
        raise ConfigError("redis.url", "the control plane publishes through Redis: expected a URL, or `relaygate serve`")
    os.nice(NICENESS)
    logging.basicConfig(
        level=config.server.log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    async with opened(config) as database:
        await migrate(database)
        client = connect(config.redis.url)
        try:
            await run(config, load, database, client)
        finally:
            await client.aclose()
    return 0


async def run(config: Config, load: Callable[[], Config], database: Database, client: Client) -> None:
    """Serves the admin API and publishes what changes, until a signal ends it."""
    settings = Settings(database)
    token_hash = await admin_token(config.admin, settings)
    refuse_to_start(config.admin.host, token_hash)
    editor = Editor(database, lambda routes: validate(config, routes), now_ms)
    routes, versions = Routes(editor), Versions(editor)
    await apply_file(config.routes, routes, settings)
    guard = Guard(Breaker())

    async def newest() -> RoutesSection:
        return RoutesSection(await versions.newest(), await routes.all())

    publisher = Publisher(client, guard, newest)
    probes = {"database": settings_probe(settings), "redis": lambda: guard.call(client.ping)}
    services = Services(routes, versions, settings, Actions(database, now_ms))
    app = create_app(services, token_hash=token_hash, probes=probes)
    server = Server(app, address=config.admin.host, port=config.admin.port, interface=Interfaces.ASGI, log_enabled=False)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    publishing = loop.create_task(publisher.run())
    try:
        await server.serve()
    finally:
        publishing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await publishing


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Database]:
    """The database that the settings name, or the file in the data directory. Raises ConfigError."""
    directory = Path(config.data_dir).absolute()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = open_database(config.database.url or f"sqlite:///{directory / 'relaygate.db'}")
    try:
        yield database
    finally:
        await database.close()


async def admin_token(admin: Admin, settings: Settings) -> str:
    """Returns the digest of the admin token: of the one that is set, or else of one made at the first start.

    That one is printed, once. A token that is set replaces what was kept.
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
    """Raises ConfigError for routes that a worker could not compile."""
    try:
        compile_snapshot(Config(server=config.server, routes=routes), Pools(asyncio.get_running_loop()))
    except (OSError, ValueError) as error:
        raise ConfigError("routes", str(error)) from None


def settings_probe(settings: Settings) -> Callable[[], "asyncio.Future[object]"]:
    return lambda: asyncio.ensure_future(settings.get(ADMIN_TOKEN))


def now_ms() -> int:
    return time.time_ns() // 1_000_000
