"""The admin API as an ASGI application: its endpoints, its guard, its error answers and its OpenAPI document."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from litestar import Litestar, Response, Router
from litestar.datastructures import State
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import Message, Scope

from admin import request_bodies
from admin.answers import INTERNAL, OF_STATUS, UNAVAILABLE, Problem, Refusal
from admin.auth import Authentication, SecureCookies, authenticated
from admin.context import AdminRequest, Services
from admin.endpoints import (
    actions,
    explain,
    health,
    key_batches,
    key_pool_config,
    key_statistics,
    key_tests,
    keys,
    live_log,
    login,
    mappings,
    metrics,
    pool_groups,
    statistics,
    versions,
    workers,
)
from admin.readiness import Probe, Readiness, View
from admin.rules import cookies
from admin.schema_page import SchemaPage
from proxy.version import VERSION

log = logging.getLogger("relaygate")

Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]

SECURITY_FIELDS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (
        b"content-security-policy",
        b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'",
    ),
]
_SCHEMES = {
    "bearer": SecurityScheme(type="http", scheme="bearer"),
    "key": SecurityScheme(type="apiKey", name="x-admin-key", security_scheme_in="header"),
    "session": SecurityScheme(type="apiKey", name=cookies.PLAIN_NAME, security_scheme_in="cookie"),
}


# Litestar says of a missing parameter only this.
_MISSING = re.compile(r"Missing required \w+ parameter '(\w+)'")


def create_app(
    services: Services,
    *,
    token_hash: str | None,
    probes: Mapping[str, Probe],
    views: Mapping[str, Callable[[], View]] | None = None,
    secure_cookies: SecureCookies = SecureCookies.AS_REQUESTED,
    trusted_proxies: Sequence[str] = (),
    outages: Sequence[type[Exception]] = (),
    lifespan: Sequence[Lifespan] = (),
) -> Litestar:
    """Returns the application. `token_hash` is of `rules.tokens.digest`; None locks everything but health (503).

    `probes` ask a component each whether it is there; they raise where it is not. `views` tell of others, which do not
    decide. `trusted_proxies` are the networks of proxies in front. `outages` are the exceptions by which a service says
    that the database cannot be reached (503). `lifespan` opens and closes what the services need.
    """
    private = Router(
        "/",
        route_handlers=[
            *login.PRIVATE,
            *mappings.PRIVATE,
            *versions.PRIVATE,
            *actions.PRIVATE,
            *statistics.PRIVATE,
            *workers.PRIVATE,
            *metrics.PRIVATE,
            *keys.PRIVATE,
            *key_batches.PRIVATE,
            *key_tests.PRIVATE,
            *key_statistics.PRIVATE,
            *key_pool_config.PRIVATE,
            *pool_groups.PRIVATE,
            *live_log.PRIVATE,
            *explain.PRIVATE,
        ],
        guards=[authenticated],
        security=[{name: []} for name in _SCHEMES],
    )
    return Litestar(
        route_handlers=[*health.PUBLIC, *login.PUBLIC, private],
        state=State(
            {
                "services": services,
                "authentication": Authentication(services.settings, token_hash, secure_cookies, trusted_proxies),
                "readiness": Readiness(probes, views),
            }
        ),
        lifespan=list(lifespan),
        request_max_body_size=request_bodies.BYTES_MAX,
        exception_handlers={
            Refusal: _refused,
            HTTPException: _refused_by_litestar,
            **dict.fromkeys(outages, _unavailable),
            Exception: _failed,
        },
        before_send=[_add_security_fields],
        openapi_config=OpenAPIConfig(
            title="Relaygate admin API",
            version=VERSION,
            path="/schema",
            render_plugins=[SchemaPage(), JsonRenderPlugin()],
            components=Components(security_schemes=dict(_SCHEMES)),
            use_handler_docstrings=True,
        ),
        # None of these may be switched on from the environment (LITESTAR_DEBUG, LITESTAR_PDB).
        debug=False,
        pdb_on_exception=False,
        logging_config=None,
    )


def _refused(_: AdminRequest, refusal: Refusal) -> Response[Problem]:
    return Response(refusal.problem, status_code=refusal.status, headers=refusal.headers)


def _refused_by_litestar(_: AdminRequest, error: HTTPException) -> Response[Problem]:
    """What Litestar itself refuses: its texts are its own, so only the names of wrong parameters are taken from it."""
    problem = OF_STATUS.get(error.status_code)
    if problem is None:
        log.error("the admin API failed: %s", type(error).__name__)
        return Response(INTERNAL, status_code=500)
    if isinstance(error, ValidationException):
        problem = Problem(error=problem.error, message=wrong_parameters(error))
    return Response(problem, status_code=error.status_code, headers=dict(error.headers or {}))


def wrong_parameters(error: ValidationException) -> str:
    """Returns which parameters are wrong or missing, and how."""
    if isinstance(error.extra, list) and error.extra:
        return "; ".join(f"{wrong.get('key', 'request')}: {wrong['message']}" for wrong in error.extra)
    missing = _MISSING.match(error.detail)
    return f"{missing[1]}: missing" if missing else OF_STATUS[400].message


def _unavailable(_: AdminRequest, __: Exception) -> Response[Problem]:
    return Response(UNAVAILABLE, status_code=503)


def _failed(request: AdminRequest, error: Exception) -> Response[Problem]:
    """One line: a foreign exception's text may hold a secret, so the log has its kind and its place."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = "" if place is None else f" at {place.tb_frame.f_code.co_qualname}:{place.tb_lineno}"
    log.error("the admin API failed: %s %s: %s%s", request.method, request.url.path, type(error).__name__, where)
    return Response(INTERNAL, status_code=500)


async def _add_security_fields(message: Message, _: Scope) -> None:
    if message["type"] == "http.response.start":
        message["headers"] = [*message["headers"], *SECURITY_FIELDS]
