"""Management in memory, for tests of whoever asks it: documents of the same shape as the real one's."""

from collections.abc import Mapping, Sequence
from typing import Any

from admin.services.failures import DuplicateBackend, NoSuchBackend, NoSuchUpstream
from proxy.config import ConfigError

Document = dict[str, Any]

HEALTH = {"healthy": False, "since": 1_763_700_000_000, "checked": 1_763_700_030_000, "reason": "connect_refused"}
LATENCY = {"count": 3, "mean_ms": 1.5, "p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 2.5}
SERVER_STATS = {
    "version": "1.2.3",
    "configuration": 7,
    "uptime_s": 12.5,
    "upstreams": 1,
    "backends": 2,
    "requests": 2**40,
    "errors": 3,
    "performance": {
        "requests_per_sec": 10.5,
        "avg_response_time_ms": 1.25,
        "p50_response_time_ms": 1.0,
        "p95_response_time_ms": 2.0,
        "p99_response_time_ms": 3.0,
        "error_rate": 0.5,
        "memory_usage_mb": 91.0,
        "in_flight": 4,
        "workers": 2,
    },
}


def backend(id_: str, **fields: Any) -> Document:
    """A backend as `Management` tells it."""
    return {
        "id": id_,
        "name": "",
        "host": "127.0.0.1",
        "port": 8081,
        "scheme": "http",
        "weight": 100,
        "active": True,
        "max_conn": 1000,
        "draining": False,
        "priority": 0,
        "health_check": None,
        **fields,
    }


CHECK = {
    "path": "/health",
    "interval": "30s",
    "timeout": "0.5s",
    "failures": 3,
    "successes": 2,
    "statuses": [200, 204],
    "body": "ok",
}


class ManagementMemory:
    """Upstreams by name. `raised`, where it is set, is raised by every call; `actors` made the changes."""

    def __init__(self, program: str = "1.2.3") -> None:
        self.program = program
        self.reset()

    def reset(self) -> None:
        """Makes it what it was at first."""
        self.settings: Document = {
            "server": {
                "host": "127.0.0.1",
                "port": 8000,
                "read_timeout": "30s",
                "max_conn": 10_000,
                "real_ip_header": None,
                "trusted_proxies": ["10.0.0.0/8"],
            },
            "ssl": {"enabled": False, "cert_file": None, "key_file": None},
            "grpc": {"enabled": True, "host": "127.0.0.1", "port": 9090},
        }
        self.upstreams: dict[str, list[Document]] = {
            "default": [backend("one", health_check=CHECK), backend("two", port=8082, weight=50)]
        }
        self.routing: Document = {
            "/": {
                "path": "/",
                "upstream": "default",
                "load_balancer": "least_connections_weight",
                "protocols": {"websocket": "ip_hash", "sse": None},
                "head_timeout_s": 12.5,
                "pool_groups": ["main"],
                "body_bytes_max": 1_000_000,
            }
        }
        self.options: Document = {"default": {"queue_max": 10, "ejection": {"failures": None, "share_max": 0.25}}}
        self.version = 7
        self.actors: list[str] = []
        self.updates: list[Document] = []
        self.reports: list[tuple[str, str, Document]] = []
        self.raised: Exception | None = None

    async def config(self) -> Document:
        self._fail()
        return {
            **self.settings,
            "backends": self.upstreams,
            "routing": self.routing,
            "upstreams": self.options,
            "version": self.version,
        }

    async def update_config(self, document: Mapping[str, Any], actor: str) -> int:
        self._fail()
        self.updates.append(dict(document))
        return self._changed(actor)

    async def backends(self, upstream: str | None) -> Mapping[str, Sequence[Document]]:
        self._fail()
        named = self.upstreams if upstream is None else {upstream: self._of(upstream)}
        return {name: [{**one, "health": HEALTH} for one in found] for name, found in named.items()}

    async def add_backend(self, upstream: str, backend: Mapping[str, Any], actor: str) -> Document:
        self._fail()
        if "host" not in backend:
            raise ConfigError("backend.host", "missing")
        found = self.upstreams.setdefault(upstream, [])
        if any(one["id"] == backend["id"] for one in found):
            raise DuplicateBackend
        found.append({**backend_of(backend)})
        self._changed(actor)
        return found[-1]

    async def update_backend(self, upstream: str, backend: Mapping[str, Any], actor: str) -> Document:
        self._fail()
        found = self._one(upstream, backend["id"])
        found |= backend
        self._changed(actor)
        return found

    async def remove_backend(self, upstream: str, backend_id: str, actor: str) -> None:
        self._fail()
        self._of(upstream).remove(self._one(upstream, backend_id))
        self._changed(actor)

    async def disconnect_backend(self, upstream: str, backend_id: str, actor: str) -> Document:
        return await self.update_backend(upstream, {"id": backend_id, "draining": True}, actor)

    async def server_stats(self) -> Document:
        self._fail()
        return {**SERVER_STATS, "version": self.program}

    async def backend_stats(self, upstream: str | None, backend_id: str | None) -> Sequence[Document]:
        self._fail()
        return [
            backend_stats(name, one)
            for name, found in self.upstreams.items()
            for one in found
            if upstream in (None, name) and backend_id in (None, one["id"])
        ]

    async def report(self, upstream: str, backend_id: str, performance: Mapping[str, Any]) -> None:
        self._fail()
        self._one(upstream, backend_id)
        self.reports.append((upstream, backend_id, dict(performance)))

    async def reload_tls(self, actor: str) -> Document:
        self._fail()
        self.actors.append(actor)
        return {"message": "2 of 2 workers serve what the certificate's file holds now.", "workers": 2}

    def _fail(self) -> None:
        if self.raised is not None:
            raise self.raised

    def _changed(self, actor: str) -> int:
        self.actors.append(actor)
        self.version += 1
        return self.version

    def _of(self, upstream: str) -> list[Document]:
        if upstream not in self.upstreams:
            raise NoSuchUpstream(upstream)
        return self.upstreams[upstream]

    def _one(self, upstream: str, backend_id: str) -> Document:
        for one in self._of(upstream):
            if one["id"] == backend_id:
                return one
        raise NoSuchBackend(backend_id)


def backend_of(given: Mapping[str, Any]) -> Document:
    return backend(given["id"]) | dict(given)


def backend_stats(upstream: str, one: Document) -> Document:
    return {
        "upstream": upstream,
        "backend_id": one["id"],
        "name": one["name"],
        "weight": one["weight"],
        "active": one["active"],
        "draining": one["draining"],
        "health": None,
        "running": 0,
        "performance": {"cpu_usage": 45.5, "memory_usage": 67.75, "load_avg_1": 2.0, "reported_at": 1_763_700_000_000},
        "requests": 2**40,
        "errors": 1,
        "outcomes": {"2xx": 2**40 - 1, "connect_refused": 1},
        "last_at": 1_763_700_000_000,
        "head": LATENCY,
        "upstream_duration": LATENCY,
    }
