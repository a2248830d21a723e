"""Access tokens, as reference 002 documents them. What is beyond it: pages, states, bounds, units, ids in paths.

A path names a token by its id or by its text. The text is in no answer but that of its creation, and in no log.
"""

import secrets
from collections.abc import Sequence
from typing import Annotated

from litestar import delete, get, post, put
from litestar.params import HeaderParameter, Parameter, QueryParameter

from admin import answers
from admin.answers import Refusal
from admin.context import AdminRequest, recorded, token_services_of
from admin.endpoints.flow_views import OneQuota, OneToken, TokenView, quota_view, view
from admin.endpoints.pages import TextOrNone, plain_or_none
from admin.flow_answers import BASE, REQUEST_ID_BYTES, FlowAnswer, documented, stamp
from admin.request_bodies import body_of, takes, takes_some_of
from admin.rules.access_tokens import ID_PREFIX, NewToken, TokenChange
from admin.rules.credential_marks import masked
from admin.rules.token_records import StoredToken, Wanted
from proxy.rules.access_tokens import State
from proxy.rules.request_id import sane

TOKENS = BASE + "/tokens"
ONE = TOKENS + "/{token:str}"
PAGE_MAX = 1_000_000
PAGE_SIZE_MAX = 1000
PAGE_SIZE = 100

TokenName = Annotated[
    str, Parameter(pattern=r"^[A-Za-z0-9_-]{1,128}$", description="The id of an access token, or the token itself.")
]
NameOrNone = Annotated[
    str | None, QueryParameter(pattern=r"^[A-Za-z0-9_-]{1,128}$", description="An access token, or its id.")
]
OfState = Annotated[
    State | None, QueryParameter(name="state", description="Those of one state; without it, all but deleted ones.")
]
Page = Annotated[int, Parameter(ge=1, le=PAGE_MAX)]
PageSize = Annotated[int, Parameter(ge=1, le=PAGE_SIZE_MAX, description="How many to return at most.")]
IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        max_length=128,
        description="Said again with the same change of a quota, it is done once. The ledger has it as request_id.",
    ),
]

_NEW = {
    "ws_id": "test_workspace",
    "email": "test@example.com",
    "operation": "unlimited",
    "quota_type": "count",
    "total_quota": 10,
    "rate_limit_per_minute": 60,
}
_CHANGE = {"operation": "unlimited", "quota_operation": "add", "quota_amount": 50}
_ERRORS = documented(400, 401, 403, 429, 503)
_ONE_ERRORS = documented(400, 401, 403, 404, 429, 503)
_BODY_ERRORS = documented(400, 401, 403, 408, 413, 415, 429, 503)
_CHANGE_ERRORS = documented(400, 401, 403, 404, 408, 413, 415, 429, 503)


class Tokens(FlowAnswer, frozen=True, kw_only=True):
    """Newest first. `count` is how many are here, `total` how many there are on all pages."""

    data: list[TokenView]
    count: int
    total: int
    page: int
    page_size: int
    total_pages: int


class Done(FlowAnswer, frozen=True, kw_only=True):
    """It was done."""


@post(TOKENS, status_code=200, operation_class=takes(NewToken, _NEW), responses=_BODY_ERRORS)
async def create_token(request: AdminRequest) -> OneToken:
    """Makes an access token; its text is shown this once.

    `operation` says when it ends: in `days` (add), at `specific_date` (set) or never (unlimited). A `quota_type` of
    count or hybrid needs `total_quota`; count has no end in time, hybrid has both. Without `rate_limit_burst`, a second
    takes a sixtieth of `rate_limit_per_minute`, and 10 at least.
    """
    new = await body_of(request, NewToken)
    detail: dict[str, str] = {"email": new.email}
    async with recorded(request, "token.create", new.ws_id, detail):
        made = await token_services_of(request).tokens.create(new=new)
        detail["id"] = made.edited.token.id
    message = _told("Token created.", is_published=made.edited.is_published)
    return OneToken(data=view(made.edited.token, made.text), message=message, **stamp(request))


