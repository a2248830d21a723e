"""A database and its transactions: SQLite, PostgreSQL, MySQL or MariaDB behind the same few names.

What is not the same is settled here, so that no service asks which database it talks to:

- SQLite has one writer. A write transaction takes the file's lock as it begins (`BEGIN IMMEDIATE`), never half-way,
  where SQLite would have to refuse it; writers of one process queue for it in order, those of others poll for 5 s,
  and then the database is down: who holds it for so long hangs, and further attempts would only keep callers waiting.
- SQLite syncs every commit (`synchronous=FULL`). `NORMAL` would be faster and loses the last commits in a power cut;
  but an event is acknowledged in Redis, and a version is published, once it is committed, so a commit must last.
- MySQL reads what is committed (`READ COMMITTED`, as PostgreSQL does by itself). Its own `REPEATABLE READ` would read
  the rows of before the lock that a transaction waited for.

Foreign exceptions end here: a database that cannot be reached is `DatabaseDown`; a transaction that lost to another one
(a deadlock, a lock that did not come free) is made again, a few times, by `transact`.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, TypeVar

import asyncmy
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from admin.database_url import Kind, parse, place

T = TypeVar("T")

CONNECT_S = 5
BUSY_S = 5
# Longer than any statement here takes; a server behind a dead network does not answer at all.
STATEMENT_S = 60
POOL_SIZE = 5
# SQLite's own 2 MB are less than what the ledger's indices are written in: 56 µs a row so, 40 µs with this.
CACHE_KB = 16_000
ATTEMPTS_MAX = 6
# The first pause before another attempt; each further one may be twice as long.
PAUSE_S = 0.02


async def _connect_mysql(**arguments: Any) -> asyncmy.Connection:
    """The driver's own deadline covers TCP alone; a server that accepts and then says nothing would never end it."""
    async with asyncio.timeout(CONNECT_S):
        return await asyncmy.connect(**arguments)


# A pooled connection that stayed idle is asked whether it lives, so a restarted server is no error for the next call.
_OPTIONS: dict[Kind, dict[str, Any]] = {
    Kind.SQLITE: {"connect_args": {"timeout": BUSY_S}},
    Kind.POSTGRESQL: {"connect_args": {"timeout": CONNECT_S, "command_timeout": STATEMENT_S}, "pool_pre_ping": True},
    Kind.MYSQL: {
        "connect_args": {"async_creator_fn": _connect_mysql, "read_timeout": STATEMENT_S},
        "pool_pre_ping": True,
        "isolation_level": "READ COMMITTED",
    },
}
# Serialization failure and deadlock of PostgreSQL; lock wait timeout and deadlock of MySQL.
_SQLSTATES = {"40001", "40P01"}
_MYSQL_CODES = {1205, 1213}
# What PostgreSQL's driver calls a mistake of the statement though it is none: rights, logins, limits, a database that
# is gone or takes no writes. Classes of SQLSTATE (the first two characters) or whole ones.
_REFUSALS = {"28", "3D", "3F", "53", "57", "25006", "42501"}


class DatabaseDown(Exception):  # noqa: N818 - it says what happened
    """The database cannot be reached, does not answer or refuses. One line: which, where, why; no password."""

    def __init__(self, where: str, error: BaseException) -> None:
        # MySQL's drivers put a number before the text.
        text = error.args[1] if len(error.args) > 1 and isinstance(error.args[0], int) else error
        reason = " ".join(str(text).split()) or type(error).__name__
        super().__init__(f"database: {where}: {reason[:200]}")


class TransactionLost(Exception):  # noqa: N818 - it says what happened
    """A transaction lost to another one and left nothing behind; it may be made again."""


class Database:
    """One database. Close it when done."""

    def __init__(self, kind: Kind, url: URL) -> None:
        self.kind = kind
        self.url = url
        self.place = place(kind, url)
        self._engine = create_async_engine(
            url, pool_size=POOL_SIZE, pool_timeout=CONNECT_S, hide_parameters=True, **_OPTIONS[kind]
        )
        self._writing = self._engine
        self._turn = asyncio.Lock()
        if kind is Kind.SQLITE:
            event.listen(self._engine.sync_engine, "connect", _prepare_sqlite)
            event.listen(self._engine.sync_engine, "begin", _begin_sqlite)
            self._writing = self._engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that changes nothing."""
        async with self._transaction(self._engine) as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that is committed at the end of the block, or rolled back if that raises.

        Not to be opened within another of the same database. Raises TransactionLost where `transact` would go on.
        """
        if self.kind is Kind.SQLITE:
            async with self._turn, self._transaction(self._writing) as connection:
                yield connection
        else:
            async with self._transaction(self._writing) as connection:
                yield connection

    async def transact(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Returns what `work` returns, done in one write transaction; in a new one for each that was lost.

        Raises DatabaseDown once the attempts are used up.
        """
        for attempt in range(ATTEMPTS_MAX):
            try:
                async with self.write() as connection:
                    return await work(connection)
            except TransactionLost as lost:
                if attempt == ATTEMPTS_MAX - 1:
                    raise DatabaseDown(self.place, lost) from lost
            await asyncio.sleep(PAUSE_S * 2**attempt * random.uniform(0.5, 1))  # noqa: S311 - it is a pause
        raise AssertionError

    async def close(self) -> None:
        await self._engine.dispose()

    @asynccontextmanager
    async def _transaction(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        async with AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(engine.connect())
            except Exception as error:  # OSError, the pool's, SQLAlchemy's, and some of the drivers' own
                raise DatabaseDown(self.place, _cause(error)) from error
            stack.enter_context(self._mapped())
            await stack.enter_async_context(connection.begin())
            yield connection

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            if _is_lost(error):
                raise TransactionLost(str(_cause(error))) from error
            if (
                error.connection_invalidated
                or isinstance(error, (OperationalError, InterfaceError))
                or _is_refused(error)
            ):
                raise DatabaseDown(self.place, _cause(error)) from error
            raise
        except (TimeoutError, ConnectionError) as error:  # asyncpg's own, which SQLAlchemy lets pass
            raise DatabaseDown(self.place, error) from error


def open_database(url: str) -> Database:
    """The database that `url` names; nothing is connected yet. Raises ConfigError."""
    return Database(*parse(url))


def _prepare_sqlite(dbapi_connection: Any, _record: object) -> None:
    """SQLite's settings of a connection. The journal's mode is the file's own: `migrate` sets it."""
    # Python's module would begin transactions by itself, and late.
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    pragmas = (
        f"busy_timeout = {BUSY_S * 1000}",
        f"cache_size = -{CACHE_KB}",
        "synchronous = FULL",
        "foreign_keys = ON",
    )
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))


def _cause(error: BaseException) -> BaseException:
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def _is_refused(error: DBAPIError) -> bool:
    state: str = getattr(_cause(error), "sqlstate", None) or ""
    return bool({state, state[:2]} & _REFUSALS)


def _is_lost(error: DBAPIError) -> bool:
    cause: Any = _cause(error)
    if getattr(cause, "sqlstate", None) in _SQLSTATES:
        return True
    return bool(cause.args) and cause.args[0] in _MYSQL_CODES
