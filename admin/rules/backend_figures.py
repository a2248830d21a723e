"""Figures of backends: which of the counted requests were theirs, and what they say of their own load. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from admin.rules.speedmimi_documents import authority
from proxy.config import ConfigError, Route, Upstream
from proxy.sources.structs import shown
from proxy.statistics import RouteCounts

BOUNDS = {"cpu_usage": 100, "memory_usage": 100, "load_avg_1": 1_000_000}
"""Figures of a report and the largest that each may be."""


def by_backend(
    rows: Iterable[RouteCounts], upstreams: Mapping[str, Upstream], routes: Mapping[str, Route]
) -> dict[tuple[str, str], RouteCounts]:
    """Returns what was counted for each backend, by its upstream's name and its id; without requests, it is left out.

    Counted is what the routes had that lead to the upstream now, at the backend's address.
    """
    names = {
        (name, authority(backend)): (name, backend.id)
        for name, upstream in upstreams.items()
        for backend in upstream.backends
    }
    found: dict[tuple[str, str], RouteCounts] = {}
    for row in rows:
        route = routes.get(row.prefix)
        upstream = None if route is None else route.upstream
        name = None if upstream is None else names.get((upstream, row.authority))
        if name is not None:
            found.setdefault(name, RouteCounts("", row.authority)).add(row)
    return found


def reported(performance: Any) -> dict[str, float]:
    """Returns the figures of a report that count, 0 for those that it does not give. Others are passed over.

    Raises ConfigError, which names the figure.
    """
    if not isinstance(performance, Mapping) or not performance.keys() & BOUNDS.keys():
        raise ConfigError("performance", f"expected an object with one of {', '.join(BOUNDS)} at least")
    return {name: _figure(name, performance.get(name, 0.0), high) for name, high in BOUNDS.items()}


def _figure(name: str, value: Any, high: int) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= high:  # NaN is neither
        raise ConfigError(f"performance.{name}", f"found {shown(value)}, expected a number from 0 to {high}")
    return float(value)
