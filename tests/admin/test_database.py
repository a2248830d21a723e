"""Transactions, lost ones, and servers that are not there, on each kind of database."""

import asyncio
import socket
import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from admin import database as database_module
from admin.database import ATTEMPTS_MAX, Database, DatabaseDown, TransactionLost, open_database
from admin.database_url import Kind
from admin.tables import settings
from tests.sql_servers import with_database

COUNT = select(func.count()).select_from(settings)


def test_a_write_is_kept_whole_or_not_at_all(database_url: str) -> None:
    async def story(database: Database) -> None:
        async with database.write() as connection:
            await connection.execute(insert(settings).values(name="a", value="1"))
        with pytest.raises(LookupError):  # noqa: PT012 - the block is what is tested
            async with database.write() as connection:
                await connection.execute(insert(settings).values(name="b", value="1"))
                raise LookupError
        async with database.read() as connection:
            assert await connection.scalar(COUNT) == 1

    with_database(database_url, story)


def test_texts_keep_their_case_their_spaces_and_their_characters(database_url: str) -> None:
    names = ["a", "A", "ä", "Ä", "a\u0301", "🙂"]

    async def story(database: Database) -> None:
        async with database.write() as connection:
            await connection.execute(insert(settings), [{"name": name, "value": f"{name} "} for name in set(names)])
        async with database.read() as connection:
            for name in names:
                value = await connection.scalar(select(settings.c.value).where(settings.c.name == name))
                assert value == f"{name} "

    with_database(database_url, story)


def test_a_failed_check_of_the_database_stays_what_it_is(database_url: str) -> None:
    async def story(database: Database) -> None:
        async with database.write() as connection:
            await connection.execute(insert(settings).values(name="a", value="1"))
        with pytest.raises(IntegrityError):
            async with database.write() as connection:
                await connection.execute(insert(settings).values(name="a", value="2"))

    with_database(database_url, story)


def test_many_writers_at_once_wait_for_each_other(database_url: str) -> None:
    async def story(database: Database) -> None:
        async with database.write() as connection:
            await connection.execute(insert(settings).values(name="n", value="0"))

        async def add_one(connection: AsyncConnection) -> None:
            row = select(settings.c.value).where(settings.c.name == "n").with_for_update()
            value = int(await connection.scalar(row) or "")
            await connection.execute(update(settings).where(settings.c.name == "n").values(value=str(value + 1)))

        await asyncio.gather(*(database.transact(add_one) for _ in range(30)))
        async with database.read() as connection:
            assert await connection.scalar(select(settings.c.value)) == "30"

    with_database(database_url, story)


def test_a_deadlock_is_made_again(database_url: str) -> None:
    """Two transactions change two rows, each in another order: where both begin, the server ends one of them."""

    async def story(database: Database) -> None:
        async with database.write() as connection:
            await connection.execute(insert(settings), [{"name": name, "value": ""} for name in "ab"])
        first_done = [asyncio.Event(), asyncio.Event()]
        calls = 0

        async def work(connection: AsyncConnection, order: str, which: int) -> None:
            nonlocal calls
            calls += 1
            for name in order:
                value = settings.c.value.concat(order[0])
                await connection.execute(update(settings).where(settings.c.name == name).values(value=value))
                first_done[which].set()
                if database.kind is not Kind.SQLITE:  # its second writer does not begin before the first ends
                    await first_done[1 - which].wait()

        await asyncio.gather(
            database.transact(lambda connection: work(connection, "ab", 0)),
            database.transact(lambda connection: work(connection, "ba", 1)),
        )
        assert calls == (2 if database.kind is Kind.SQLITE else 3)
        async with database.read() as connection:
            assert {"".join(sorted(value)) for value in await connection.scalars(select(settings.c.value))} == {"ab"}

    with_database(database_url, story)


def test_a_transaction_that_is_always_lost_is_given_up(database_url: str) -> None:
    calls = 0

    async def story(database: Database) -> None:
        async def work(_connection: AsyncConnection) -> None:
            nonlocal calls
            calls += 1
            raise TransactionLost("deadlock")

        with pytest.raises(DatabaseDown, match="deadlock"):
            await database.transact(work)

    with_database(database_url, story)
    assert calls == ATTEMPTS_MAX


def test_connections_that_the_server_closed_are_no_error(database_url: str) -> None:
    """What a restart of the server does to a pool."""

    async def story(database: Database) -> None:
        if database.kind is Kind.SQLITE:
            pytest.skip("sqlite has no server")
        async with database.read() as connection:
            await connection.scalar(COUNT)
            identity = "pg_backend_pid()" if database.kind is Kind.POSTGRESQL else "connection_id()"
            mine = await connection.scalar(text(f"SELECT {identity}"))
        other = open_database(database_url)
        kill = "SELECT pg_terminate_backend(:id)" if database.kind is Kind.POSTGRESQL else "KILL :id"
        async with other.write() as connection:
            await connection.execute(text(kill), {"id": mine})
        await other.close()
        async with database.read() as connection:
            assert await connection.scalar(COUNT) == 0

    with_database(database_url, story)


