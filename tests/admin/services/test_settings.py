"""Settings: one text by name, also when many put it at once."""

import asyncio

from admin.database import Database
from admin.services.settings import Settings
from tests.sql_servers import with_database


def test_put_get_and_delete(database_url: str) -> None:
    async def story(database: Database) -> None:
        settings = Settings(database)
        assert await settings.get("a") is None
        await settings.delete("a")
        await settings.put("a", "1")
        await settings.put("A", "2")
        await settings.put("a", "1")
        await settings.put("a", "3" * 100_000)
        assert await settings.get("a") == "3" * 100_000
        assert await settings.get("A") == "2"
        await settings.delete("a")
        assert await settings.get("a") is None

    with_database(database_url, story)


def test_many_put_the_same_name_at_once(database_url: str) -> None:
    async def story(database: Database) -> None:
        settings = Settings(database)
        await asyncio.gather(*(settings.put("a", str(number)) for number in range(30)))
        assert int(await settings.get("a") or "") in range(30)

    with_database(database_url, story)