@get(TOKENS, responses=_ERRORS)
async def list_tokens(
    request: AdminRequest,
    token: NameOrNone = None,
    ws_id: TextOrNone = None,
    email: TextOrNone = None,
    of_state: OfState = None,
    page: Page = 1,
    page_size: PageSize = PAGE_SIZE,
) -> Tokens:
    """Lists access tokens, newest first: one (also a deleted one), or those of a workspace, an email or a state."""
    wanted = Wanted(plain_or_none("ws_id", ws_id), plain_or_none("email", email), of_state)
    tokens = token_services_of(request).tokens
    if token is not None:
        one = await tokens.find(name=token)
        found: Sequence[StoredToken] = [one] if one is not None and _is_wanted(one, wanted) and page == 1 else []
        total = len(found)
    else:
        offset = (page - 1) * page_size
        found = await tokens.list(wanted=wanted, limit=page_size, offset=offset)
        is_last = len(found) < page_size and (found or page == 1)
        total = offset + len(found) if is_last else await tokens.count(wanted=wanted)
    return Tokens(
        data=[view(one) for one in await tokens.live(tokens=found)],
        count=len(found),
        total=total,
        page=page,
        page_size=page_size,
        total_pages=-(-total // page_size),
        **stamp(request),
    )


@put(ONE, operation_class=takes_some_of(TokenChange, _CHANGE), responses=_CHANGE_ERRORS)
async def change_token(request: AdminRequest, token: TokenName, idempotency_key: IdempotencyKey = None) -> OneToken:
    """Changes what is given of an access token; the rest stays as it is.

    `operation` changes when it ends. `quota_operation` changes the quota by `quota_amount`: add makes total and
    remainder more, set sets the remainder, reset makes the remainder the total, or both the amount. Another
    `quota_type` needs a quota_operation.
    """
    change = await body_of(request, TokenChange)
    given = {name: value for name in change.__struct_fields__ if (value := getattr(change, name)) is not None}
    if not given:
        raise answers.bad_request("the body is empty, expected operation, quota_operation or what is to change")
    # Not the request's own id: who says the same of several requests may mean several changes all the same.
    request_id = _key(idempotency_key) or secrets.token_hex(REQUEST_ID_BYTES)
    if change.quota_operation is not None:
        given["request_id"] = request_id
    target = await _target(request, token)
    async with recorded(request, "token.change", target, given):
        edited = await token_services_of(request).tokens.update(id=target, change=change, request_id=request_id)
    now = edited.token
    if not now.is_live:
        (now,) = await token_services_of(request).tokens.live(tokens=[now])
    message = _told("Token changed.", is_published=edited.is_published)
    return OneToken(data=view(now), message=message, **stamp(request))


@delete(ONE, status_code=200, responses=_ONE_ERRORS)
async def delete_token(request: AdminRequest, token: TokenName) -> Done:
    """Deletes an access token: it opens nothing any more. It and its quota's log stay to be read."""
    target = await _target(request, token)
    async with recorded(request, "token.delete", target):
        edited = await token_services_of(request).tokens.delete(id=target)
    return Done(message=_told("Token deleted.", is_published=edited.is_published), **stamp(request))


@get(ONE + "/quota", responses=_ONE_ERRORS)
async def get_quota(request: AdminRequest, token: TokenName) -> OneQuota:
    """Shows what is left of an access token's quota: just now, or, without Redis, when SQL was last told."""
    found = await existing(request, token)
    (now,) = await token_services_of(request).tokens.live(tokens=[found])
    return OneQuota(data=quota_view(now), **stamp(request))


async def existing(request: AdminRequest, name: str) -> StoredToken:
    """The token of an id or a text, also a deleted one. Raises Refusal."""
    found = await token_services_of(request).tokens.find(name=name)
    if found is None:
        raise answers.no_token()
    return found


async def _target(request: AdminRequest, name: str) -> str:
    """The id that a name stands for; where there is none, as much of the name as may be written down."""
    found = await token_services_of(request).tokens.find(name=name)
    if found is not None:
        return found.id
    return name if name.startswith(ID_PREFIX) else masked(name)


def _is_wanted(token: StoredToken, wanted: Wanted) -> bool:
    terms = token.terms
    found = (terms.ws_id, terms.email, terms.state)
    return all(one is None or one == other for one, other in zip(wanted, found, strict=True))


def _key(given: str | None) -> str | None:
    if given is None or sane(given.encode()):
        return given
    problem = "Idempotency-Key: found other characters than a token may have, expected 1 to 128 letters or digits"
    raise Refusal(400, "bad_request", problem, field="Idempotency-Key")


def _told(message: str, *, is_published: bool) -> str:
    return message if is_published else f"{message} Redis has not been told yet, so workers keep to what was before."


PRIVATE = [create_token, list_tokens, change_token, delete_token, get_quota]
