"""The one transaction in which the configuration changes: lock, read, decide, check, write, record.

Editors of all processes hold one row's lock from the first statement to the commit. So each decides on what is there,
none is lost, and versions are numbered without gaps. An edit reads all routes and checks them together anyway, so there
is nothing that a finer lock would let run at the same time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Column, Table, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from admin import tables
from admin.database import Database
from admin.rules import changes as rule
from admin.rules import key_pool_specs, route_specs, upstream_specs
from admin.rules.changes import Change
from admin.services import settings
from proxy.config import ConfigError, KeyPool, Route, Upstream, leads_to
from proxy.rules.tiers import unknown_groups

Routes = dict[str, Route]
Upstreams = dict[str, Upstream]
KEY_POOL = "key_pool"
"""The setting that has the key pool's, in JSON."""
# Bound values of a statement: SQLite takes 32,766, PostgreSQL's driver 32,767.
NAMES_MAX = 10_000


class Whole(NamedTuple):
    """All that an edit can change."""

    routes: Routes
    key_pool: KeyPool
    upstreams: Upstreams


class Touched(NamedTuple):
    """Of what an edit leaves, the routes and upstreams that are new or changed, and upstreams that such routes use."""

    routes: Routes
    upstreams: Upstreams


class Edit(NamedTuple):
    """An edit that was made: the number of the newest version and what changed. Nothing changed, no new version."""

    version: int
    changes: list[Change]


class Editor:
    """Makes edits. `validate` is given what an edit touches, and raises ConfigError if that cannot be used; `now_ms` is
    the clock, in milliseconds since 1970.

    What an edit does not touch is not validated with it. What has become of that meanwhile (a file that is gone, a
    setting that forbids it now) is no fault of the edit, which may be a step to put it right.
    """

    def __init__(self, database: Database, validate: Callable[[Touched], None], now_ms: Callable[[], int]) -> None:
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
            refuse_unknown_groups(before, after)
            return before._replace(routes=after)

        return await self.edit_whole(actor, verb, decide_routes)

    async def edit_whole(
        self, actor: str, verb: str, decide: Callable[[AsyncConnection, Whole], Awaitable[Whole]]
    ) -> Edit:
        """An edit of all that there is, which may read and write more in the same transaction.

        A route that is to use an upstream that there is not is refused, and so is the removal of one that is used.
        """

        async def work(connection: AsyncConnection) -> Edit:
            await lock_configuration(connection)
            before = await read_whole(connection)
            after = await decide(connection, before)
            of_routes = rule.of_routes(before.routes, after.routes)
            of_upstreams = rule.of_upstreams(before.upstreams, after.upstreams)
            of_key_pool = rule.of_key_pools(before.key_pool, after.key_pool)
            changed = of_routes + of_upstreams + of_key_pool
            if not changed:
                return Edit(await newest(connection), [])
            self._refuse_unusable(before, after, _left(of_routes), _left(of_upstreams))
            now_ms = self._now_ms()
            await _write(connection, tables.routes, of_routes, lambda prefix: _row(after.routes[prefix]), now_ms)
            await _write(
                connection,
                tables.upstreams,
                of_upstreams,
                lambda name: {"spec": upstream_specs.encode(after.upstreams[name])},
                now_ms,
            )
            if of_key_pool:
                await settings.write(connection, KEY_POOL, key_pool_specs.encode(after.key_pool))
            summary = rule.summary(verb, changed)
            return Edit(await record(connection, actor, summary, changed, rule.document(*after), now_ms), changed)

        async with self._turn:
            edit = await self.database.transact(work)
        if edit.changes:
            self.notify()
        return edit

    def _refuse_unusable(self, before: Whole, after: Whole, routes: Sequence[str], upstreams: Sequence[str]) -> None:
        """Raises ConfigError. `routes` and `upstreams` are those that are new or changed."""
        changed = {prefix: after.routes[prefix] for prefix in routes}
        upstream_specs.refuse_unknown(
            changed, after.routes, before.upstreams.keys() - after.upstreams.keys(), after.upstreams
        )
        used = {route.upstream for route in changed.values() if route.upstream is not None}
        self._validate(Touched(changed, {name: after.upstreams[name] for name in sorted({*upstreams, *used})}))


def _left(changes: Sequence[Change]) -> list[str]:
    """The names of what changes added or changed."""
    return [one.name for one in changes if one.after is not None]


def refuse_unknown_groups(before: Whole, after: Routes) -> None:
    """Raises ConfigError where a route is to use a pool group that there is not, and did not before."""
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


async def read_whole(connection: AsyncConnection) -> Whole:
    """All that there is. Raises ConfigError."""
    return Whole(await read_routes(connection), await read_key_pool(connection), await read_upstreams(connection))


async def read_routes(connection: AsyncConnection) -> Routes:
    """All routes, by prefix. Raises ConfigError."""
    columns = tables.routes.c
    rows = await connection.execute(select(columns.prefix, columns.spec).order_by(columns.prefix))
    return {prefix: route_specs.decode(prefix, spec) for prefix, spec in rows}


async def read_upstreams(connection: AsyncConnection) -> Upstreams:
    """All upstreams, by name. Raises ConfigError."""
    columns = tables.upstreams.c
    rows = await connection.execute(select(columns.name, columns.spec).order_by(columns.name))
    return {name: upstream_specs.decode(name, spec) for name, spec in rows}


async def read_key_pool(connection: AsyncConnection) -> KeyPool:
    """The settings of the key pool. Raises ConfigError."""
    kept = await settings.read(connection, KEY_POOL)
    return KeyPool() if kept is None else key_pool_specs.decode(kept)


def _row(route: Route) -> dict[str, Any]:
    return {"target": leads_to(route), "spec": route_specs.encode(route)}


async def _write(
    connection: AsyncConnection,
    table: Table,
    changed: Sequence[Change],
    row_of: Callable[[str], dict[str, Any]],
    now_ms: int,
) -> None:
    """Replaces the rows that changed, in a few statements however many there are.

    An update of many rows would be one round trip each with MySQL's driver; a deletion and an insertion are not.
    """
    key: Column[str] = table.primary_key.columns[0]
    gone = [change.name for change in changed if change.before is not None]
    created_at: dict[str, int] = {}
    for start in range(0, len(gone), NAMES_MAX):
        named = key.in_(gone[start : start + NAMES_MAX])
        for row in await connection.execute(select(key, table.c.created_at).where(named)):
            created_at[row[0]] = row[1]
        await connection.execute(delete(table).where(named))
    rows = [
        {
            key.name: change.name,
            **row_of(change.name),
            "created_at": created_at.get(change.name, now_ms),
            "updated_at": now_ms,
        }
        for change in changed
        if change.after is not None
    ]
    if rows:
        await connection.execute(insert(table), rows)
