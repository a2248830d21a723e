"""The key pool's settings: to be read and changed, as edits of the configuration (`edits.py`)."""

from collections.abc import Callable

from sqlalchemy.ext.asyncio import AsyncConnection

from admin.rules import key_pool_specs
from admin.services.edits import Editor, Whole, read_key_pool
from proxy.config import KeyPool


class KeyPoolSettings:
    def __init__(self, editor: Editor) -> None:
        self._database = editor.database
        self._editor = editor

    async def current(self) -> KeyPool:
        async with self._database.read() as connection:
            return await read_key_pool(connection)

    async def update(self, *, change: Callable[[KeyPool], KeyPool], actor: str) -> KeyPool:
        """Makes of the settings what `change` makes of them, and returns that. Raises ConfigError."""
        made: list[KeyPool] = []

        async def decide(_: AsyncConnection, before: Whole) -> Whole:
            made.append(key_pool_specs.checked(change(before.key_pool)))
            return before._replace(key_pool=made[-1])

        await self._editor.edit_whole(actor, "change", decide)
        return made[-1]
