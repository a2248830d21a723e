"""Routes: to be read, searched and changed. Whatever changes them is one edit (`edits.py`) and one new version."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import or_, select

from admin import tables
from admin.rules import route_specs, three_way
from admin.rules.three_way import Plan
from admin.services.edits import Editor, read_routes
from admin.services.failures import DuplicateRoute, NoSuchRoute
from proxy.config import Route
from proxy.sources import values

_COLUMNS = (tables.routes.c.prefix, tables.routes.c.spec, tables.routes.c.created_at, tables.routes.c.updated_at)


class StoredRoute(NamedTuple):
    """A route and when it was created and last changed."""

    prefix: str
    route: Route
    created_at: int
    updated_at: int


class Applied(NamedTuple):
    """What applying a file did, and the newest version after it."""

    plan: Plan
    version: int


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

    async def replace(self, prefix: str, route: Route, actor: str) -> int:
        """Returns the newest version. Raises NoSuchRoute, ConfigError."""
        ((name, checked),) = route_specs.checked({prefix: route}).items()

        def decide(current: dict[str, Route]) -> dict[str, Route]:
            if name not in current:
                raise NoSuchRoute(name)
            return current | {name: checked}

        return (await self._editor.edit(actor, "replace", decide)).version

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

    async def plan(self, wanted: Mapping[str, Route], last_applied: Mapping[str, Route] | None) -> Plan:
        """What `apply` would do. Raises ConfigError."""
        return self._planner(wanted, last_applied)(await self.all())

    async def apply(self, wanted: Mapping[str, Route], last_applied: Mapping[str, Route] | None, actor: str) -> Applied:
        """Applies a file that has the routes `wanted` and had `last_applied` when it was last applied (None: never).

        `rules/three_way.py` decides. Raises ConfigError.
        """
        planner = self._planner(wanted, last_applied)
        made: list[Plan] = []

        def decide(current: dict[str, Route]) -> dict[str, Route]:
            made.append(planner(current))
            return made[-1].result(current)

        edit = await self._editor.edit(actor, "apply", decide)
        return Applied(made[-1], edit.version)

    def _planner(
        self, wanted: Mapping[str, Route], last_applied: Mapping[str, Route] | None
    ) -> Callable[[Mapping[str, Route]], Plan]:
        checked = route_specs.checked(wanted)
        last = None if last_applied is None else dict(last_applied)
        return lambda current: three_way.plan(current, checked, last)


def _known_spelling(prefix: str) -> str:
    """The prefix as it is stored; one that is none is left, and found nowhere."""
    try:
        return values.prefix(prefix)
    except ValueError:
        return prefix


def _stored(prefix: str, spec: str, created_at: int, updated_at: int) -> StoredRoute:
    return StoredRoute(prefix, route_specs.decode(prefix, spec), created_at, updated_at)
