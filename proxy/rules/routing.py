"""Longest prefix on whole path segments wins: `/openai` takes `/openai`, `/openai/…`, and never `/openaix`.

A lookup tries one dictionary key per segment that any prefix has, so its cost grows with the depth of the prefixes, not
with their number.
"""

from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

R = TypeVar("R")

SLASH = ord("/")


class RouteTable(Generic[R]):
    """An immutable map from path prefixes to routes."""

    __slots__ = ("_by_prefix", "_segments")

    def __init__(self, by_prefix: Mapping[bytes, R]) -> None:
        """Takes prefixes such as `/openai` or `/a/b`, without a slash at the end.

        `/` is the root, which matches every path.
        """
        self._by_prefix = {_key(prefix): route for prefix, route in by_prefix.items()}
        self._segments = range(max((prefix.count(b"/") for prefix in self._by_prefix), default=0))

    def routes(self) -> Iterable[R]:
        return self._by_prefix.values()

    def edited(self, gone: Iterable[bytes], new: Mapping[bytes, R]) -> "RouteTable[R]":
        """Returns a table without the prefixes `gone` and with `new` ones, for what these cost and not all that stay.

        It tries as many segments as this one did, also where no prefix has so many any more.
        """
        table = RouteTable(new)
        table._segments = max(table._segments, self._segments, key=len)
        by_prefix = self._by_prefix.copy()
        for prefix in gone:
            del by_prefix[_key(prefix)]
        by_prefix.update(table._by_prefix)
        table._by_prefix = by_prefix
        return table

    def match(self, path: bytes) -> tuple[R, bytes] | None:
        """Returns a path's route and what of the path is behind the prefix (empty or beginning with `/`), or None."""
        if not path or path[0] != SLASH:
            return None
        by_prefix = self._by_prefix
        found = by_prefix.get(b"")
        found_end = end = 0
        for _ in self._segments:
            end = path.find(b"/", end + 1)
            if end < 0:
                end = len(path)
            route = by_prefix.get(path[:end])
            if route is not None:
                found, found_end = route, end
            if end == len(path):
                break
        return None if found is None else (found, path[found_end:])


def _key(prefix: bytes) -> bytes:
    return b"" if prefix == b"/" else prefix
