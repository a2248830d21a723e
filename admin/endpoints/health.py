"""Whether the control plane lives, and whether what it depends on does. Anybody may ask, so no address is told."""

from typing import Literal

import msgspec
from litestar import Response, get
from litestar.openapi.datastructures import ResponseSpec

from admin.context import AdminRequest
from admin.readiness import Health, Readiness


class Alive(msgspec.Struct, frozen=True):
    status: Literal["ok"] = "ok"


class ComponentView(msgspec.Struct, frozen=True):
    """`since` is when it became so, in seconds since 1970."""

    state: Health
    since: int


class Ready(msgspec.Struct, frozen=True):
    """Ready if all components are."""

    status: Health
    components: dict[str, ComponentView]


@get("/health", security=[{}])
async def health() -> Alive:
    """Says that the process answers."""
    return Alive()


@get("/readyz", security=[{}], responses={503: ResponseSpec(Ready, description="A component is down.")})
async def readyz(request: AdminRequest) -> Response[Ready]:
    """Says which components answer."""
    readiness: Readiness = request.app.state.readiness
    components = await readiness.components()
    ready = all(component.health is Health.OK for component in components.values())
    views = {name: ComponentView(component.health, component.since_s) for name, component in components.items()}
    return Response(Ready(Health.OK if ready else Health.DOWN, views), status_code=200 if ready else 503)


PUBLIC = [health, readyz]
