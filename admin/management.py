"""What reference 004 offers to manage (`Management`), for HTTP and gRPC alike: its documents in, its documents out."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from admin.balancing_ports import UpstreamsService
from admin.endpoints.statistics import latency, performance
from admin.ports import StatisticsService, Stream, WorkersService
from admin.rules import backend_figures, outcomes, speedmimi_documents, speedmimi_settings
from admin.rules.speedmimi_documents import Document, of_backend
from admin.services.failures import NoCertificate, NoSuchBackend, NoSuchUpstream
from admin.tls_reload import Reloaded
from proxy.config import Backend, Config, ConfigError, Upstream
from proxy.shared_state.backend_feed import REPORT_S
from proxy.shared_state.backend_reports import BackendReport
from proxy.shared_state.breaker import StoreUnavailable
from proxy.shared_state.linked_groups import Name
from proxy.shared_state.published import RoutesSection
from proxy.sources.structs import nearest
from proxy.statistics import RouteCounts
from proxy.version import VERSION

SECTIONS = ("backends", "routing", "upstreams", *speedmimi_settings.SECTIONS)


class Health(Protocol):
    """What checks have told of a backend; times in seconds since 1970."""

    @property
    def healthy(self) -> bool: ...
    @property
    def since_s(self) -> float: ...
    @property
    def checked_s(self) -> float: ...
    @property
    def reason(self) -> str: ...


class Reports(Protocol):
    """What backends say of their load, where workers hear of it. Raises StoreUnavailable."""

    async def put(self, name: Name, report: BackendReport) -> None: ...

    async def all(self) -> Mapping[Name, BackendReport]: ...


class Known(NamedTuple):
    """What is known of backends: what checks told, how many requests each has now, what it says of its load."""

    health: Callable[[], Mapping[Name, Health]]
    running: Callable[[], Mapping[Name, int]]
    reports: Reports


class BalancingManagement:
    """Implements `Management`.

    `current` reads the newest version whole, so what is shown belongs together. `reload_tls` has workers load the
    listener's certificate again; None where there is none. `now_s` is the clock (Unix time).
    """

    def __init__(
        self,
        config: Config,
        upstreams: UpstreamsService,
        current: Callable[[], Awaitable[RoutesSection]],
        statistics: StatisticsService,
        stream: Stream,
        workers: WorkersService,
        known: Known,
        reload_tls: Callable[[], Awaitable[Reloaded]] | None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._upstreams = upstreams
        self._current = current
        self._statistics = statistics
        self._stream = stream
        self._workers = workers
        self._known = known
        self._reload_tls = reload_tls
        self._now_s = now_s

    async def config(self) -> Document:
        section = await self._current()
        settings = speedmimi_settings.document(self._config)
        return {
            **settings,
            **speedmimi_documents.document(section.upstreams, section.routes),
            "version": section.version,
        }

    async def update_config(self, document: Mapping[str, Any], actor: str) -> int:
        if not document:
            raise ConfigError("config", "empty, expected backends, routing or upstreams")
        for name in document:
            if name not in SECTIONS:
                raise ConfigError(name, f"unknown section, {nearest(name, SECTIONS)}")
        speedmimi_settings.refuse_others(document, self._config)
        return await self._upstreams.replace(
            lambda upstreams, routes: speedmimi_documents.applied(document, upstreams, routes), actor
        )

    async def backends(self, upstream: str | None) -> dict[str, list[Document]]:
        upstreams = _wanted(await self._upstreams.all(), upstream)
        health = self._known.health()
        return {
            name: [{**of_backend(one), "health": _health(health, (name, one.id))} for one in group.backends]
            for name, group in upstreams.items()
        }

    async def add_backend(self, upstream: str, backend: Mapping[str, Any], actor: str) -> Document:
        new = speedmimi_documents.new_backend(upstream, backend, "backend")
        await self._upstreams.add_backend(upstream, new, actor)
        return of_backend(new)

    async def update_backend(self, upstream: str, backend: Mapping[str, Any], actor: str) -> Document:
        backend_id = speedmimi_documents.id_in(backend, "backend")
        return await self._changed(
            upstream, backend_id, lambda one: speedmimi_documents.changed_backend(one, backend, "backend"), actor
        )

    async def remove_backend(self, upstream: str, backend_id: str, actor: str) -> None:
        await self._upstreams.remove_backend(upstream, backend_id, actor)

    async def disconnect_backend(self, upstream: str, backend_id: str, actor: str) -> Document:
        return await self._changed(upstream, backend_id, lambda one: msgspec.structs.replace(one, draining=True), actor)

    async def server_stats(self) -> Document:
        totals = await self._statistics.totals()
        section = await self._current()
        living = self._workers.living()
        started_s = min((worker.started_s for worker in living), default=self._now_s())
        now = performance(totals.recent, self._stream.requests_per_second(), living)
        return {
            "version": VERSION,
            "configuration": section.version,
            "uptime_s": round(max(0.0, self._now_s() - started_s), 3),
            "upstreams": len(section.upstreams),
            "backends": sum(len(upstream.backends) for upstream in section.upstreams.values()),
            "requests": outcomes.requests(totals.all_time),
            "errors": outcomes.errors(totals.all_time),
            "performance": msgspec.to_builtins(now),
        }

    async def backend_stats(self, upstream: str | None, backend_id: str | None) -> list[Document]:
        section = await self._current()
        wanted = {
            (name, one.id): one
            for name, group in _wanted(section.upstreams, upstream).items()
            for one in group.backends
            if backend_id in (None, one.id)
        }
        if backend_id is not None and not wanted:
            raise NoSuchBackend(backend_id)
        counted = backend_figures.by_backend(
            (await self._statistics.detail(None)).rows, section.upstreams, section.routes
        )
        health, running, reports = self._known.health(), self._known.running(), await self._reports()
        return [
            {
                "upstream": name[0],
                "backend_id": backend.id,
                "name": backend.name,
                "weight": backend.weight,
                "active": backend.active,
                "draining": backend.draining,
                "health": _health(health, name),
                "running": running.get(name, 0),
                "performance": _report(reports.get(name)),
                **_figures(counted.get(name, RouteCounts("", ""))),
            }
            for name, backend in wanted.items()
        ]

    async def report(self, upstream: str, backend_id: str, performance: Mapping[str, Any]) -> None:
        report = BackendReport(**backend_figures.reported(performance), at_s=self._now_s())
        (group,) = _wanted(await self._upstreams.all(), upstream).values()
        if all(one.id != backend_id for one in group.backends):
            raise NoSuchBackend(backend_id)
        await self._known.reports.put((upstream, backend_id), report)

    async def reload_tls(self, actor: str) -> Document:
        del actor  # no version of the configuration has it
        if self._reload_tls is None:
            raise NoCertificate
        done = await self._reload_tls()
        message = f"{done.serving} of {done.asked} workers serve what the certificate's file holds now."
        if done.serving < done.asked:
            message += " The others do not yet, or they were retired and have connections left."
        return {"message": message, "workers": done.serving}

    async def _reports(self) -> Mapping[Name, BackendReport]:
        """Those that count; none while Redis is away, since the rest is worth showing without them."""
        since_s = self._now_s() - REPORT_S
        try:
            found = await self._known.reports.all()
        except StoreUnavailable:
            return {}
        return {name: report for name, report in found.items() if report.at_s > since_s}

    async def _changed(
        self, upstream: str, backend_id: str, change: Callable[[Backend], Backend], actor: str
    ) -> Document:
        """Changes a backend, and returns what it is then."""
        made: list[Backend] = []

        def noted(before: Backend) -> Backend:
            made.append(change(before))
            return made[-1]

        await self._upstreams.change_backend(upstream, backend_id, noted, actor)
        return of_backend(made[-1])


def _wanted(upstreams: Mapping[str, Upstream], name: str | None) -> Mapping[str, Upstream]:
    """One of the upstreams, or all. Raises NoSuchUpstream."""
    if name is None:
        return upstreams
    if name not in upstreams:
        raise NoSuchUpstream(name)
    return {name: upstreams[name]}


def _health(known: Mapping[Name, Health], name: Name) -> Document | None:
    """None where nothing is known: nobody has checked yet, or there is nothing to check."""
    health = known.get(name)
    if health is None:
        return None
    return {
        "healthy": health.healthy,
        "since": int(health.since_s * 1000),
        "checked": int(health.checked_s * 1000),
        "reason": health.reason,
    }


def _report(report: BackendReport | None) -> Document | None:
    if report is None:
        return None
    return {**{name: getattr(report, name) for name in backend_figures.BOUNDS}, "reported_at": int(report.at_s * 1000)}


def _figures(row: RouteCounts) -> Document:
    return {
        "requests": outcomes.requests(row),
        "errors": outcomes.errors(row),
        "outcomes": {outcome: counts.requests for outcome, counts in sorted(row.outcomes.items())},
        "last_at": int(row.last_s * 1000),
        "head": msgspec.to_builtins(latency(row.heads)),
        "upstream_duration": msgspec.to_builtins(latency(row.upstreams)),
    }
