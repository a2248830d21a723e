"""The one transaction in which the configuration changes: lock, read, decide, check, write, record.

Editors of all processes hold one row's lock from the first statement to the commit. So each decides on what is there,
none is lost, and versions are numbered without gaps. An edit reads all routes and checks them together anyway, so there
is nothing that a finer lock would let run at the same time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from admin import tables
from admin.database import Database
from admin.rules import changes as rule
from admin.rules import key_pool_specs, route_specs
from admin.rules.changes import Change
from admin.services import settings
from proxy.config import ConfigError, KeyPool, Route
from proxy.rules.tiers import unknown_groups

Routes = dict[str, Route]
KEY_POOL = "key_pool"
"""The setting that has the key pool's, in JSON."""
# Bound values of a statement: SQLite takes 32,766, PostgreSQL's driver 32,767.
NAMES_MAX = 10_000


class Whole(NamedTuple):
    """All that an edit can change."""

    routes: Routes
    key_pool: KeyPool


class Edit(NamedTuple):
    """An edit that was made: the number of the newest version and what changed. Nothing changed, no new version."""

    version: int
    changes: list[Change]


class Editor:
    """Makes edits. `validate` is given the routes that are new or changed, and raises ConfigError if they cannot be
    used; `now_ms` is the clock, in milliseconds since 1970.

    Routes that an edit does not touch are not validated with it. What has become of them meanwhile (a file that is
    gone, a setting that forbids them now) is no fault of the edit, which may be a step to put it right.
    """

    def __init__(self, database: Database, validate: Callable[[Routes], None], now_ms: Callable[[], int]) -> None:
        self.database = database
        self._validate = validate
        self._now_ms = now_ms
        self.notify: Callable[[], object] = lambda: None
        """Called after each edit that changed something."""
        # Edits of one process queue here, and not each with a connection that readers need.
        self._turn = asyncio.Lock()

    async def edit(self, actor: str, verb: str, decide: Callable[[Routes], Routes]) -> Edit:
        """`decide` makes the wanted routes of those that are there; what it raises ends the edit.

        It may be called again, when the transaction lost to another one. Raises ConfigError.
        """

        async def decide_alone(_: AsyncConnection, before: Routes) -> Routes:
            return decide(before)

        return await self.edit_with(actor, verb, decide_alone)

    async def edit_with(
        self, actor: str, verb: str, decide: Callable[[AsyncConnection, Routes], Awaitable[Routes]]
    ) -> Edit:
        """An edit of routes whose `decide` reads and writes more than these, in the same transaction.

        A route that is to use a pool group that there is not is refused.
        """

        async def decide_routes(connection: AsyncConnection, before: Whole) -> Whole:
            after = await decide(connection, before.routes)
            _refuse_unknown_groups(before, after)
            return before._replace(routes=after)

        return await self.edit_whole(actor, verb, decide_routes)

    async def edit_whole(
        self, actor: str, verb: str, decide: Callable[[AsyncConnection, Whole], Awaitable[Whole]]
    ) -> Edit:
        """An edit of all that there is, which may read and write more in the same transaction."""

        async def work(connection: AsyncConnection) -> Edit:
            await lock_configuration(connection)
            created_at, routes = await _stored(connection)
            before = Whole(routes, await read_key_pool(connection))
            after = await decide(connection, before)
            of_routes = rule.of_routes(before.routes, after.routes)
            of_key_pool = rule.of_key_pools(before.key_pool, after.key_pool)
            changed = of_routes + of_key_pool
            if not changed:
                return Edit(await newest(connection), [])
            self._validate({one.name: after.routes[one.name] for one in of_routes if one.after is not None})
            now_ms = self._now_ms()
            await _write(connection, of_routes, after.routes, created_at, now_ms)
            if of_key_pool:
                await settings.write(connection, KEY_POOL, key_pool_specs.encode(after.key_pool))
            summary = rule.summary(verb, changed)
            return Edit(await record(connection, actor, summary, changed, rule.document(*after), now_ms), changed)

        async with self._turn:
            edit = await self.database.transact(work)
        if edit.changes:
            self.notify()
        return edit


def _refuse_unknown_groups(before: Whole, after: Routes) -> None:
    for prefix, route in after.items():
        if route.pool_groups and (
            prefix not in before.routes or before.routes[prefix].pool_groups != route.pool_groups
        ):
            for group in unknown_groups(route.pool_groups, before.key_pool.groups):
                raise ConfigError(f"routes.{prefix}.pool_groups", f"there is no pool group {group}")


async def lock_configuration(connection: AsyncConnection) -> None:
    """Holds the lock of the configuration until the transaction ends."""
    config = select(tables.locks.c.name).where(tables.locks.c.name == "config")
    await connection.execute(config.with_for_update())


async def newest(connection: AsyncConnection) -> int:
    """The number of the newest version; 0 before the first."""
    number = await connection.scalar(select(func.max(tables.config_versions.c.number)))
    return 0 if number is None else int(number)


async def record(
    connection: AsyncConnection,
    actor: str,
    summary: str,
    changes: Sequence[Change],
    document: Mapping[str, Any],
    now_ms: int,
) -> int:
    """Writes the next version and returns its number. The caller holds the lock of the configuration."""
    number = await newest(connection) + 1
    row = {
        "number": number,
        "created_at": now_ms,
        "actor": actor,
        "summary": summary,
        "changes": msgspec.json.encode(changes).decode(),
        "document": msgspec.json.encode(document).decode(),
    }
    await connection.execute(insert(tables.config_versions).values(row))
    return number


async def read_routes(connection: AsyncConnection) -> Routes:
    """All routes, by prefix."""
    return (await _stored(connection))[1]


async def read_key_pool(connection: AsyncConnection) -> KeyPool:
    """The settings of the key pool. Raises ConfigError."""
    kept = await settings.read(connection, KEY_POOL)
    return KeyPool() if kept is None else key_pool_specs.decode(kept)


async def _stored(connection: AsyncConnection) -> tuple[dict[str, int], Routes]:
    """When each route was created, and all of them, by prefix."""
    columns = tables.routes.c
    rows = await connection.execute(select(columns.prefix, columns.spec, columns.created_at).order_by(columns.prefix))
    created_at: dict[str, int] = {}
    routes: Routes = {}
    for prefix, spec, created in rows:
        created_at[prefix] = created
        routes[prefix] = route_specs.decode(prefix, spec)
    return created_at, routes


async def _write(
    connection: AsyncConnection, changed: Sequence[Change], after: Routes, created_at: Mapping[str, int], now_ms: int
) -> None:
    """Replaces the rows that changed, in a few statements however many there are.

    An update of many rows would be one round trip each with MySQL's driver; a deletion and an insertion are not.
    """
    gone = [change.name for change in changed if change.before is not None]
    for start in range(0, len(gone), NAMES_MAX):
        await connection.execute(
            delete(tables.routes).where(tables.routes.c.prefix.in_(gone[start : start + NAMES_MAX]))
        )
    rows = [
        {
            "prefix": change.name,
            "target": after[change.name].target,
            "spec": route_specs.encode(after[change.name]),
            "created_at": created_at.get(change.name, now_ms),
            "updated_at": now_ms,
        }
        for change in changed
        if change.after is not None
    ]
    if rows:
        await connection.execute(insert(tables.routes), rows)
