"""Settings of the control plane itself, one text by name: what it must remember and nobody writes into a file."""

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from admin.database import Database, TransactionLost
from admin.tables import settings


class Settings:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, name: str) -> str | None:
        async with self._database.read() as connection:
            return await read(connection, name)

    async def put(self, name: str, value: str) -> None:
        """Sets it, whether it is there or not."""
        await self._database.transact(lambda connection: write(connection, name, value))

    async def delete(self, name: str) -> None:
        """Removes it; it is no error if it is not there."""

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(delete(settings).where(settings.c.name == name))

        await self._database.transact(work)


async def read(connection: AsyncConnection, name: str) -> str | None:
    return await connection.scalar(select(settings.c.value).where(settings.c.name == name))


async def write(connection: AsyncConnection, name: str, value: str) -> None:
    """Sets it, whether it is there or not. Raises TransactionLost where another one does so at the same time."""
    changed = await connection.execute(update(settings).where(settings.c.name == name).values(value=value))
    if changed.rowcount == 0:
        try:
            await connection.execute(insert(settings).values(name=name, value=value))
        except IntegrityError as error:  # another has put it in the meantime: now there is a row to update
            raise TransactionLost("the setting was put twice at once") from error
