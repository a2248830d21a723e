"""Pool groups, as reference 001 documents them."""

from typing import Annotated

import msgspec
from litestar import delete, get, post, put

from admin import answers
from admin.answers import Answer, documented
from admin.context import AdminRequest, key_services_of, recorded
from admin.endpoints.pages import GroupId
from admin.request_bodies import body_of, fields_of, takes, takes_some_of
from admin.rules.key_records import GroupFigures
from proxy.config import PoolGroup
from proxy.sources import values

BASE = "/admin/pool-groups"
ONE = BASE + "/{group_id:str}"

Name = Annotated[str, msgspec.Meta(min_length=0, max_length=100)]
Priority = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class NewPoolGroup(msgspec.Struct, frozen=True, kw_only=True):
    """A pool group. Of several tiers, those of lower priority numbers are used first."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    name: Name = ""
    priority: Priority = PoolGroup().priority


class PoolGroupChange(msgspec.Struct, frozen=True, kw_only=True):
    """What can be changed of a pool group."""

    name: Name
    priority: Priority


class PoolGroupView(msgspec.Struct, frozen=True):
    """A pool group and its keys; `usage_rate` is which part of them is active."""

    id: str
    name: str
    priority: int
    total: int
    active: int
    disabled: int
    banned: int
    usage_rate: float


class PoolGroups(Answer, frozen=True, kw_only=True):
    """By priority."""

    data: list[PoolGroupView]


class ChangedGroup(Answer, frozen=True, kw_only=True):
    message: str
    data: PoolGroupView


class Moved(msgspec.Struct, frozen=True):
    """`moved` is how many keys are of `default` now."""

    id: str
    moved: int


class DeletedGroup(Answer, frozen=True, kw_only=True):
    message: str
    data: Moved


_ERRORS = documented(401, 403, 429, 503)
_BODY_ERRORS = documented(400, 401, 403, 408, 413, 415, 429, 503)


@get(BASE, responses=_ERRORS)
async def list_groups(request: AdminRequest) -> PoolGroups:
    """Lists the pool groups and how many keys each has."""
    return PoolGroups(data=[view(group) for group in await key_services_of(request).groups.list()])


@post(
    BASE,
    operation_class=takes(NewPoolGroup, {"id": "premium", "name": "paid", "priority": 3}),
    responses=documented(409) | _BODY_ERRORS,
)
async def create_group(request: AdminRequest) -> ChangedGroup:
    """Adds a pool group; 409 where there is one of this id."""
    given = await body_of(request, NewPoolGroup)
    try:
        values.group_id(given.id)
    except ValueError as error:
        raise answers.bad_request(f"id: expected {error}") from None
    group = PoolGroup(name=_plain(given.name), priority=given.priority)
    async with recorded(request, "pool-group.create", given.id) as caller:
        created = await key_services_of(request).groups.create(id=given.id, group=group, actor=caller.actor)
    return ChangedGroup(message="Added.", data=view(created))


@put(
    ONE,
    operation_class=takes_some_of(PoolGroupChange, {"priority": 2}),
    responses=documented(404) | _BODY_ERRORS,
)
async def change_group(request: AdminRequest, group_id: GroupId) -> ChangedGroup:
    """Changes name or priority of a pool group."""
    given = await fields_of(request, PoolGroupChange)
    if not given:
        raise answers.bad_request("the body is empty, expected name or priority")
    _plain(given.get("name", ""))
    async with recorded(request, "pool-group.change", group_id, given) as caller:
        changed = await key_services_of(request).groups.update(
            id=group_id, change=lambda group: msgspec.structs.replace(group, **given), actor=caller.actor
        )
    return ChangedGroup(message="Changed.", data=view(changed))


@delete(ONE, status_code=200, responses=documented(400, 404, 409) | _ERRORS)
async def delete_group(request: AdminRequest, group_id: GroupId) -> DeletedGroup:
    """Deletes a pool group; its keys are of `default` from then on, which cannot be deleted."""
    detail: dict[str, int] = {}
    async with recorded(request, "pool-group.delete", group_id, detail) as caller:
        moved = await key_services_of(request).groups.delete(id=group_id, actor=caller.actor)
        detail["moved"] = moved
    return DeletedGroup(message=f"Deleted; {moved} keys are of default now.", data=Moved(group_id, moved))


def view(group: GroupFigures) -> PoolGroupView:
    rate = round(group.active / group.total, 4) if group.total else 0.0
    return PoolGroupView(*group, rate)


def _plain(name: str) -> str:
    if name and not name.isprintable():
        raise answers.bad_request("name: found control characters, expected plain text")
    return name


PRIVATE = [list_groups, create_group, change_group, delete_group]
