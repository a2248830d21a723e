"""Logging in and out: the admin token for a session, as references 003 (`token`) and 000 (`password`) spell it."""

from typing import Annotated, Any

import msgspec
from litestar import Response, post
from litestar.handlers import BaseRouteHandler

from admin.answers import Answer, documented
from admin.auth import Caller, Connection, refuse_other_origins
from admin.context import DONE, AdminRequest, authentication_of, caller_of, record, services_of
from admin.request_bodies import body_of, takes
from admin.rules import cookies
from admin.sessions import LIFETIME_S, label

Secret = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


class AdminLogin(msgspec.Struct, frozen=True):
    """The admin token."""

    token: Secret


class Login(msgspec.Struct, frozen=True):
    """The admin token, which is the password here."""

    password: Secret


class LoggedIn(Answer, frozen=True, kw_only=True):
    """The session is in the cookie, for `expires_in_s` seconds."""

    message: str = "Logged in."
    expires_in_s: int = LIFETIME_S


class LoggedOut(Answer, frozen=True, kw_only=True):
    message: str = "Logged out."


def from_here(connection: Connection, _: BaseRouteHandler) -> None:
    """Refuses a login that a page of another origin had the browser send (a Litestar guard)."""
    refuse_other_origins(connection)


_ERRORS = documented(400, 401, 403, 408, 413, 415, 429, 503)


@post(
    "/api/admin/login",
    status_code=200,
    guards=[from_here],
    operation_class=takes(AdminLogin, {"token": "the admin token"}),
    responses=_ERRORS,
    security=[{}],
)
async def admin_login(request: AdminRequest) -> Response[LoggedIn]:
    """Opens a session for whoever has the admin token."""
    return await _log_in(request, (await body_of(request, AdminLogin)).token)


@post(
    "/api/login",
    status_code=200,
    guards=[from_here],
    operation_class=takes(Login, {"password": "the admin token"}),
    responses=_ERRORS,
    security=[{}],
)
async def login(request: AdminRequest) -> Response[LoggedIn]:
    """Opens a session for whoever has the admin token."""
    return await _log_in(request, (await body_of(request, Login)).password)


@post(["/api/admin/logout", "/api/logout"], status_code=200, responses=documented(401, 403, 429, 503))
async def logout(request: AdminRequest) -> Response[LoggedOut]:
    """Ends the session of the cookie, wherever it is used."""
    authentication = authentication_of(request)
    name = authentication.session_in(request)
    if name is not None:
        await authentication.sessions.close(name)
    await record(services_of(request).actions, caller_of(request), "logout", "", DONE)
    return _with_cookie(request, LoggedOut(), "", 0)


async def _log_in(request: AdminRequest, token: str) -> Response[LoggedIn]:
    authentication = authentication_of(request)
    address = authentication.address_of(request)
    name = await authentication.log_in(token, address)
    await record(services_of(request).actions, Caller(label(name), address), "login", "", DONE)
    return _with_cookie(request, LoggedIn(), name, LIFETIME_S)


def _with_cookie(request: AdminRequest, answer: Any, value: str, seconds: int) -> Response[Any]:
    name = authentication_of(request).cookie_name(request)
    return Response(answer, headers={"Set-Cookie": cookies.kept(name, value, seconds)})


PUBLIC = [admin_login, login]
PRIVATE = [logout]
