"""Many keys at once: taken in from a list, deleted, and given out again. Also the one way to see a key whole.

What shows secrets wants the admin token with that very request: whoever calls by `x-admin-key` has given it, a session
gives it in `x-admin-confirm`.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from litestar import Response, delete, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import QueryParameter

from admin import answers
from admin.answers import Answer, documented
from admin.context import AdminRequest, authentication_of, caller_of, key_services_of, recorded
from admin.endpoints.key_views import now_ms
from admin.endpoints.keys import BASE, ONE, OfStatus, unknown_group
from admin.endpoints.pages import KeyId, TextOrNone, plain_or_none
from admin.request_bodies import JSON, KEYS_BYTES_MAX, body_of, takes, takes_one_of, text_of
from admin.rules import key_lists
from admin.rules.key_lists import InvalidLine, InvalidList, NewCredential
from admin.rules.key_records import LineOutcome, LineResult, Shown, Status
from proxy.config import PoolGroup
from proxy.rules.tiers import unknown_groups

BATCH_MAX = 100_000
RECORDED_MAX = 50
"""Ids of a batch that the log of actions names."""
TEXT = "text/plain"
CSV = "text/csv"

GroupOfAll = Annotated[
    str | None, QueryParameter(name="poolGroup", max_length=64, description="Of keys that name none.")
]
_ENTRY: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "properties": {name: {"type": "string"} for name in key_lists.SHOWN},
            "required": ["key"],
            "additionalProperties": False,
        },
    ]
}
_BATCH = {
    "type": "object",
    "properties": {"keys": {"type": "array", "items": _ENTRY, "maxItems": BATCH_MAX}, "poolGroup": {"type": "string"}},
    "required": ["keys"],
    "additionalProperties": False,
}


class Ids(msgspec.Struct, frozen=True):
    """The keys to delete."""

    ids: Annotated[
        list[Annotated[str, msgspec.Meta(min_length=1, max_length=64)]],
        msgspec.Meta(min_length=1, max_length=BATCH_MAX),
    ]


class LineView(msgspec.Struct, frozen=True):
    """What became of a line (of JSON: an entry), counted from 1. `id` of the key; `error` says what is wrong."""

    line: int
    outcome: LineOutcome
    id: str | None
    error: str | None


class Imported(msgspec.Struct, frozen=True):
    total: int
    success: int
    duplicate: int
    invalid: int
    results: list[LineView]


class ImportedKeys(Answer, frozen=True, kw_only=True):
    message: str
    data: Imported


class Gone(msgspec.Struct, frozen=True):
    """Which keys have been deleted, and which were not there."""

    deleted: list[str]
    absent: list[str]


class GoneKeys(Answer, frozen=True, kw_only=True):
    message: str
    data: Gone


class Count(msgspec.Struct, frozen=True):
    count: int


class CountedKeys(Answer, frozen=True, kw_only=True):
    message: str
    data: Count


class Secret(msgspec.Struct, frozen=True):
    id: str
    key: str

    def __repr__(self) -> str:
        return f"Secret({self.id!r})"


class WholeKey(Answer, frozen=True, kw_only=True):
    data: Secret


_ERRORS = documented(401, 403, 429, 503)


@post(
    BASE + "/batch",
    status_code=200,
    request_max_body_size=KEYS_BYTES_MAX,
    operation_class=takes_one_of(
        {
            JSON: (_BATCH, {"keys": ["fk-xxx", {"key": "fk-yyy", "notes": "spare"}], "poolGroup": "freebies"}),
            TEXT: ({"type": "string"}, "fk-xxx\nfk-yyy\n"),
            CSV: ({"type": "string"}, "key,notes,poolGroup\nfk-xxx,spare,main\n"),
        }
    ),
    responses=documented(400, 408, 413, 415) | _ERRORS,
)
async def import_keys(request: AdminRequest, group: GroupOfAll = None) -> ImportedKeys:
    """Adds many keys, up to 100,000 at once; what cannot be used is told by line, and keeps no other from being added.

    JSON has a list of keys, or of objects with `key`, `notes`, `poolGroup` and `status`; text a key a line; CSV names
    its columns in the first line, one of them `key`.
    """
    text = await text_of(request)
    groups = (await key_services_of(request).pool.current()).groups
    # Reading 100,000 lines takes half a second, in which others are to get their turn.
    read = await asyncio.to_thread(_read, text, group, groups)
    if len(read) > BATCH_MAX:
        raise answers.bad_request(f"found {len(read)} keys, expected {BATCH_MAX} at most")
    new = [one for one in read if isinstance(one, NewCredential)]
    detail: dict[str, Any] = {"lines": len(read)}
    async with recorded(request, "key.import", f"{len(new)} keys", detail) as caller:
        results = await key_services_of(request).keys.create_many(keys=new, actor=caller.actor) if new else []
        imported = _imported(read, results)
        detail |= {"added": imported.success, "duplicate": imported.duplicate, "invalid": imported.invalid}
    return ImportedKeys(message=f"Added {imported.success} of {imported.total} keys.", data=imported)


@post(
    BASE + "/batch-delete",
    status_code=200,
    request_max_body_size=KEYS_BYTES_MAX,
    operation_class=takes(Ids, {"ids": ["key_1234567890"]}),
    responses=documented(400, 408, 413, 415) | _ERRORS,
)
async def delete_keys(request: AdminRequest) -> GoneKeys:
    """Deletes keys; those that are not there are told, and are no error."""
    ids = list(dict.fromkeys((await body_of(request, Ids)).ids))
    if any("\0" in one for one in ids):
        raise answers.bad_request("ids: found NUL, expected plain text")
    async with recorded(request, "key.batch-delete", f"{len(ids)} keys", {"ids": ids[:RECORDED_MAX]}) as caller:
        deleted = list(await key_services_of(request).keys.delete_many(ids=ids, actor=caller.actor))
    there = set(deleted)
    absent = [one for one in ids if one not in there]
    return GoneKeys(message=f"Deleted {len(deleted)} keys.", data=Gone(deleted, absent))


@delete(BASE + "/disabled", status_code=200, responses=_ERRORS)
async def delete_disabled_keys(request: AdminRequest) -> CountedKeys:
    """Deletes all keys that are disabled."""
    return await _delete_all_of(request, Status.DISABLED)


@delete(BASE + "/banned", status_code=200, responses=_ERRORS)
async def delete_banned_keys(request: AdminRequest) -> CountedKeys:
    """Deletes all keys that are banned."""
    return await _delete_all_of(request, Status.BANNED)


@get(
    BASE + "/export",
    media_type=TEXT,
    responses={200: ResponseSpec(str, description="A key a line.", media_type=TEXT)}
    | documented(400, 401, 403, 409, 429, 503),
)
async def export_keys(request: AdminRequest, status: OfStatus = Shown.ALL, group: TextOrNone = None) -> Response[str]:
    """Gives out keys whole, a line each: all, or those of a status or a pool group. A session has to confirm it."""
    shown = plain_or_none("group", group)
    await authentication_of(request).confirm(request, caller_of(request))
    detail: dict[str, Any] = {"group": shown}
    async with recorded(request, "key.export", status, detail):
        secrets = await key_services_of(request).keys.export(
            status=None if status is Shown.ALL else Status(status), group=shown
        )
        detail["keys"] = len(secrets)
    day = datetime.fromtimestamp(now_ms() / 1000, UTC).strftime("%Y-%m-%d")
    named = f'attachment; filename="keys_{status}_{day}.txt"'
    text = "".join(f"{secret}\n" for secret in secrets)
    return Response(text, media_type=TEXT, headers={"Content-Disposition": named})


@get(ONE + "/full", responses=documented(400, 404, 409) | _ERRORS)
async def reveal_key(request: AdminRequest, key_id: KeyId) -> WholeKey:
    """Shows a key whole. A session has to confirm it."""
    await authentication_of(request).confirm(request, caller_of(request))
    async with recorded(request, "key.reveal", key_id):
        secret = await key_services_of(request).keys.reveal(id=key_id)
    return WholeKey(data=Secret(key_id, secret))


def _read(text: str, group: str | None, groups: Mapping[str, PoolGroup]) -> list[key_lists.Read]:
    """The lines of a list. The group of those that name none is the query's, or what JSON has beside its keys."""
    if group is None and text.lstrip()[:1] == "{":
        group = _group_in(text)
    if group is not None and unknown_groups([group], groups):  # else each line would be told of
        raise unknown_group()
    read = key_lists.read(text, group)
    if read and isinstance(read[0], InvalidList):
        raise answers.bad_request(f"the body: {read[0].reason}")
    return read


