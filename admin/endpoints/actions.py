"""The log of actions: what was done through the admin API, by whom and from where."""

from typing import Any

import msgspec
from litestar import get

from admin.answers import Answer, documented
from admin.context import AdminRequest, services_of
from admin.endpoints.pages import AfterNumber, Limit, Since, TextOrNone, plain_or_none
from admin.ports import Action


class ActionView(msgspec.Struct, frozen=True):
    """One action; `at` in milliseconds since 1970, `outcome` is `done`, `failed` or the word of a refusal."""

    id: int
    at: int
    actor: str
    address: str
    action: str
    target: str
    detail: dict[str, Any]
    outcome: str


class Actions(Answer, frozen=True, kw_only=True):
    """Newest first; `next`, where there is more, is what to give as `after`."""

    actions: list[ActionView]
    next: int | None


@get("/api/actions", responses=documented(400, 401, 403, 429, 503))
async def list_actions(
    request: AdminRequest,
    after: AfterNumber = None,
    limit: Limit = 100,
    actor: TextOrNone = None,
    action: TextOrNone = None,
    since: Since = None,
) -> Actions:
    """Lists actions, newest first: all, or those of an actor, of a kind, or since a time (milliseconds since 1970)."""
    found = await services_of(request).actions.list(
        after=after,
        limit=limit + 1,
        actor=plain_or_none("actor", actor),
        action=plain_or_none("action", action),
        since=since,
    )
    shown = [_view(action) for action in found[:limit]]
    return Actions(actions=shown, next=shown[-1].id if len(found) > limit else None)


def _view(action: Action) -> ActionView:
    return ActionView(
        action.id,
        action.at,
        action.actor,
        action.address,
        action.action,
        action.target,
        dict(action.detail),
        action.outcome,
    )


PRIVATE = [list_actions]
