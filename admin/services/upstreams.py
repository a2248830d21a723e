"""Upstreams and their backends: to be read and changed, each change an edit of the configuration (`edits.py`)."""

from collections.abc import Callable, Mapping

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from admin.rules import route_specs, upstream_specs
from admin.rules.key_calls import to_backends
from admin.services.edits import Editor, Whole, read_routes, read_upstreams, refuse_unknown_groups
from admin.services.failures import DuplicateBackend, NoSuchBackend, NoSuchUpstream
from proxy.config import Backend, Route, Upstream


class Upstreams:
    """All upstreams. Whatever changes them decides in the transaction, so of edits of two backends none is lost."""

    def __init__(self, editor: Editor) -> None:
        self._database = editor.database
        self._editor = editor

    async def all(self) -> dict[str, Upstream]:
        """Raises ConfigError for what this version of the program cannot read."""
        async with self._database.read() as connection:
            return await read_upstreams(connection)

    async def routes_to_backends(self) -> dict[str, Route]:
        """All routes; one of an upstream as one to a backend of it, if it has any. Raises ConfigError."""
        async with self._database.read() as connection:
            return to_backends(await read_routes(connection), await read_upstreams(connection))

    async def add_backend(self, upstream: str, backend: Backend, actor: str) -> int:
        """Adds a backend, and the upstream where it is not there; returns the new version.

        Raises DuplicateBackend, ConfigError.
        """
        alone = upstream_specs.checked({upstream: Upstream(backends=(backend,))})[upstream]
        (new,) = alone.backends

        def change(there: Upstream | None) -> Upstream:
            if there is None:
                return alone
            if any(new.id == one.id or new.url == one.url for one in there.backends):
                raise DuplicateBackend(new.id)
            return msgspec.structs.replace(there, backends=(*there.backends, new))

        return await self._edit(upstream, change, f"add backend {new.id} to", actor)

    async def change_backend(
        self, upstream: str, backend_id: str, change: Callable[[Backend], Backend], actor: str
    ) -> int:
        """Makes of a backend what `change` makes of it, as it is in the transaction; returns the newest version.

        Raises NoSuchUpstream, NoSuchBackend, ConfigError.
        """

        def changed(there: Upstream | None) -> Upstream:
            return _with(there, upstream, backend_id, lambda one: (change(one),))

        return await self._edit(upstream, changed, f"change backend {backend_id} of", actor)

    async def remove_backend(self, upstream: str, backend_id: str, actor: str) -> int:
        """Returns the new version. The upstream stays, also without any. Raises NoSuchUpstream, NoSuchBackend."""

        def changed(there: Upstream | None) -> Upstream:
            return _with(there, upstream, backend_id, lambda _: ())

        return await self._edit(upstream, changed, f"remove backend {backend_id} from", actor)

    async def replace(
        self,
        change: Callable[[Mapping[str, Upstream], Mapping[str, Route]], tuple[dict[str, Upstream], dict[str, Route]]],
        actor: str,
    ) -> int:
        """Makes of all upstreams and routes what `change` makes of them, as they are in the transaction.

        Returns the newest version. Raises ConfigError.
        """

        async def decide(_: AsyncConnection, before: Whole) -> Whole:
            upstreams, routes = change(before.upstreams, before.routes)
            after = before._replace(upstreams=upstream_specs.checked(upstreams), routes=route_specs.checked(routes))
            refuse_unknown_groups(before, after.routes)
            return after

        return (await self._editor.edit_whole(actor, "replace", decide)).version

    async def _edit(self, name: str, change: Callable[[Upstream | None], Upstream], verb: str, actor: str) -> int:
        async def decide(_: AsyncConnection, before: Whole) -> Whole:
            changed = upstream_specs.checked({name: change(before.upstreams.get(name))})
            return before._replace(upstreams=before.upstreams | changed)

        return (await self._editor.edit_whole(actor, verb, decide)).version


def _with(
    there: Upstream | None, name: str, backend_id: str, change: Callable[[Backend], tuple[Backend, ...]]
) -> Upstream:
    """The upstream with what `change` makes of one backend, in its place."""
    if there is None:
        raise NoSuchUpstream(name)
    if all(one.id != backend_id for one in there.backends):
        raise NoSuchBackend(backend_id)
    backends = (new for one in there.backends for new in (change(one) if one.id == backend_id else (one,)))
    return msgspec.structs.replace(there, backends=tuple(backends))
