"""The upstreams' part in applying a file: as with routes (`three_way.py`), but setting by setting and backend by
backend. Pure.

So a backend that was added through the API, or is being drained, stays so when the file changes something else of its
upstream. An upstream that a route uses is there, whatever the file or the API removed.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from admin.rules import upstream_specs
from admin.rules.route_specs import plain
from proxy.config import Backend, ConfigError, Route, Struct, Upstream

AnyStruct = TypeVar("AnyStruct", bound=Struct)

Path = tuple[str, ...]
"""What of an upstream a line is about: `balancer`, `backend b1`, `backend b1 weight`; nothing: that it is there."""


class Difference(msgspec.Struct, frozen=True):
    """An upstream as the file was last applied (`base`), as it is there, and as it will be; None where there is none.

    `kept_for` is the prefix of the route for whose sake one stays that the file wants no more.
    """

    name: str
    base: Upstream | None
    before: Upstream | None
    after: Upstream | None
    kept_for: str | None = None

    def lines(self) -> list[str]:
        """To be read: `~ upstream api backend b1 weight 100 -> 50`."""
        if self.kept_for is not None:
            return [f"= upstream {self.name} (kept; the route {self.kept_for} uses it)"]
        bases, befores, afters = _flat(self.base), _flat(self.before), _flat(self.after)
        return [
            self._line(path, befores.get(path), afters.get(path), conflict=befores.get(path) != bases.get(path))
            for path in self._paths()
        ]

    def parts(self) -> list[str]:
        """What of the upstream differs, to be read: `backend b1 weight`."""
        return [" ".join(path) for path in self._paths()]

    def _paths(self) -> list[Path]:
        befores, afters = _flat(self.before), _flat(self.after)
        return [path for path in sorted(befores.keys() | afters.keys()) if befores.get(path) != afters.get(path)]

    def _line(self, path: Path, before: Any, after: Any, *, conflict: bool) -> str:
        sign = "+" if before is None else "-" if after is None else "~"
        shown = " -> ".join(_shown(value) for value in (before, after) if value is not None)
        words = [sign, "upstream", self.name, *path, shown, "(also edited through the API)" if conflict else ""]
        return " ".join(filter(None, words))


def plan(
    current: Mapping[str, Upstream],
    wanted: Mapping[str, Upstream],
    last_applied: Mapping[str, Upstream] | None,
    routes: Mapping[str, Route],
) -> tuple[Difference, ...]:
    """What the file `wanted` does to `current`. `last_applied` is None where no file ever was.

    `routes` are those that there will be.
    """
    last = last_applied or {}
    users = {route.upstream: prefix for prefix, route in sorted(routes.items(), reverse=True)}
    found: list[Difference] = []
    for name in sorted(wanted.keys() | last.keys()):
        base, before, asked = last.get(name), current.get(name), wanted.get(name)
        after = _after(name, base, before, asked)
        if after is None and name in users:
            found.append(Difference(name, base, before, before or asked, users[name] if before else None))
        elif after != before:
            found.append(Difference(name, base, before, after))
    return tuple(found)


def result(current: Mapping[str, Upstream], differences: tuple[Difference, ...]) -> dict[str, Upstream]:
    """What will be there, from what is."""
    made = {**current, **{one.name: one.after for one in differences}}
    return {name: upstream for name, upstream in made.items() if upstream is not None}


def _after(name: str, base: Upstream | None, before: Upstream | None, asked: Upstream | None) -> Upstream | None:
    if asked == base:
        return before
    if before is None or asked is None:
        return asked
    merged = _merged(base or Upstream(), before, asked)
    try:
        return upstream_specs.checked({name: merged})[name]
    except ConfigError:  # what both want does not go together, so the file's is all that counts
        return asked


def _merged(base: Upstream, before: Upstream, asked: Upstream) -> Upstream:
    """`before` with what the file has changed."""
    old, there, wanted = ({one.id: one for one in upstream.backends} for upstream in (base, before, asked))
    made = {id_: _backend(old.get(id_), there.get(id_), wanted.get(id_)) for id_ in {**there, **wanted}}
    backends = {id_: backend for id_, backend in made.items() if backend is not None}
    # Two backends of one URL could not be told apart; it is the file's who has it as the file says.
    taken = {one.url for id_, one in backends.items() if id_ in wanted and one.url == wanted[id_].url}
    for id_, backend in tuple(backends.items()):
        if backend.url in taken and (id_ not in wanted or wanted[id_].url != backend.url):
            if id_ in wanted:
                backends[id_] = wanted[id_]
            else:
                del backends[id_]
    return msgspec.structs.replace(_changed(base, before, asked), backends=tuple(backends.values()))


def _backend(base: Backend | None, before: Backend | None, asked: Backend | None) -> Backend | None:
    if asked == base:
        return before
    if before is None or asked is None:
        return asked
    return _changed(base or Backend(url=""), before, asked)


def _changed(base: AnyStruct, before: AnyStruct, asked: AnyStruct) -> AnyStruct:
    """`before` with the fields in which `asked` differs from `base`."""
    fields = {name: getattr(asked, name) for name in asked.__struct_fields__}
    return msgspec.structs.replace(
        before, **{name: value for name, value in fields.items() if value != getattr(base, name)}
    )


def _flat(upstream: Upstream | None) -> dict[Path, Any]:
    """What differs from the defaults, by path. That there is an upstream is an empty text, of a backend its URL."""
    if upstream is None:
        return {}
    spec = plain(upstream)
    flat: dict[Path, Any] = {(): ""}
    for backend in spec.pop("backends", []):
        of_backend = ("backend", backend.pop("id"))
        flat[of_backend] = backend.pop("url")
        flat |= {(*of_backend, name): value for name, value in backend.items()}
    return flat | {(name,): value for name, value in spec.items()}


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
