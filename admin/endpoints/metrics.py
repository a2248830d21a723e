"""Prometheus metrics of all workers together."""

import asyncio

from litestar import Response, get
from litestar.openapi.datastructures import ResponseSpec

from admin.answers import documented
from admin.context import AdminRequest, services_of
from admin.readiness import Health, Readiness
from admin.rules import exposition
from admin.rules.metrics import Known, families
from proxy.version import VERSION

DATABASE = "database"


@get(
    "/metrics",
    media_type=exposition.CONTENT_TYPE,
    responses={
        200: ResponseSpec(str, description="Metrics in Prometheus' text format.", media_type=exposition.CONTENT_TYPE)
    }
    | documented(401, 403, 429, 503),
)
async def metrics(request: AdminRequest) -> Response[str]:
    """Shows the metrics of all workers.

    While the database is down, counters are those that were known last, and `relaygate_component_up` says so.
    """
    services = services_of(request)
    readiness: Readiness = request.app.state.readiness
    up = {name: one.health is Health.OK for name, one in (await readiness.components()).items()}
    counters, of_now = await services.statistics.counters()
    up[DATABASE] = of_now and up.get(DATABASE, True)
    ledger_lag = services.about_tokens.ledger.stream.lag()
    known = Known(counters, services.workers.living(), services.stream.lag(), ledger_lag, up, VERSION)
    # 10,000 series take a second, in which others are to get their turn.
    text = await asyncio.to_thread(lambda: exposition.text(families(known)))
    return Response(text, media_type=exposition.CONTENT_TYPE)


PRIVATE = [metrics]
