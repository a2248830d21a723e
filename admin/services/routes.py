"""Routes: to be read, searched and changed. Whatever changes them is one edit (`edits.py`) and one new version."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec
from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from admin import tables
from admin.rules import (
    key_pool_specs,
    route_specs,
    three_way,
    three_way_key_pool,
    three_way_upstreams,
    upstream_specs,
)
from admin.rules.additions import Additions, Existing, Wanted, additions
from admin.rules.three_way import Plan
from admin.services import settings
from admin.services.edits import Editor, Whole, read_routes, read_whole, refuse_unknown_groups
from admin.services.failures import DuplicateRoute, NoSuchRoute
from proxy.config import ConfigError, KeyPool, Route, Upstream
from proxy.rules.tiers import unknown_groups
from proxy.sources import values

LAST_APPLIED = "routes_of_the_file"
KEY_POOL_LAST_APPLIED = "key_pool_of_the_file"
UPSTREAMS_LAST_APPLIED = "upstreams_of_the_file"
AnyKept = TypeVar("AnyKept")
_COLUMNS = (tables.routes.c.prefix, tables.routes.c.spec, tables.routes.c.created_at, tables.routes.c.updated_at)


class StoredRoute(NamedTuple):
    """A route and when it was created and last changed."""

    prefix: str
    route: Route
    created_at: int
    updated_at: int


class Applied(NamedTuple):
    """What applying a file did, and the newest version after it.

    `lacking` are the pool groups that routes name and that there are not, each behind its route's prefix.
    """

    plan: Plan
    version: int
    lacking: list[tuple[str, str]]


class Routes:
    """All routes. Prefixes may be given in any spelling that YAML takes (`/openai/`)."""

    def __init__(self, editor: Editor) -> None:
        self._database = editor.database
        self._editor = editor

    async def all(self) -> dict[str, Route]:
        async with self._database.read() as connection:
            return await read_routes(connection)

    async def get(self, prefix: str) -> StoredRoute | None:
        try:
            name = values.prefix(prefix)
        except ValueError:
            return None
        async with self._database.read() as connection:
            rows = await connection.execute(select(*_COLUMNS).where(tables.routes.c.prefix == name))
            row = rows.one_or_none()
        return None if row is None else _stored(*row)

    async def search(self, q: str, after: str, limit: int) -> list[StoredRoute]:
        """At most `limit` routes with `q` in prefix or target, in any case, by prefix, those behind `after` only."""
        if "\0" in q + after:  # PostgreSQL's texts have none, and its driver raises
            return []
        columns = tables.routes.c
        query = select(*_COLUMNS).where(columns.prefix > after).order_by(columns.prefix).limit(limit)
        if q:
            found = (columns.prefix.icontains(q, autoescape=True), columns.target.icontains(q, autoescape=True))
            query = query.where(or_(*found))
        async with self._database.read() as connection:
            return [_stored(*row) for row in await connection.execute(query)]

    async def create(self, prefix: str, route: Route, actor: str) -> int:
        """Returns the new version. Raises DuplicateRoute, ConfigError."""
        ((name, checked),) = route_specs.checked({prefix: route}).items()

        def decide(current: dict[str, Route]) -> dict[str, Route]:
            if name in current:
                raise DuplicateRoute(name)
            return current | {name: checked}

        return (await self._editor.edit(actor, "create", decide)).version

    async def update(self, prefix: str, change: Callable[[Route], Route], actor: str) -> int:
        """Makes of a route what `change` makes of it, and returns the newest version. Raises NoSuchRoute, ConfigError.

        `change` is given the route as it is in the transaction that writes it, so of two updates none is lost.
        """
        name = _known_spelling(prefix)

        def decide(current: dict[str, Route]) -> dict[str, Route]:
            if name not in current:
                raise NoSuchRoute(prefix)
            return current | route_specs.checked({name: change(current[name])})

        return (await self._editor.edit(actor, "change", decide)).version

    async def delete(self, prefix: str, actor: str) -> int:
        """Returns the new version. Raises NoSuchRoute, ConfigError."""
        name = _known_spelling(prefix)

        def decide(current: dict[str, Route]) -> dict[str, Route]:
            if name not in current:
                raise NoSuchRoute(prefix)
            return {other: route for other, route in current.items() if other != name}

        return (await self._editor.edit(actor, "delete", decide)).version

    async def delete_many(self, prefixes: Sequence[str], actor: str) -> list[str]:
        """Returns the prefixes that were there; the others are no error. All go in one version. Raises ConfigError."""
        names = {_known_spelling(prefix) for prefix in prefixes}

        def decide(current: dict[str, Route]) -> dict[str, Route]:
            return {prefix: route for prefix, route in current.items() if prefix not in names}

        return [change.name for change in (await self._editor.edit(actor, "delete", decide)).changes]

    async def additions(self, wanted: Wanted, existing: Existing) -> Additions:
        """What `add` would do. Raises ConfigError."""
        checked = _checked(wanted)
        async with self._database.read() as connection:
            current = await read_whole(connection)
        return additions(current.routes, current.upstreams, checked, existing)

    async def add(self, wanted: Wanted, existing: Existing, actor: str) -> Additions:
        """Adds routes and upstreams in one transaction; what becomes of those that are there, `existing` says.

        Raises ConfigError.
        """
        checked = _checked(wanted)
        made: list[Additions] = []

        async def decide(_: AsyncConnection, before: Whole) -> Whole:
            made.append(additions(before.routes, before.upstreams, checked, existing))
            plan = made[-1].plan
            routes = plan.result(before.routes)
            refuse_unknown_groups(before, routes)
            return before._replace(
                routes=routes, upstreams=three_way_upstreams.result(before.upstreams, plan.upstreams)
            )

        await self._editor.edit_whole(actor, "import", decide)
        return made[-1]

    async def plan(
        self,
        wanted: Mapping[str, Route],
        key_pool: KeyPool | None = None,
        upstreams: Mapping[str, Upstream] | None = None,
    ) -> Plan:
        """What `apply` would do. Raises ConfigError."""
        file = _File.checked(wanted, key_pool, upstreams)
        async with self._database.read() as connection:
            return await _planned(connection, await read_whole(connection), file)

    async def apply(
        self,
        wanted: Mapping[str, Route],
        actor: str,
        key_pool: KeyPool | None = None,
        upstreams: Mapping[str, Upstream] | None = None,
    ) -> Applied:
        """Applies a file with the routes `wanted`, and keeps it as what was last applied, in one transaction.

        Without a `key_pool`, the one that is there stays, and so do `upstreams`. `rules/three_way.py` decides. Raises
        ConfigError.
        """
        file = _File.checked(wanted, key_pool, upstreams)
        made: list[Plan] = []
        lacking: list[tuple[str, str]] = []

        async def decide(connection: AsyncConnection, current: Whole) -> Whole:
            made.append(await _planned(connection, current, file))
            await _keep(connection, file)
            key_pool_after = three_way_key_pool.result(current.key_pool, made[-1].key_pool)
            routes = made[-1].result(current.routes)
            lacking[:] = [
                (prefix, group)
                for prefix, route in sorted(routes.items())
                for group in unknown_groups(route.pool_groups, key_pool_after.groups)
            ]
            return Whole(routes, key_pool_after, three_way_upstreams.result(current.upstreams, made[-1].upstreams))

        edit = await self._editor.edit_whole(actor, "apply", decide)
        return Applied(made[-1], edit.version, lacking)


class _File(NamedTuple):
    """What a file says; None is what it is not asked for."""

    routes: dict[str, Route]
    key_pool: KeyPool | None
    upstreams: dict[str, Upstream] | None

    @classmethod
    def checked(
        cls, routes: Mapping[str, Route], key_pool: KeyPool | None, upstreams: Mapping[str, Upstream] | None
    ) -> "_File":
        """Raises ConfigError."""
        return cls(
            route_specs.checked(routes), key_pool, None if upstreams is None else upstream_specs.checked(upstreams)
        )


def _checked(wanted: Wanted) -> Wanted:
    """Raises ConfigError."""
    return wanted._replace(
        routes=route_specs.checked(wanted.routes), upstreams=upstream_specs.checked(wanted.upstreams)
    )


async def _planned(connection: AsyncConnection, current: Whole, file: _File) -> Plan:
    plan = three_way.plan(current.routes, file.routes, await last_applied(connection))
    if file.key_pool is not None:
        kept = await settings.read(connection, KEY_POOL_LAST_APPLIED)
        last = None if kept is None else key_pool_specs.decode(kept)
        of_key_pool = three_way_key_pool.plan(current.key_pool, file.key_pool, last)
        plan = msgspec.structs.replace(plan, key_pool=of_key_pool)
    if file.upstreams is not None:
        last_upstreams = await _last_applied(connection, UPSTREAMS_LAST_APPLIED, dict[str, Upstream])
        routes = plan.result(current.routes)
        of_upstreams = three_way_upstreams.plan(current.upstreams, file.upstreams, last_upstreams, routes)
        plan = msgspec.structs.replace(plan, upstreams=of_upstreams)
    return plan


async def _keep(connection: AsyncConnection, file: _File) -> None:
    """Keeps what the file says as what was last applied."""
    await settings.write(connection, LAST_APPLIED, msgspec.json.encode(file.routes).decode())
    if file.key_pool is not None:
        await settings.write(connection, KEY_POOL_LAST_APPLIED, key_pool_specs.encode(file.key_pool))
    if file.upstreams is not None:
        await settings.write(connection, UPSTREAMS_LAST_APPLIED, msgspec.json.encode(file.upstreams).decode())


async def last_applied(connection: AsyncConnection) -> dict[str, Route] | None:
    """What the file said when it was last applied, None where none ever was. Raises ConfigError."""
    return await _last_applied(connection, LAST_APPLIED, dict[str, Route])


async def _last_applied(connection: AsyncConnection, name: str, type_: type[AnyKept]) -> AnyKept | None:
    kept = await settings.read(connection, name)
    try:
        return None if kept is None else msgspec.json.decode(kept, type=type_)
    except msgspec.DecodeError as error:
        raise ConfigError("database", name, str(error)) from None


def _known_spelling(prefix: str) -> str:
    """The prefix as it is stored; one that is none is left, and found nowhere."""
    try:
        return values.prefix(prefix)
    except ValueError:
        return prefix


def _stored(prefix: str, spec: str, created_at: int, updated_at: int) -> StoredRoute:
    return StoredRoute(prefix, route_specs.decode(prefix, spec), created_at, updated_at)
