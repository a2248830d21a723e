"""Figures of the relay and of backends, and what backends say of their own load, as reference 004 documents it."""

from typing import Annotated, Any

import msgspec
from litestar import get, post

from admin import answers
from admin.answers import Answer, documented
from admin.context import AdminRequest, refusing, services_of
from admin.endpoints.backends import NAME_MAX, BackendId, HealthView, UpstreamName
from admin.endpoints.statistics import Latency, Performance
from admin.request_bodies import JSON, body_of, takes_one_of
from admin.rules.backend_figures import BOUNDS

BASE = "/api/v1"

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_MAX)]


class ServerFigures(msgspec.Struct, frozen=True):
    """The relay as a whole.

    `version` is the program's, `configuration` the newest version of the configuration. `uptime_s` is the age of the
    oldest worker. `requests` and `errors` (4xx, 5xx and those that the relay failed) are of all time.
    """

    version: str
    configuration: int
    uptime_s: float
    upstreams: int
    backends: int
    requests: int
    errors: int
    performance: Performance


class LoadReport(msgspec.Struct, frozen=True):
    """What a backend last said of its load; CPU and memory in per cent, `reported_at` in milliseconds since 1970."""

    cpu_usage: float
    memory_usage: float
    load_avg_1: float
    reported_at: int


class BackendFigures(msgspec.Struct, frozen=True):
    """A backend, and what was counted of the requests that it got from the routes that lead to its upstream now.

    `running` is how many it has now. `outcomes` are requests by class of status, by the word of a cause for which the
    relay failed them, or `client_left`; all but 1xx to 3xx and `client_left` are `errors`. `last_at`, in milliseconds
    since 1970, is when the last request was reported. `head` lasts from a request's arrival to the response head,
    `upstream_duration` from when it went out to its end. `health` is null where nobody checks, `performance` where the
    backend has reported nothing within the last minute, or Redis is away.
    """

    upstream: str
    backend_id: str
    name: str
    weight: int
    active: bool
    draining: bool
    health: HealthView | None
    running: int
    performance: LoadReport | None
    requests: int
    errors: int
    outcomes: dict[str, int]
    last_at: int
    head: Latency
    upstream_duration: Latency


class ServerStats(Answer, frozen=True, kw_only=True):
    stats: ServerFigures


class BackendStats(Answer, frozen=True, kw_only=True):
    backends: list[BackendFigures]


class Reported(Answer, frozen=True, kw_only=True):
    message: str


class Report(msgspec.Struct, frozen=True):
    """What a backend says of its load. Figures that do not count are passed over."""

    upstream: Name
    backend_id: Name
    performance: dict[str, Any]


def _schema() -> dict[str, Any]:
    name = {"type": "string", "minLength": 1, "maxLength": NAME_MAX}
    figures = {figure: {"type": "number", "minimum": 0, "maximum": high} for figure, high in BOUNDS.items()}
    performance = {"type": "object", "properties": figures, "anyOf": [{"required": [figure]} for figure in BOUNDS]}
    properties = {"upstream": name, "backend_id": name, "performance": performance}
    return {"type": "object", "properties": properties, "required": list(properties)}


_REPORT = {
    "upstream": "default",
    "backend_id": "backend1",
    "performance": {"cpu_usage": 45.2, "memory_usage": 67.8, "load_avg_1": 2.1},
}


@get(f"{BASE}/stats/server", responses=documented(401, 403, 429, 503))
async def server_stats(request: AdminRequest) -> ServerStats:
    """Shows how the relay is doing: workers, requests, errors, response times, memory."""
    found = await services_of(request).management.server_stats()
    return ServerStats(stats=msgspec.convert(found, ServerFigures))


@get(f"{BASE}/stats/backend", responses=documented(400, 401, 403, 404, 429, 503))
async def backend_stats(
    request: AdminRequest, upstream: UpstreamName = None, backend_id: BackendId = None
) -> BackendStats:
    """Shows how a backend is doing, or those of an upstream, or all."""
    if backend_id and not upstream:
        raise answers.bad_request("upstream: missing, and only with it does backend_id name a backend")
    async with refusing():
        found = await services_of(request).management.backend_stats(upstream or None, backend_id or None)
    return BackendStats(backends=msgspec.convert(found, list[BackendFigures]))


@post(
    f"{BASE}/report",
    status_code=200,
    operation_class=takes_one_of({JSON: (_schema(), _REPORT)}),
    responses=documented(400, 401, 403, 404, 408, 413, 415, 429, 503),
)
async def report(request: AdminRequest) -> Reported:
    """Takes what a backend says of its load: it counts for a minute, for `performance_least_connections_weight`.

    It is no action of an operator, so the log of actions does not have it.
    """
    given = await body_of(request, Report)
    async with refusing():
        await services_of(request).management.report(given.upstream, given.backend_id, given.performance)
    return Reported(message="Reported.")


PRIVATE = [server_stats, backend_stats, report]
