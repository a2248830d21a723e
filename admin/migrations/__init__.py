"""The database's way from one version of `admin/tables.py` to the next, by Alembic: one file a step in `versions/`.

No `alembic.ini` is needed: `migrate` runs at every start of the control plane and applies what is missing, one start at
a time. PostgreSQL and SQLite take all steps or none. MySQL commits each statement by itself, so steps are written to be
repeatable: what a killed start left behind is found and skipped.
"""

import asyncio
import logging
import os
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from zlib import crc32

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.engine import Connection

from admin.database import BUSY_S, Database, DatabaseDown
from admin.database_url import Kind
from proxy.config import ConfigError

# Another start may be migrating; it is waited for this long, and no longer than a statement may take.
LOCK_S = 50
_LOCK_NAME = "relaygate_migrate"


async def migrate(database: Database) -> list[str]:
    """Applies the steps that are missing and returns their names, oldest first.

    Raises ConfigError if the database has steps that this program does not know, DatabaseDown if it cannot be reached.
    """
    if database.kind is Kind.SQLITE:
        await asyncio.to_thread(_prepare_file, database)
    async with _alone(database):
        return await database.transact(lambda connection: connection.run_sync(_upgrade, database.place))


def known() -> list[str]:
    """The names of all steps, oldest first."""
    return [script.revision for script in ScriptDirectory(str(Path(__file__).parent)).walk_revisions()][::-1]


async def missing(database: Database) -> list[str]:
    """The names of the steps that `migrate` would apply; makes nothing. Raises as `migrate` does."""
    if database.kind is Kind.SQLITE and not _is_file_there(database):
        return known()
    async with database.read() as connection:
        return await connection.run_sync(_missing, database.place)


@asynccontextmanager
async def _alone(database: Database) -> AsyncIterator[None]:
    """Holds the lock of migrations until they are committed, so on a connection beside theirs.

    SQLite needs none: its write transaction is one.
    """
    if database.kind is Kind.SQLITE:
        yield
        return
    async with database.read() as connection:
        if database.kind is Kind.POSTGRESQL:
            await connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_S}s'"))
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({crc32(_LOCK_NAME.encode())})"))
            yield
            return
        # MySQL's named locks are the whole server's; the name holds the database's.
        name = {"name": f"{_LOCK_NAME}_{crc32((database.url.database or '').encode()):08x}"}
        if await connection.scalar(text(f"SELECT GET_LOCK(:name, {LOCK_S})"), name) != 1:
            raise DatabaseDown(database.place, TimeoutError("another start has been migrating for too long"))
        try:
            yield
        finally:
            await connection.execute(text("SELECT RELEASE_LOCK(:name)"), name)


def _upgrade(connection: Connection, place: str) -> list[str]:
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    missing = _missing(connection, place)
    if missing:
        logger = logging.getLogger("asyncmy")
        logger.addFilter(_is_news)
        try:
            command.upgrade(config, "head")
        finally:
            logger.removeFilter(_is_news)
    return missing


def _missing(connection: Connection, place: str) -> list[str]:
    steps = known()
    applied = MigrationContext.configure(connection).get_current_heads()
    for revision in applied:
        if revision not in steps:
            raise ConfigError("database", place, f"it was made by a newer relaygate (step {revision}), which is needed")
    return steps[steps.index(applied[0]) + 1 :] if applied else steps


def _is_news(record: logging.LogRecord) -> bool:
    """MySQL's primary keys have no names, and MariaDB says so of each, through the driver's log."""
    return "ignored for PRIMARY key" not in record.getMessage()


def _is_file_there(database: Database) -> bool:
    return Path(database.url.database or "").exists()


def _prepare_file(database: Database) -> None:
    """Creates SQLite's file for its owner alone, and gives it a write-ahead log, so that reads do not wait for writes.

    Files beside it (`-wal`, `-shm`) take its permissions. The mode of the journal stays with the file; to change it
    needs the file for oneself, which `timeout` waits for.
    """
    path = Path(database.url.database or "")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, stat.S_IRUSR | stat.S_IWUSR))
        connection = sqlite3.connect(path, timeout=BUSY_S)
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError("database", database.place, str(reason)) from None
    try:
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    except sqlite3.Error as error:
        raise DatabaseDown(database.place, error) from error
    finally:
        connection.close()
    if mode != "wal":
        raise ConfigError("database", database.place, "its file system has no shared memory for a write-ahead log")
