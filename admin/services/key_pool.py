"""The key pool's settings and groups: to be read and changed, as edits of the configuration (`edits.py`)."""

from collections.abc import Callable, Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from admin.rules import key_pool_specs
from admin.rules.key_pool_specs import with_group, without_group
from admin.services import credential_changes
from admin.services.edits import Editor, Whole, read_key_pool
from admin.services.failures import DuplicateGroup, NoSuchGroup
from proxy.config import KeyPool, PoolGroup
from proxy.rules.credentials import DEFAULT_GROUP


class KeyPools:
    """The one key pool. `now_ms` is the clock, in milliseconds since 1970."""

    def __init__(self, editor: Editor, now_ms: Callable[[], int]) -> None:
        self._database = editor.database
        self._editor = editor
        self._now_ms = now_ms
        self.moved: Callable[[], object] = lambda: None
        """Called after credentials were moved to another group."""

    async def get(self) -> KeyPool:
        async with self._database.read() as connection:
            return await read_key_pool(connection)

    async def update(self, change: Callable[[KeyPool], KeyPool], actor: str) -> int:
        """Makes of the settings what `change` makes of them; returns the newest version. Raises ConfigError."""

        async def decide(_: AsyncConnection, before: Whole) -> Whole:
            return before._replace(key_pool=key_pool_specs.checked(change(before.key_pool)))

        return (await self._editor.edit_whole(actor, "change", decide)).version

    async def reset(self, actor: str) -> int:
        """Puts all settings back to their defaults; groups stay. Returns the newest version."""
        return await self.update(lambda pool: KeyPool(groups=pool.groups), actor)

    async def groups(self) -> Mapping[str, PoolGroup]:
        """By id; `default` is there also where nothing is set for it."""
        return {DEFAULT_GROUP: PoolGroup(), **(await self.get()).groups}

    async def create_group(self, group_id: str, group: PoolGroup, actor: str) -> int:
        """Returns the new version. Raises DuplicateGroup, ConfigError."""

        def change(pool: KeyPool) -> KeyPool:
            if group_id in pool.groups:
                raise DuplicateGroup(group_id)
            return with_group(pool, group_id, group)

        return await self.update(change, actor)

    async def update_group(self, group_id: str, change: Callable[[PoolGroup], PoolGroup], actor: str) -> int:
        """Returns the newest version. Raises NoSuchGroup, ConfigError."""

        def changed(pool: KeyPool) -> KeyPool:
            group = pool.groups.get(group_id)
            if group is None and group_id != DEFAULT_GROUP:
                raise NoSuchGroup(group_id)
            return with_group(pool, group_id, change(group or PoolGroup()))

        return await self.update(changed, actor)

    async def delete_group(self, group_id: str, actor: str) -> int:
        """Moves its credentials to `default`, in the same transaction; returns how many. Raises NoSuchGroup."""
        moved = 0

        async def decide(connection: AsyncConnection, before: Whole) -> Whole:
            nonlocal moved
            if group_id not in before.key_pool.groups:
                raise NoSuchGroup(group_id)
            if group_id != DEFAULT_GROUP:
                moved = await credential_changes.move_group(connection, group_id, DEFAULT_GROUP, self._now_ms())
            return before._replace(key_pool=without_group(before.key_pool, group_id))

        await self._editor.edit_whole(actor, "delete", decide)
        if moved:
            self.moved()
        return moved
