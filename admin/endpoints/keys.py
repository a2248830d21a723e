"""Keys, one at a time, as reference 001 documents them. What is beyond it: pages by key, filters, `PUT`."""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from litestar import delete, get, patch, post, put
from litestar.params import Parameter, QueryParameter

from admin import answers
from admin.answers import Answer, Refusal, documented
from admin.context import AdminRequest, key_services_of, recorded
from admin.endpoints.key_views import ChangedKey, KeyView, OneKey, view
from admin.endpoints.pages import LIMIT_MAX, KeyId, Text, TextOrNone, plain, plain_or_none
from admin.key_ports import KeyRecord
from admin.request_bodies import body_of, fields_of, may_take, optional_body_of, takes, takes_some_of
from admin.rules.credential_marks import masked
from admin.rules.key_lists import NOTES_LENGTH_MAX, SECRET_LENGTH_MAX, InvalidLine, NewCredential, checked
from admin.rules.key_records import Position, Shown, Status, Wanted
from admin.services.failures import NoSuchGroup
from proxy.rules.credentials import DEFAULT_GROUP

BASE = "/admin/keys"
ONE = BASE + "/{key_id:str}"
PAGE_MAX = 1_000_000

OfStatus = Annotated[Shown, QueryParameter(description="Those of one status, or all.")]
Page = Annotated[int, Parameter(ge=1, le=PAGE_MAX)]
Limit = Annotated[int, Parameter(ge=1, le=LIMIT_MAX, description="How many to return at most.")]
After = Annotated[
    str | None,
    Parameter(pattern=r"^[0-9]{1,15}-[A-Za-z0-9_.-]{1,64}$", description="`next` of the page before."),
]  # fmt: skip
Notes = Annotated[str, msgspec.Meta(min_length=0, max_length=NOTES_LENGTH_MAX)]
Group = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Settable = Literal["active", "disabled"]


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key, what to remember of it, and its pool group."""

    key: Annotated[str, msgspec.Meta(min_length=1, max_length=SECRET_LENGTH_MAX)]
    notes: Notes = ""
    group: Group = msgspec.field(name="poolGroup", default=DEFAULT_GROUP)

    def __repr__(self) -> str:
        return f"NewKey({masked(self.key)!r})"


class KeyChange(msgspec.Struct, frozen=True, kw_only=True):
    """What can be changed of a key."""

    notes: Notes
    group: Group = msgspec.field(name="poolGroup")
    status: Settable


class NewNotes(msgspec.Struct, frozen=True):
    notes: Notes


class NewGroup(msgspec.Struct, frozen=True):
    group: Group = msgspec.field(name="poolGroup")


class NewStatus(msgspec.Struct, frozen=True):
    status: Settable


class Pagination(msgspec.Struct, frozen=True):
    """`next`, where there is more, is what to give as `after`."""

    page: int
    limit: int
    total: int
    total_pages: int
    next: str | None


class KeyPage(msgspec.Struct, frozen=True):
    keys: list[KeyView]
    pagination: Pagination


class Keys(Answer, frozen=True, kw_only=True):
    """Oldest first."""

    data: KeyPage


class Deleted(msgspec.Struct, frozen=True):
    id: str


class DeletedKey(Answer, frozen=True, kw_only=True):
    message: str = "Deleted."
    data: Deleted


_ERRORS = documented(401, 403, 429, 503)
_BODY_ERRORS = documented(400, 401, 403, 404, 408, 413, 415, 429, 503)


@get(BASE, responses=documented(400) | _ERRORS)
async def list_keys(
    request: AdminRequest,
    status: OfStatus = Shown.ALL,
    page: Page = 1,
    limit: Limit = 10,
    after: After = None,
    group: TextOrNone = None,
    provider: TextOrNone = None,
    q: Text = "",
) -> Keys:
    """Lists keys, oldest first: all, or those of a status, a pool group or a provider, or by `q`.

    `q` is a part of the id, the notes or the key as it is shown (`sk-a...wxyz`), in whatever case, or a whole key.

    Pages go by number or, which costs the same however far one gets, by `after`.
    """
    found, pagination = await page_of(request, status, page, limit, after, group, provider, q)
    return Keys(data=KeyPage([view(record) for record in found], pagination))


@post(
    BASE,
    operation_class=takes(NewKey, {"key": "fk-xxx", "notes": "the main one", "poolGroup": "main"}),
    responses=documented(409) | _BODY_ERRORS,
)
async def create_key(request: AdminRequest) -> ChangedKey:
    """Adds a key; 409 where it is there already."""
    given = await body_of(request, NewKey)
    new = checked(NewCredential(secret=given.key, notes=given.notes, group=given.group))
    if isinstance(new, InvalidLine):
        raise answers.bad_request(f"key: {new.reason}")
    async with recorded(request, "key.create", masked(new.secret)) as caller:
        try:
            record = await key_services_of(request).keys.create(
                secret=new.secret, notes=new.notes, group=new.group, actor=caller.actor
            )
        except NoSuchGroup:
            raise unknown_group() from None
    return ChangedKey(message="Added.", data=view(record))


@get(ONE, responses=documented(400, 404) | _ERRORS)
async def get_key(request: AdminRequest, key_id: KeyId) -> OneKey:
    """Shows a key."""
    record = await key_services_of(request).keys.get(id=key_id)
    if record is None:
        raise answers.no_key()
    return OneKey(data=view(record))


@put(ONE, operation_class=takes_some_of(KeyChange, {"notes": "spare", "poolGroup": "main"}), responses=_BODY_ERRORS)
async def change_key(request: AdminRequest, key_id: KeyId) -> ChangedKey:
    """Changes what is given of a key; the rest stays as it is."""
    given = await fields_of(request, KeyChange)
    if not given:
        raise answers.bad_request("the body is empty, expected notes, poolGroup or status")
    return await _changed(request, "key.change", key_id, **given)


@patch(ONE + "/notes", operation_class=takes(NewNotes, {"notes": "spare"}), responses=_BODY_ERRORS)
async def change_notes(request: AdminRequest, key_id: KeyId) -> ChangedKey:
    """Changes the notes of a key."""
    return await _changed(request, "key.notes", key_id, notes=(await body_of(request, NewNotes)).notes)


@patch(ONE + "/pool", operation_class=takes(NewGroup, {"poolGroup": "main"}), responses=_BODY_ERRORS)
async def move_key(request: AdminRequest, key_id: KeyId) -> ChangedKey:
    """Moves a key to another pool group."""
    return await _changed(request, "key.pool", key_id, group=(await body_of(request, NewGroup)).group)


@patch(ONE + "/toggle", operation_class=may_take(NewStatus, {"status": "disabled"}), responses=_BODY_ERRORS)
async def toggle_key(request: AdminRequest, key_id: KeyId) -> ChangedKey:
    """Gives a key a status; without a body, an active one is disabled, another one is made active, its ban lifted."""
    given = await optional_body_of(request, NewStatus)
    if given is not None:
        return await _changed(request, "key.toggle", key_id, status=given.status)
    record = await key_services_of(request).keys.get(id=key_id)
    if record is None:
        raise answers.no_key()
    return await _changed(
        request, "key.toggle", key_id, status="disabled" if record.status is Status.ACTIVE else "active"
    )


@delete(ONE, status_code=200, responses=documented(400, 404) | _ERRORS)
async def delete_key(request: AdminRequest, key_id: KeyId) -> DeletedKey:
    """Deletes a key."""
    async with recorded(request, "key.delete", key_id) as caller:
        await key_services_of(request).keys.delete(id=key_id, actor=caller.actor)
    return DeletedKey(data=Deleted(key_id))


async def page_of(
    request: AdminRequest,
    status: Shown,
    page: int,
    limit: int,
    after: str | None,
    group: str | None,
    provider: str | None,
    q: str,
) -> tuple[Sequence[KeyRecord], Pagination]:
    """A page of those keys that the parameters of a list ask for. Raises Refusal."""
    keys = key_services_of(request).keys
    wanted = Wanted(
        None if status is Shown.ALL else Status(status),
        plain_or_none("group", group),
        plain_or_none("provider", provider),
        plain("q", q),
    )
    position = None if after is None else Position(int(after.partition("-")[0]), after.partition("-")[2])
    offset = 0 if position else (page - 1) * limit
    found = await keys.list(wanted=wanted, limit=limit + 1, after=position, offset=offset)
    shown = found[:limit]
    if position is None and len(found) <= limit and (found or not offset):
        total = offset + len(found)  # it is the last page: no need to count
    else:
        total = await keys.count(wanted=wanted)
    more = _position(shown[-1]) if len(found) > limit else None
    return shown, Pagination(page, limit, total, -(-total // limit), more)


def unknown_group() -> Refusal:
    return answers.bad_request("poolGroup: there is no pool group of this id")


async def _changed(
    request: AdminRequest,
    action: str,
    key_id: str,
    *,
    notes: str | None = None,
    group: str | None = None,
    status: str | None = None,
) -> ChangedKey:
    if notes is not None and "\0" in notes:
        raise answers.bad_request("notes: found NUL, expected plain text")
    given = {"notes": notes and "changed", "poolGroup": group, "status": status}
    detail = {name: value for name, value in given.items() if value is not None}
    wanted = None if status is None else Status(status)
    async with recorded(request, action, key_id, detail) as caller:
        try:
            record = await key_services_of(request).keys.update(
                id=key_id,
                actor=caller.actor,
                notes=notes,
                group=group,
                status=wanted,
            )
        except NoSuchGroup:
            raise unknown_group() from None
    return ChangedKey(message="Changed.", data=view(record))


def _position(record: KeyRecord) -> str:
    return f"{record.created_at}-{record.id}"


PRIVATE = [
    list_keys,
    create_key,
    get_key,
    change_key,
    change_notes,
    move_key,
    toggle_key,
    delete_key,
]
