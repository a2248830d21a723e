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
from admin.rules import route_specs
from admin.rules.changes import Change
from proxy.config import Route

Routes = dict[str, Route]
# Bound values of a statement: SQLite takes 32,766, PostgreSQL's driver 32,767.
NAMES_MAX = 10_000


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
        """An edit whose `decide` reads and writes more than routes, in the same transaction."""

        async def work(connection: AsyncConnection) -> Edit:
            config = select(tables.locks.c.name).where(tables.locks.c.name == "config")
            await connection.execute(config.with_for_update())
            created_at, before = await _stored(connection)
            after = await decide(connection, before)
            changed = rule.of_routes(before, after)
            if not changed:
                return Edit(await newest(connection), [])
            self._validate({change.name: after[change.name] for change in changed if change.after is not None})
            now_ms = self._now_ms()
            await _write(connection, changed, after, created_at, now_ms)
            summary = rule.summary(verb, changed)
            return Edit(await record(connection, actor, summary, changed, rule.document(after), now_ms), changed)

        async with self._turn:
            edit = await self.database.transact(work)
        if edit.changes:
            self.notify()
        return edit


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
