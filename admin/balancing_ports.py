"""What the API about upstreams asks of the rest of the control plane.

`UpstreamsService` is the SQL side; `Management` is what reference 004 offers, whichever way it is asked: over HTTP
(`/api/v1/*`) or gRPC. Every change is one transaction with one new version of the configuration.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from proxy.config import Backend, Route, Upstream


class UpstreamsService(Protocol):
    """Upstreams and their backends. What changes them returns the newest version, and raises ConfigError."""

    async def all(self) -> Mapping[str, Upstream]: ...

    async def add_backend(self, upstream: str, backend: Backend, actor: str) -> int:
        """Adds a backend, and the upstream where it is not there. Raises DuplicateBackend."""

    async def change_backend(
        self, upstream: str, backend_id: str, change: Callable[[Backend], Backend], actor: str
    ) -> int:
        """`change` is given the backend as it is in the transaction. Raises NoSuchUpstream, NoSuchBackend."""

    async def remove_backend(self, upstream: str, backend_id: str, actor: str) -> int:
        """Raises NoSuchUpstream, NoSuchBackend."""

    async def replace(
        self,
        change: Callable[[Mapping[str, Upstream], Mapping[str, Route]], tuple[dict[str, Upstream], dict[str, Route]]],
        actor: str,
    ) -> int:
        """Makes of all upstreams and routes what `change` makes of them, as they are in the transaction."""


class Management(Protocol):
    """Reference 004's management. Documents are as its YAML and its API spell them (`max_conn`, `interval: 30s`).

    Raises ConfigError for what cannot be used, NoSuchUpstream, NoSuchBackend, DuplicateBackend, and what says that SQL
    (DatabaseDown) or Redis (StoreUnavailable) is away.
    """

    async def config(self) -> Mapping[str, Any]:
        """`server`, `ssl`, `backends`, `routing` and `grpc` as they are now, without secrets, and `version`."""

    async def update_config(self, document: Mapping[str, Any], actor: str) -> int:
        """Takes `backends` and `routing` over, whole where they are given; returns the new version.

        What belongs into the settings file (`server`, `ssl`, `grpc`) is refused where it differs from what is in use.
        """

    async def backends(self, upstream: str | None) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """The backends of one upstream or of all, with what is known of their health."""

    async def add_backend(self, upstream: str, backend: Mapping[str, Any], actor: str) -> Mapping[str, Any]:
        """Returns the backend as it is now."""

    async def update_backend(self, upstream: str, backend: Mapping[str, Any], actor: str) -> Mapping[str, Any]:
        """Changes the fields that are given, of the backend whose `id` is given. `active: true` ends a draining."""

    async def remove_backend(self, upstream: str, backend_id: str, actor: str) -> None: ...

    async def disconnect_backend(self, upstream: str, backend_id: str, actor: str) -> Mapping[str, Any]:
        """Has the backend drained: no new requests, those that run go on."""

    async def server_stats(self) -> Mapping[str, Any]: ...

    async def backend_stats(self, upstream: str | None, backend_id: str | None) -> Sequence[Mapping[str, Any]]: ...

    async def report(self, upstream: str, backend_id: str, performance: Mapping[str, Any]) -> None:
        """Takes what a backend says of its load: `cpu_usage` and `memory_usage` in per cent, `load_avg_1`."""

    async def reload_tls(self, actor: str) -> Mapping[str, Any]:
        """Has all workers load the listener's certificate again; tells how many have."""
