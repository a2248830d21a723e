"""Steps make what `admin/tables.py` says, once, however many starts there are."""

import asyncio
import json
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, String, Table, func, insert, inspect, select, text, update
from sqlalchemy.engine import Connection

from admin import migrations
from admin.database import Database, DatabaseDown
from admin.database_url import Kind
from admin.migrations import migrate
from admin.tables import balance_readings, credentials, locks, metadata, settings
from proxy.config import ConfigError
from tests.sql_servers import python, with_database

STEPS = ["0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009"]
MIGRATE = """
import asyncio, json, sys
from admin.database import open_database
from admin.migrations import migrate

async def main():
    database = open_database(sys.argv[1])
    print(json.dumps(await migrate(database)))
    await database.close()

asyncio.run(main())
"""


def test_the_first_start_makes_all_and_the_next_nothing(empty_url: str) -> None:
    async def story(database: Database) -> None:
        assert await migrate(database) == STEPS
        async with database.write() as connection:
            await connection.execute(insert(settings).values(name="a", value="1"))
        assert await migrate(database) == []
        async with database.read() as connection:
            assert await connection.scalar(select(settings.c.value)) == "1"
            assert await connection.scalar(select(func.count()).select_from(locks)) == 3

    with_database(empty_url, story)


def test_the_steps_make_what_the_tables_say(database_url: str) -> None:
    def differences(connection: Connection) -> list[object]:
        def is_here(_thing: object, name: str | None, *_: object) -> bool:
            return name != "ix_credentials_search" or connection.dialect.name == "sqlite"

        context = MigrationContext.configure(connection, opts={"compare_type": True, "include_object": is_here})
        return list(compare_metadata(context, metadata))

    async def story(database: Database) -> None:
        async with database.read() as connection:
            assert await connection.run_sync(differences) == []

    with_database(database_url, story)


def test_keys_compare_byte_by_byte(database_url: str) -> None:
    """compare_metadata does not look at collations."""
    query = {
        Kind.SQLITE: "SELECT 1 WHERE (SELECT sql FROM sqlite_master WHERE name = 'routes') LIKE '%COLLATE%'",
        Kind.POSTGRESQL: "SELECT 1 FROM information_schema.columns WHERE table_name = 'routes'"
        " AND column_name = 'prefix' AND collation_name IS DISTINCT FROM 'C'",
        Kind.MYSQL: "SELECT 1 FROM information_schema.columns WHERE table_schema = database()"
        " AND table_name <> 'alembic_version' AND collation_name <> 'utf8mb4_bin'",
    }

    async def story(database: Database) -> None:
        async with database.read() as connection:
            assert (await connection.execute(text(query[database.kind]))).all() == []

    with_database(database_url, story)


def test_two_starts_at_once_migrate_once(empty_url: str) -> None:
    async def story(database: Database) -> None:
        printed = await asyncio.gather(*(python(MIGRATE, empty_url) for _ in range(3)))
        assert sorted(json.loads(one) for one in printed) == [[], [], STEPS]
        assert await migrate(database) == []

    with_database(empty_url, story)


def test_what_a_killed_start_left_is_no_obstacle(empty_url: str) -> None:
    """MySQL commits each table by itself; the others have nothing half-way."""

    async def story(database: Database) -> None:
        assert await migrate(database) == STEPS
        async with database.write() as connection:
            await connection.execute(text("DELETE FROM alembic_version"))
            await connection.execute(text("DROP TABLE routes"))
        assert await migrate(database) == STEPS
        async with database.read() as connection:
            names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
        assert {table.name for table in metadata.sorted_tables} == set(names) - {"alembic_version"}

    with_database(empty_url, story)


def test_what_an_older_program_stored_is_kept(empty_url: str) -> None:
    """The steps before balances, a key, and then the others, which a killed start may have begun."""

    def older(connection: Connection) -> None:
        config = AlembicConfig()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
        known = Table("credentials", MetaData(), autoload_with=connection)
        row = {
            column.name: "x" if isinstance(column.type, String) else 7
            for column in known.columns
            if not column.nullable or column.name == "tokens_used"
        }
        connection.execute(insert(known).values(row | {"id": "key_1", "kind": "key"}))

    async def story(database: Database) -> None:
        async with database.write() as connection:
            await connection.run_sync(older)
        if database.kind is Kind.MYSQL:
            async with database.write() as connection:
                await connection.execute(text("ALTER TABLE credentials ADD COLUMN tokens_at BIGINT"))
        assert await migrate(database) == STEPS[STEPS.index("0004") + 1 :]
        async with database.write() as connection:
            row = (await connection.execute(select(credentials))).mappings().one()
            assert (row["id"], row["tokens_used"], row["tokens_at"], row["tokens_error"]) == ("key_1", 7, None, None)
            await connection.execute(update(credentials).values(tokens_at=2**50, tokens_error="x" * 64))
            assert await connection.scalar(select(func.count()).select_from(balance_readings)) == 0

    with_database(empty_url, story)


def test_a_database_of_a_newer_program_is_refused(database_url: str) -> None:
    async def story(database: Database) -> None:
        async with database.write() as connection:
            await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(ConfigError) as caught:
            await migrate(database)
        problem = "it was made by a newer relaygate (step 9999), which is needed"
        assert str(caught.value) == f"database: {database.place}: {problem}"

    with_database(database_url, story)


def test_a_file_that_cannot_be_made(tmp_path: Path) -> None:
    async def story(database: Database) -> None:
        with pytest.raises(ConfigError, match=r"none/r.db: No such file or directory"):
            await migrate(database)

    with_database(f"sqlite:///{tmp_path}/none/r.db", story)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "r.db").write_text("no database, but long enough to be taken for the head of one" * 10)

    async def story(database: Database) -> None:
        with pytest.raises(DatabaseDown, match="file is not a database"):
            await migrate(database)

    with_database(f"sqlite:///{tmp_path}/r.db", story)
