"""Versions of the configuration: what was changed when and by whom, and the way back."""

from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import get, post

from admin import answers
from admin.answers import Answer, documented
from admin.context import AdminRequest, recorded, services_of
from admin.endpoints.pages import AfterNumber, Limit, Number
from admin.ports import Change, Version, VersionSummary
from admin.services.failures import NoSuchVersion


class ChangeView(msgspec.Struct, frozen=True):
    """One difference; `before` is null for what was added, `after` for what was removed."""

    kind: str
    name: str
    before: Any
    after: Any


class SummaryView(msgspec.Struct, frozen=True):
    """A version; `created_at` in milliseconds since 1970."""

    number: int
    created_at: int
    actor: str
    summary: str


class VersionView(msgspec.Struct, frozen=True):
    """A version, the changes that led to it, and the whole configuration after them."""

    number: int
    created_at: int
    actor: str
    summary: str
    changes: list[ChangeView]
    document: dict[str, Any]


class VersionList(Answer, frozen=True, kw_only=True):
    """Newest first; `next`, where there is more, is what to give as `after`."""

    versions: list[SummaryView]
    next: int | None


class OneVersion(Answer, frozen=True, kw_only=True):
    version: VersionView


class Difference(Answer, frozen=True, kw_only=True):
    """What has to change in version `against` to come to version `number`."""

    number: int
    against: int
    changes: list[ChangeView]


class RolledBack(Answer, frozen=True, kw_only=True):
    """`version` is new, and has the configuration of the old one."""

    version: int
    message: str


_ERRORS = documented(401, 403, 429, 503)


@get("/api/versions", responses=documented(400) | _ERRORS)
async def list_versions(request: AdminRequest, after: AfterNumber = None, limit: Limit = 100) -> VersionList:
    """Lists versions, newest first."""
    found = await services_of(request).versions.list(after, limit + 1)
    shown = [_summary(version) for version in found[:limit]]
    return VersionList(versions=shown, next=shown[-1].number if len(found) > limit else None)


@get("/api/versions/{number:int}", responses=documented(400, 404) | _ERRORS)
async def get_version(request: AdminRequest, number: Number) -> OneVersion:
    """Shows a version."""
    version = await services_of(request).versions.get(number)
    if version is None:
        raise answers.no_version()
    return OneVersion(version=_whole(version))


@get("/api/versions/{number:int}/diff", responses=documented(400, 404) | _ERRORS)
async def diff_versions(request: AdminRequest, number: Number, against: Number) -> Difference:
    """Shows what has changed from version `against` to version `number`."""
    try:
        changes = await services_of(request).versions.diff(against, number)
    except NoSuchVersion:
        raise answers.no_version() from None
    return Difference(number=number, against=against, changes=_changes(changes))


@post("/api/versions/{number:int}/roll-back", status_code=200, responses=documented(400, 404) | _ERRORS)
async def roll_back(request: AdminRequest, number: Number) -> RolledBack:
    """Makes a new version that has the configuration of an old one."""
    async with recorded(request, "version.roll-back", str(number)) as caller:
        version = await services_of(request).versions.roll_back(number, caller.actor)
    return RolledBack(version=version, message=f"Rolled back to version {number}.")


def _summary(version: VersionSummary) -> SummaryView:
    return SummaryView(version.number, version.created_at, version.actor, version.summary)


def _whole(version: Version) -> VersionView:
    return VersionView(
        version.number,
        version.created_at,
        version.actor,
        version.summary,
        _changes(version.changes),
        dict(version.document),
    )


def _changes(changes: Sequence[Change]) -> list[ChangeView]:
    return [ChangeView(change.kind, change.name, change.before, change.after) for change in changes]


PRIVATE = [list_versions, get_version, diff_versions, roll_back]
