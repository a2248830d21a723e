"""Pool groups: part of the key pool's settings, and each with keys. What changes them is an edit (`edits.py`)."""

from collections.abc import Callable, Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from admin.rules import key_pool_specs
from admin.rules.key_pool_specs import with_group, without_group
from admin.rules.key_records import GroupFigures, Status
from admin.services import credential_changes, credential_lists
from admin.services.edits import Editor, Whole, read_key_pool
from admin.services.failures import DuplicateGroup, GroupInUse, NoSuchGroup
from proxy.config import KeyPool, PoolGroup
from proxy.rules.credentials import DEFAULT_GROUP


class PoolGroups:
    """All groups; `default` is there also where nothing is set for it. `now_ms` is the clock."""

    def __init__(self, editor: Editor, now_ms: Callable[[], int]) -> None:
        self._database = editor.database
        self._editor = editor
        self._now_ms = now_ms
        self.notify: Callable[[], object] = lambda: None
        """Called after credentials were moved to another group, which is to be published."""

    async def list(self) -> Sequence[GroupFigures]:
        """By priority, then by id."""
        async with self._database.read() as connection:
            groups = _groups(await read_key_pool(connection))
            counts = await credential_lists.counts(connection, self._now_ms())
        figures = [_figures(name, group, counts.get(name, {})) for name, group in groups.items()]
        return sorted(figures, key=lambda one: (one.priority, one.id))

    async def create(self, *, id: str, group: PoolGroup, actor: str) -> GroupFigures:  # noqa: A002 - the word for it
        """Raises DuplicateGroup, ConfigError."""

        def change(pool: KeyPool) -> KeyPool:
            if id in _groups(pool):
                raise DuplicateGroup(id)
            return with_group(pool, id, group)

        return await self._edit(id, change, "create", actor)

    async def update(self, *, id: str, change: Callable[[PoolGroup], PoolGroup], actor: str) -> GroupFigures:  # noqa: A002
        """Raises NoSuchGroup, ConfigError."""

        def changed(pool: KeyPool) -> KeyPool:
            if id not in _groups(pool):
                raise NoSuchGroup(id)
            return with_group(pool, id, change(_groups(pool)[id]))

        return await self._edit(id, changed, "change", actor)

    async def delete(self, *, id: str, actor: str) -> int:  # noqa: A002
        """Moves its keys to `default`, in the same transaction; returns how many. Raises NoSuchGroup, GroupInUse."""
        moved: list[int] = [0]

        async def decide(connection: AsyncConnection, before: Whole) -> Whole:
            _refuse_in_use(before, id)
            moved[0] = await credential_changes.move_group(connection, id, DEFAULT_GROUP, self._now_ms())
            return before._replace(key_pool=without_group(before.key_pool, id))

        await self._editor.edit_whole(actor, "delete", decide)
        if moved[0]:
            self.notify()
        return moved[0]

    async def _edit(self, name: str, change: Callable[[KeyPool], KeyPool], verb: str, actor: str) -> GroupFigures:
        async def decide(_: AsyncConnection, before: Whole) -> Whole:
            return before._replace(key_pool=key_pool_specs.checked(change(before.key_pool)))

        await self._editor.edit_whole(actor, verb, decide)
        return next(one for one in await self.list() if one.id == name)


def _groups(pool: KeyPool) -> Mapping[str, PoolGroup]:
    return {DEFAULT_GROUP: PoolGroup(), **pool.groups}


def _refuse_in_use(whole: Whole, name: str) -> None:
    if name == DEFAULT_GROUP:
        raise GroupInUse("it is where keys of no other group are")
    routes = sorted(prefix for prefix, route in whole.routes.items() if name in route.pool_groups)
    if routes:
        raise GroupInUse(
            f"it is named by the route {routes[0]}" + (f" and {len(routes) - 1} more" if routes[1:] else "")
        )
    if name not in whole.key_pool.groups:
        raise NoSuchGroup(name)


def _figures(name: str, group: PoolGroup, counts: Mapping[Status, int]) -> GroupFigures:
    numbers = [counts.get(status, 0) for status in (Status.ACTIVE, Status.DISABLED, Status.BANNED)]
    return GroupFigures(name, group.name, group.priority, sum(numbers), *numbers)
