"""What was dropped is counted once, and kept."""

from sqlalchemy.ext.asyncio import AsyncConnection

from admin.database import Database
from admin.rules.figures import Dropped
from admin.services import events
from admin.services.events import Entry
from tests.sql_servers import with_database


def entries(*ids: str) -> list[Entry]:
    return [Entry(one, 0.0, b"") for one in ids]


async def dropped(database: Database) -> list[Dropped]:
    async with database.read() as connection:
        return await events.dropped(connection)


def test_entries_that_cannot_be_decoded_count_once_each(database_url: str) -> None:
    async def story(database: Database) -> None:
        async def drop(*ids: str) -> list[str]:
            async def work(connection: AsyncConnection) -> list[str]:
                await events.lock(connection)
                return [one.id for one in await events.drop_undecodable(connection, "statistics", entries(*ids))]

            return await database.transact(work)

        assert await drop("9-0", "9-1") == ["9-0", "9-1"]
        assert await drop("9-0", "9-1", "10-0") == ["10-0"]
        assert await drop("10-0") == []
        assert await dropped(database) == [Dropped("statistics", "undecodable", 3)]

    with_database(database_url, story)


def test_kinds_and_reasons_have_a_count_each(database_url: str) -> None:
    async def story(database: Database) -> None:
        assert await dropped(database) == []
        async with database.write() as connection:
            await events.drop_missing(connection, "statistics", 2)
            await events.drop_missing(connection, "statistics", 3)
            await events.drop_undecodable(connection, "unknown", entries("1-0"))
        assert await dropped(database) == [Dropped("statistics", "missing", 5), Dropped("unknown", "undecodable", 1)]

    with_database(database_url, story)
