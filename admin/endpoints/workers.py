"""Workers of the data plane: which there are, and how they are."""

import msgspec
from litestar import get

from admin.answers import Answer, documented
from admin.context import AdminRequest, services_of
from admin.ports import Worker


class WorkerView(msgspec.Struct, frozen=True):
    """A worker; times in milliseconds since 1970, by the clock of its machine.

    `alive`: it was heard of within the last seconds. `newest`: it uses the newest version of the configuration.
    `unsent`: requests that it has counted and not handed on.
    """

    name: str
    host: str
    pid: int
    version: str
    started_at: int
    seen_at: int
    alive: bool
    configuration: int
    newest: bool
    in_flight: int
    memory_bytes: int
    unsent: int


class Workers(Answer, frozen=True, kw_only=True):
    """`configuration` is the newest version."""

    configuration: int
    workers: list[WorkerView]


@get("/api/workers", responses=documented(401, 403, 429, 503))
async def list_workers(request: AdminRequest) -> Workers:
    """Lists the workers that were heard of in the last minute."""
    services = services_of(request)
    newest = await services.versions.newest()
    return Workers(configuration=newest, workers=[_view(worker, newest) for worker in services.workers.all()])


def _view(worker: Worker, newest: int) -> WorkerView:
    state = worker.state
    return WorkerView(
        state.name,
        state.host,
        state.pid,
        state.program,
        int(state.started_s * 1000),
        int(state.time_s * 1000),
        worker.alive,
        state.configuration,
        state.configuration == newest,
        state.in_flight,
        state.memory_bytes,
        state.unsent,
    )


PRIVATE = [list_workers]
