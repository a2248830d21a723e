"""Whether the control plane lives, and whether what it depends on does. Anybody may ask, so no address is told."""

from typing import Literal

import msgspec
from litestar import Response, get
from litestar.openapi.datastructures import ResponseSpec

from admin.context import AdminRequest
from admin.readiness import Health, Readiness


class Alive(msgspec.Struct, frozen=True):
    status: Literal["ok"] = "ok"


class ComponentView(msgspec.Struct, frozen=True, omit_defaults=True):
    """`since` is when it became so, in seconds since 1970.

    Of workers, `count` is how many are there; of backends, how many are checked, and `unhealthy` how many of those are
    so: `backends` is down where an upstream has no healthy one among them. Of events and the ledger, `waiting` is how
    many entries are not in the database yet, `lag_s` for how long the oldest has not. `oauth` is down where the access
    token is not kept fresh.
    """

    state: Health
    since: int
    count: int | None = None
    unhealthy: int | None = None
    waiting: int | None = None
    lag_s: float | None = None


class Ready(msgspec.Struct, frozen=True):
    """Ready if the database and Redis are there; the other components do not decide."""

    status: Health
    components: dict[str, ComponentView]


@get("/health", security=[{}])
async def health() -> Alive:
    """Says that the process answers."""
    return Alive()


@get("/readyz", security=[{}], responses={503: ResponseSpec(Ready, description="Database or Redis is down.")})
async def readyz(request: AdminRequest) -> Response[Ready]:
    """Says which components answer."""
    readiness: Readiness = request.app.state.readiness
    components = await readiness.components()
    views = {
        name: ComponentView(component.health, component.since_s, **readiness.numbers(name))
        for name, component in components.items()
    }
    ready = readiness.ready()
    return Response(Ready(Health.OK if ready else Health.DOWN, views), status_code=200 if ready else 503)


PUBLIC = [health, readyz]