class _Beside(msgspec.Struct):
    group: str | None = msgspec.field(name="poolGroup", default=None)


def _group_in(text: str) -> str | None:
    try:
        return msgspec.json.decode(text, type=_Beside).group
    except msgspec.ValidationError:
        raise answers.bad_request("poolGroup: expected text, or nothing") from None
    except (msgspec.DecodeError, RecursionError):
        raise answers.bad_request("the body is not JSON") from None


def _imported(read: Sequence[key_lists.Read], results: Sequence[LineResult]) -> Imported:
    """What became of each line, in their order."""
    done = {result.line: result for result in results}
    lines = [
        LineView(one.line, LineOutcome.INVALID, None, one.reason)
        if isinstance(one, InvalidLine)
        else LineView(one.line, done[one.line].outcome, done[one.line].id, done[one.line].problem)
        for one in read
    ]
    counts = {outcome: sum(line.outcome is outcome for line in lines) for outcome in LineOutcome}
    return Imported(
        len(lines), counts[LineOutcome.ADDED], counts[LineOutcome.DUPLICATE], counts[LineOutcome.INVALID], lines
    )


async def _delete_all_of(request: AdminRequest, status: Status) -> CountedKeys:
    detail: dict[str, Any] = {}
    async with recorded(request, "key.delete-all", status, detail) as caller:
        count = await key_services_of(request).keys.delete_all_of(status=status, actor=caller.actor)
        detail["keys"] = count
    return CountedKeys(message=f"Deleted {count} {status} keys.", data=Count(count))


PRIVATE = [
    import_keys,
    delete_keys,
    delete_disabled_keys,
    delete_banned_keys,
    export_keys,
    reveal_key,
]
