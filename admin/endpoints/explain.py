"""What became of one request, and why: what was chosen, passed over, tried and answered."""

from typing import Annotated, Any

from litestar import get
from litestar.params import Parameter

from admin import answers
from admin.answers import Answer, documented
from admin.context import AdminRequest, key_services_of
from admin.services.failures import WorkersNotAsked

RequestId = Annotated[
    str,
    Parameter(
        pattern=r"^[!-.0-~]{1,200}$",
        description="As the answer's `X-Request-Id` has it, or `X-Relaygate-Request-Id` where the upstream sent one.",
    ),
]


class Explanation(Answer, frozen=True, kw_only=True):
    """What the worker that had the request remembers of it, with a `message` in words beside the values."""

    data: dict[str, Any]


@get("/admin/explain/{request_id:str}", responses=documented(400, 401, 403, 404, 429, 503))
async def explain(request: AdminRequest, request_id: RequestId) -> Explanation:
    """Explains a request that ended not long ago: each worker remembers its last ones."""
    try:
        found = await key_services_of(request).explainer.explain(request_id=request_id)
    except WorkersNotAsked:
        raise answers.workers_not_asked() from None
    if found is None:
        raise answers.no_explanation()
    return Explanation(data=dict(found))


PRIVATE = [explain]
