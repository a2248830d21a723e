"""The admin API as an ASGI application: its endpoints, its guard, its error answers and its OpenAPI document."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from litestar import Litestar, Request, Response, Router
from litestar.datastructures import State
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException, ValidationException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import Message, Scope

from admin import flow_answers, request_bodies
from admin.answers import INTERNAL, OF_STATUS, UNAVAILABLE, Problem, Refusal, place_of
from admin.auth import Authentication, SecureCookies, authenticated
from admin.context import AdminRequest, Services
from admin.endpoints import (
    actions,
    backend_statistics,
    backends,
    balances,
    balancing_config,
    explain,
    flow_logs,
    flow_quota,
    flow_tokens,
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


PRIVATE = ("/admin", "/api", flow_answers.BASE)
"""Where whoever may not use the API is told so whatever he asks for, but for the logins."""
LOGINS = frozenset(path for handler in login.PUBLIC for path in handler.paths)
_REFUSED = "refused"

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
            *balances.PRIVATE,
            *key_pool_config.PRIVATE,
            *pool_groups.PRIVATE,
            *live_log.PRIVATE,
            *explain.PRIVATE,
            *flow_tokens.PRIVATE,
            *flow_logs.PRIVATE,
            *flow_quota.PRIVATE,
            *balancing_config.PRIVATE,
            *backends.PRIVATE,
            *backend_statistics.PRIVATE,
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
                "leaving": [],
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
        after_exception=[_authenticate_first],
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


def _refused(request: AdminRequest, refusal: Refusal) -> Response[Any]:
    return _told(request, refusal.problem, refusal.status, refusal.headers, refusal.field)


def _told(
    request: AdminRequest,
    problem: Problem,
    status: int,
    headers: Mapping[str, str] | None = None,
    field: str | None = None,
) -> Response[Any]:
    """A problem, in the envelope that its path has."""
    shaped = flow_answers.problem(request, problem, field) if flow_answers.is_flow(request.url.path) else problem
    return Response(shaped, status_code=status, headers=headers)


async def _authenticate_first(error: Exception, scope: Scope) -> None:
    """Notes who is not to learn that a path or a method is not there: guards are asked on those alone that are."""
    path = scope["path"].rstrip("/")
    if not isinstance(error, (NotFoundException, MethodNotAllowedException)) or scope.get("user") is not None:
        return
    if path in LOGINS or not path.startswith(PRIVATE):
        return
    request: AdminRequest = Request(scope)
    try:
        await authenticated(request, None)
    except Exception as refusal:  # a Refusal, or the database's, which knows the sessions
        scope["state"][_REFUSED] = refusal


def _refused_by_litestar(request: AdminRequest, error: HTTPException) -> Response[Any]:
    """What Litestar itself refuses: its texts are its own, so only the names of wrong parameters are taken from it."""
    match request.scope["state"].get(_REFUSED):
        case Refusal() as refusal:
            return _refused(request, refusal)
        case Exception() as outage:
            return _unavailable(request, outage)
    problem = OF_STATUS.get(error.status_code)
    if problem is None:
        log.error("the admin API failed: %s", type(error).__name__)
        return _told(request, INTERNAL, 500)
    if isinstance(error, ValidationException):
        problem = Problem(error=problem.error, message=wrong_parameters(error))
    return _told(request, problem, error.status_code, dict(error.headers or {}))


def wrong_parameters(error: ValidationException) -> str:
    """Returns which parameters are wrong or missing, and how."""
    if isinstance(error.extra, list) and error.extra:
        return "; ".join(f"{wrong.get('key', 'request')}: {wrong['message']}" for wrong in error.extra)
    missing = _MISSING.match(error.detail)
    return f"{missing[1]}: missing" if missing else OF_STATUS[400].message


def _unavailable(request: AdminRequest, _: Exception) -> Response[Any]:
    return _told(request, UNAVAILABLE, 503)


def _failed(request: AdminRequest, error: Exception) -> Response[Any]:
    """One line: a foreign exception's text may hold a secret, so the log has its kind and its place."""
    path = request.scope.get("path_template") or request.url.path  # the path itself may have an access token in it
    log.error("the admin API failed: %s %s: %s%s", request.method, path, type(error).__name__, place_of(error))
    return _told(request, INTERNAL, 500)


async def _add_security_fields(message: Message, scope: Scope) -> None:
    if message["type"] == "http.response.start":
        message["headers"] = [*message["headers"], *SECURITY_FIELDS, *flow_answers.fields_of(scope)]
