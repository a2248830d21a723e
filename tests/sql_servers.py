"""Real databases for tests: SQLite always, PostgreSQL and MariaDB where they answer.

`TEST_POSTGRESQL_URL` and `TEST_MYSQL_URL` name servers and a user that may create databases. Each test has a database
of its own, which is dropped at its end.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from admin.database import Database, open_database
from admin.database_url import parse

SERVERS = {
    "postgresql": os.environ.get("TEST_POSTGRESQL_URL", "postgresql://postgres@127.0.0.1:5432/postgres"),
    "mariadb": os.environ.get("TEST_MYSQL_URL", "mysql://root@127.0.0.1:3306/mysql"),
}
KINDS = ("sqlite", *SERVERS)
CONNECT_S = 3


@contextmanager
def empty_database(kind: str, folder: Path) -> Iterator[str]:
    """The URL of a database without tables. Skips the test if its server does not answer."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'test.db'}"
        return
    if problem := _problem(kind):
        pytest.skip(f"{kind} at {make_url(SERVERS[kind]).host} does not answer: {problem}")
    name = f"relaygate_test_{uuid4().hex[:12]}"
    asyncio.run(_execute(SERVERS[kind], f"CREATE DATABASE {name}"))
    try:
        yield make_url(SERVERS[kind]).set(database=name).render_as_string(hide_password=False)
    finally:
        force = " WITH (FORCE)" if kind == "postgresql" else ""
        asyncio.run(_execute(SERVERS[kind], f"DROP DATABASE {name}{force}"))


def with_database(url: str, story: Callable[[Database], Coroutine[Any, Any, None]]) -> None:
    """Runs `story` in an event loop of its own, with the database open."""

    async def run() -> None:
        database = open_database(url)
        try:
            await story(database)
        finally:
            await database.close()

    asyncio.run(run())


async def python(program: str, *arguments: str) -> str:
    """Runs a program in another process, and returns what it printed; AssertionError with its errors if it failed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "error", "-c", program, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return out.decode()


def execute(url: str, *statements: str) -> None:
    """Runs statements, each by itself."""
    for statement in statements:
        asyncio.run(_execute(url, statement))


@cache
def _problem(kind: str) -> str:
    """Why a server cannot be used; nothing if it can."""
    try:
        asyncio.run(_execute(SERVERS[kind], "SELECT 1"))
    except Exception as error:
        return next(iter(str(error).splitlines()), type(error).__name__)
    return ""


async def _execute(url: str, statement: str) -> None:
    engine = create_async_engine(parse(url)[1], isolation_level="AUTOCOMMIT", poolclass=NullPool)
    try:
        async with asyncio.timeout(60 if "DATABASE" in statement else CONNECT_S), engine.connect() as connection:
            await connection.execute(text(statement))
    finally:
        await engine.dispose()
