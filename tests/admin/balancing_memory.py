"""Upstreams in memory, and what Redis would know of their backends."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from admin.tls_reload import Reloaded
from proxy.config import Config, Upstream
from proxy.shared_state.backend_reports import BackendReport
from proxy.shared_state.breaker import StoreUnavailable
from proxy.shared_state.linked_groups import Name


@dataclass(frozen=True)
class Health:
    healthy: bool
    since_s: float
    checked_s: float
    reason: str


@dataclass
class BalancingMemory:
    """While Redis is `away`, nothing of it is told. `reloaded` is what the next reload of the certificate will be."""

    config: Config = field(default_factory=Config)
    upstreams: dict[str, Upstream] = field(default_factory=dict)
    health: dict[Name, Health] = field(default_factory=dict)
    running: dict[Name, int] = field(default_factory=dict)
    reports: dict[Name, BackendReport] = field(default_factory=dict)
    reloaded: Reloaded = field(default_factory=lambda: Reloaded(0, 0))
    away: bool = False

    def _ask(self) -> None:
        if self.away:
            raise StoreUnavailable("open")

    async def put(self, name: Name, report: BackendReport) -> None:
        self._ask()
        self.reports[name] = report

    async def all(self) -> Mapping[Name, BackendReport]:
        self._ask()
        return self.reports

    async def reload_tls(self) -> Reloaded:
        self._ask()
        return self.reloaded
