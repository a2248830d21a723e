"""The backends of upstreams, as reference 004 documents them.

Which backend is meant may stand in the query or in a JSON body.
"""

from typing import Annotated, Any

import msgspec
from litestar import delete, get, post, put
from litestar.params import Parameter

from admin import answers
from admin.answers import Answer, documented
from admin.context import AdminRequest, recorded, refusing, services_of
from admin.request_bodies import JSON, body_of, may_take, optional_body_of, schema_of, takes_one_of
from admin.rules.speedmimi_documents import BackendDocument

BASE = "/api/v1/backends"
NAME_MAX = 400

UpstreamName = Annotated[str | None, Parameter(max_length=NAME_MAX, description="The name of an upstream.")]
BackendId = Annotated[str | None, Parameter(max_length=NAME_MAX, description="The id of a backend of the upstream.")]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_MAX)]


class HealthView(msgspec.Struct, frozen=True):
    """What checks have told, and since when; times in milliseconds since 1970."""

    healthy: bool
    since: int
    checked: int
    reason: str


class BackendView(BackendDocument, frozen=True, kw_only=True):
    """A backend and its health: null where nothing is known of it, as without a check."""

    health: HealthView | None


class Backends(Answer, frozen=True, kw_only=True):
    """By the names of their upstreams."""

    backends: dict[str, list[BackendView]]


class ChangedBackend(Answer, frozen=True, kw_only=True):
    """The backend as it is now."""

    message: str
    backend: BackendDocument


class RemovedBackend(Answer, frozen=True, kw_only=True):
    message: str


class BackendName(msgspec.Struct, frozen=True, kw_only=True):
    """Which backend is meant, where the query does not say it."""

    upstream: Name | None = None
    backend_id: Name | None = None


class BackendBody(msgspec.Struct, frozen=True):
    """An upstream's name, and what is said of a backend."""

    upstream: Name
    backend: dict[str, Any]


def _schema(*required: str) -> dict[str, Any]:
    """Of a backend with the fields that have to be there."""
    backend = schema_of(BackendDocument) | {"required": list(required)}
    name = {"type": "string", "minLength": 1, "maxLength": NAME_MAX}
    properties = {"upstream": name, "backend": backend}
    return {"type": "object", "properties": properties, "required": ["upstream", "backend"]}


_ERRORS = documented(400, 401, 403, 404, 429, 503)
_BODY_ERRORS = documented(400, 401, 403, 404, 408, 413, 415, 429, 503)
_NAMED = {"upstream": "default", "backend_id": "backend1"}
_NEW = {"upstream": "default", "backend": {"id": "backend3", "host": "b3.example.com", "port": 8083, "weight": 50}}
_CHANGE = {"upstream": "default", "backend": {"id": "backend1", "weight": 200}}


@get(BASE, responses=_ERRORS)
async def list_backends(request: AdminRequest, upstream: UpstreamName = None) -> Backends:
    """Lists the backends of an upstream, or of all, and what is known of their health."""
    async with refusing():
        found = await services_of(request).management.backends(upstream or None)
    return Backends(backends=msgspec.convert(found, dict[str, list[BackendView]]))


@post(
    f"{BASE}/add",
    status_code=200,
    operation_class=takes_one_of({JSON: (_schema("host"), _NEW)}),
    responses=documented(409) | _BODY_ERRORS,
)
async def add_backend(request: AdminRequest) -> ChangedBackend:
    """Adds a backend to an upstream, which is made where it is not there; 409 where it has one of this id or URL."""
    body = await body_of(request, BackendBody)
    async with recorded(request, "backend.add", _target(body.upstream, body.backend.get("id"))) as caller:
        now = await services_of(request).management.add_backend(body.upstream, body.backend, caller.actor)
    return ChangedBackend(message="Added.", backend=msgspec.convert(now, BackendDocument))


@put(
    f"{BASE}/update",
    operation_class=takes_one_of({JSON: (_schema("id"), _CHANGE)}),
    responses=documented(409) | _BODY_ERRORS,
)
async def change_backend(request: AdminRequest) -> ChangedBackend:
    """Changes what is given of the backend of an id; the rest stays as it is.

    `active: true` ends a draining, unless `draining` is given too.
    """
    body = await body_of(request, BackendBody)
    detail = {"fields": sorted(body.backend)[:50]}
    async with recorded(request, "backend.change", _target(body.upstream, body.backend.get("id")), detail) as caller:
        now = await services_of(request).management.update_backend(body.upstream, body.backend, caller.actor)
    return ChangedBackend(message="Changed.", backend=msgspec.convert(now, BackendDocument))


@delete(
    f"{BASE}/remove",
    status_code=200,
    operation_class=may_take(BackendName, _NAMED),
    responses=documented(409) | _BODY_ERRORS,
)
async def remove_backend(
    request: AdminRequest, upstream: UpstreamName = None, backend_id: BackendId = None
) -> RemovedBackend:
    """Removes a backend; requests that it has go on."""
    name, id_ = await _named(request, upstream, backend_id)
    async with recorded(request, "backend.remove", _target(name, id_)) as caller:
        await services_of(request).management.remove_backend(name, id_, caller.actor)
    return RemovedBackend(message="Removed.")


@post(
    f"{BASE}/disconnect",
    status_code=200,
    operation_class=may_take(BackendName, _NAMED),
    responses=documented(409) | _BODY_ERRORS,
)
async def disconnect_backend(
    request: AdminRequest, upstream: UpstreamName = None, backend_id: BackendId = None
) -> ChangedBackend:
    """Drains a backend: it gets no new requests, and those that it has go on.

    An update with `active: true` undoes it.
    """
    name, id_ = await _named(request, upstream, backend_id)
    async with recorded(request, "backend.disconnect", _target(name, id_)) as caller:
        now = await services_of(request).management.disconnect_backend(name, id_, caller.actor)
    return ChangedBackend(message="Draining.", backend=msgspec.convert(now, BackendDocument))


def _target(upstream: str, backend_id: object) -> str:
    """What the log of actions calls a backend."""
    return f"{upstream}/{backend_id}" if isinstance(backend_id, str) and backend_id else upstream


async def _named(request: AdminRequest, upstream: str | None, backend_id: str | None) -> tuple[str, str]:
    """Which backend query and body name. Raises Refusal."""
    body = await optional_body_of(request, BackendName) or BackendName()
    return _one("upstream", upstream, body.upstream), _one("backend_id", backend_id, body.backend_id)


def _one(name: str, in_query: str | None, in_body: str | None) -> str:
    if in_query and in_body and in_query != in_body:
        raise answers.bad_request(f"{name}: found one in the query and another one in the body")
    found = in_query or in_body
    if not found:
        raise answers.bad_request(f"{name}: missing")
    return found


PRIVATE = [list_backends, add_backend, change_backend, remove_backend, disconnect_backend]