def test_a_connection_lost_in_the_middle_says_so(database_url: str) -> None:
    async def story(database: Database) -> None:
        if database.kind is Kind.SQLITE:
            pytest.skip("sqlite has no server")
        kill = "SELECT pg_terminate_backend(pg_backend_pid())"
        with pytest.raises(DatabaseDown):  # noqa: PT012 - either of the two may be told
            async with database.write() as connection:
                await connection.execute(text(kill if database.kind is Kind.POSTGRESQL else "KILL connection_id()"))
                await connection.execute(COUNT)

    with_database(database_url, story)


def test_a_statement_that_takes_too_long_is_given_up(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(database_module._OPTIONS[Kind.POSTGRESQL]["connect_args"], "command_timeout", 0.2)
    monkeypatch.setitem(database_module._OPTIONS[Kind.MYSQL]["connect_args"], "read_timeout", 0.2)

    async def story(database: Database) -> None:
        if database.kind is Kind.SQLITE:
            pytest.skip("sqlite has no server")
        sleep = "SELECT pg_sleep(30)" if database.kind is Kind.POSTGRESQL else "SELECT sleep(30)"
        with pytest.raises(DatabaseDown):
            async with database.read() as connection:
                await connection.execute(text(sleep))
        async with database.read() as connection:
            assert await connection.scalar(text("SELECT 1")) == 1

    with_database(empty_url, story)


def test_sqlite_that_stays_locked_is_down(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock has been waited for then; to begin again, five times, would keep whoever asks for half a minute."""
    monkeypatch.setattr(database_module, "BUSY_S", 1)

    async def story(database: Database) -> None:
        if database.kind is not Kind.SQLITE:
            pytest.skip("the others have no one writer")
        with sqlite3.connect(tmp_path / "test.db", isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(DatabaseDown, match="locked"):
                async with asyncio.timeout(4):
                    await database.transact(lambda connection: connection.execute(COUNT))
        other.close()
        await database.transact(lambda connection: connection.execute(COUNT))

    with_database(database_url, story)


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_server_that_refuses_or_is_not_there(scheme: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]

        async def story(database: Database) -> None:
            with pytest.raises(DatabaseDown) as caught:
                async with database.read():
                    pass
            assert str(caught.value).startswith(f"database: {database.kind} at 127.0.0.1:{port}: ")
            assert "secret" not in str(caught.value)
            assert str(caught.value).isprintable()

        with_database(f"{scheme}://user:secret@127.0.0.1:{port}/db", story)


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_server_that_says_nothing_is_not_waited_for(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "CONNECT_S", 1)
    monkeypatch.setitem(database_module._OPTIONS[Kind.POSTGRESQL]["connect_args"], "timeout", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:

        async def story(database: Database) -> None:
            with pytest.raises(DatabaseDown):
                async with asyncio.timeout(20), database.read():
                    pass

        with_database(f"{scheme}://user:secret@127.0.0.1:{server.getsockname()[1]}/db", story)


def test_sqlite_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    async def story(database: Database) -> None:
        threads = threading.active_count()
        with pytest.raises(DatabaseDown, match="unable to open database file"):
            async with database.read():
                pass
        async with asyncio.timeout(10):  # aiosqlite's thread ends by itself, and tells the loop so
            while threading.active_count() > threads:  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.01)

    with_database(f"sqlite:///{tmp_path}/none/r.db", story)


def test_sqlite_syncs_each_commit_holds_to_references_and_has_a_log(tmp_path: Path, database_url: str) -> None:
    async def story(database: Database) -> None:
        if database.kind is not Kind.SQLITE:
            pytest.skip("sqlite's own settings")
        async with database.read() as connection:
            for pragma, value in (
                ("synchronous", 2),
                ("foreign_keys", 1),
                ("journal_mode", "wal"),
                ("busy_timeout", 5000),
            ):
                assert await connection.scalar(text(f"PRAGMA {pragma}")) == value
            files = await asyncio.to_thread(lambda: list(tmp_path.iterdir()))
            assert {name.stat().st_mode & 0o777 for name in files} == {0o600}
            assert len(files) == 3

    with_database(database_url, story)


def test_sqlite_reads_while_another_writes(database_url: str) -> None:
    async def story(database: Database) -> None:
        if database.kind is not Kind.SQLITE:
            pytest.skip("the others have no one writer")
        async with database.write() as writer:
            await writer.execute(insert(settings).values(name="a", value=""))
            async with database.read() as reader:
                assert await reader.scalar(COUNT) == 0

    with_database(database_url, story)
