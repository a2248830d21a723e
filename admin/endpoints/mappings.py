"""Routes by the name and in the shape that reference 003 gives them: mappings of a prefix to a target.

What a route can do beyond its target are further fields of the same names as in the YAML file; who does not know them
need not send them, and a change leaves them as they are.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from litestar import delete, get, post, put
from litestar.openapi.spec import OpenAPIType, Parameter, Schema
from litestar.params import Parameter as QueryParameter

from admin import answers
from admin.answers import Answer, documented
from admin.context import AdminRequest, recorded, services_of
from admin.endpoints.pages import Text, plain
from admin.ports import StoredRoute
from admin.request_bodies import Operation, body_of, fields_of, takes, takes_some_of
from admin.rules.prefix_paths import prefix_in
from proxy.config import Route, leads_to
from proxy.sources import values

BASE = "/api/mappings"
PREFIX_CHARACTERS_MAX = 512
BATCH_MAX = 10_000
RECORDED_MAX = 50
"""Prefixes of a batch that the log of actions names; the version that it makes has them all."""
EVERYTHING = 1_000_000
"""Without a limit, a list has all that there is, as the reference's has."""

Prefix = Annotated[str, msgspec.Meta(min_length=1, max_length=PREFIX_CHARACTERS_MAX)]


class NewMapping(Route, frozen=True, kw_only=True):
    """A prefix, its target, and the options of a route."""

    prefix: Prefix


class Prefixes(msgspec.Struct, frozen=True):
    """The mappings to delete."""

    prefixes: Annotated[list[Prefix], msgspec.Meta(min_length=1, max_length=BATCH_MAX)]


class Mappings(Answer, frozen=True, kw_only=True):
    """Targets by prefix, and the options that differ from the defaults. An upstream is a target `upstream NAME`.

    `version` is that of the configuration; `next`, where there is more, is what to give as `after`.
    """

    count: int
    mappings: dict[str, str]
    options: dict[str, dict[str, Any]]
    version: int
    next: str | None


class Mapping(Answer, frozen=True, kw_only=True):
    """One mapping with all its options; times in milliseconds since 1970."""

    prefix: str
    target: str
    options: dict[str, Any]
    created_at: int
    updated_at: int


class Changed(Answer, frozen=True, kw_only=True):
    """A mapping has been changed; `version` is the new one of the configuration."""

    prefix: str
    message: str
    version: int


class Deleted(Answer, frozen=True, kw_only=True):
    """Which mappings have been deleted, and which were not there."""

    deleted: list[str]
    absent: list[str]


_DEFAULTS = {field.name: field.default for field in msgspec.structs.fields(Route) if field.name != "target"}
_ERRORS = documented(401, 403, 429, 503)


async def root_if_named(request: AdminRequest) -> Mapping | None:
    """Shows the mapping of `/`: its path, `%2F` behind the list's, is decoded and lost before routing."""
    return await _mapping(request) if _prefix_in_path(request) else None


@get(BASE, before_request=root_if_named, responses=documented(400) | _ERRORS)
async def list_mappings(
    request: AdminRequest,
    q: Text = "",
    after: Text = "",
    limit: Annotated[
        int | None, QueryParameter(ge=1, le=500, description="How many to return at most; all without.")
    ] = None,
) -> Mappings:
    """Lists mappings by prefix: all, or those with `q` in prefix or target."""
    services = services_of(request)
    wanted = limit or EVERYTHING
    found = await services.routes.search(plain("q", q), plain("after", after), wanted + 1)
    shown = found[:wanted]
    return Mappings(
        count=len(shown),
        mappings={stored.prefix: leads_to(stored.route) for stored in shown},
        options={stored.prefix: options for stored in shown if (options := notable(stored.route))},
        version=await services.versions.newest(),
        next=shown[-1].prefix if len(found) > wanted else None,
    )


@post(
    BASE,
    operation_class=takes(NewMapping, {"prefix": "/newapi", "target": "https://api.example.com"}),
    responses=documented(400, 408, 413, 415) | _ERRORS,
)
async def create_mapping(request: AdminRequest) -> Changed:
    """Adds a mapping; 400 where there is one of this prefix."""
    given = msgspec.structs.asdict(await body_of(request, NewMapping))
    prefix = _prefix("prefix", given.pop("prefix"))
    async with recorded(request, "mapping.create", prefix) as caller:
        version = await services_of(request).routes.create(prefix, Route(**given), caller.actor)
    return Changed(prefix=prefix, message="Added.", version=version)


@post(
    f"{BASE}/batch-delete",
    status_code=200,
    operation_class=takes(Prefixes, {"prefixes": ["/newapi"]}),
    responses=documented(400, 408, 413, 415) | _ERRORS,
)
async def delete_mappings(request: AdminRequest) -> Deleted:
    """Deletes mappings; those that are not there are told, and are no error."""
    body = await body_of(request, Prefixes)
    prefixes = list(dict.fromkeys(_prefix("prefixes", prefix) for prefix in body.prefixes))
    async with recorded(
        request, "mapping.batch-delete", f"{len(prefixes)} mappings", {"prefixes": prefixes[:RECORDED_MAX]}
    ) as caller:
        deleted = list(await services_of(request).routes.delete_many(prefixes, caller.actor))
    return Deleted(deleted=deleted, absent=[prefix for prefix in prefixes if prefix not in set(deleted)])


ONE = BASE + "/{prefix:path}"


@dataclass
class NamesPrefix(Operation):
    """The description of an endpoint whose path ends with a prefix, which Litestar takes for a URI."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for parameter in self.parameters or []:
            if isinstance(parameter, Parameter) and parameter.name == "prefix":
                parameter.schema = Schema(type=OpenAPIType.STRING, pattern="[^/]", max_length=PREFIX_CHARACTERS_MAX)
                parameter.description = "The prefix, with or without its first slash; `%2F` is the one for everything."


@get(ONE, operation_class=NamesPrefix, responses=documented(404) | _ERRORS)
async def get_mapping(request: AdminRequest) -> Mapping:
    """Shows a mapping."""
    return await _mapping(request)


@put(
    ONE,
    operation_class=takes_some_of(Route, {"target": "https://newapi.example.com"}, NamesPrefix),
    responses=documented(400, 404, 408, 413, 415) | _ERRORS,
)
async def change_mapping(request: AdminRequest) -> Changed:
    """Changes the fields of a mapping that are given; the others stay as they are."""
    given = await fields_of(request, Route)
    if not given:
        raise answers.bad_request("the body is empty, expected the fields to change, such as target")
    prefix = _named(request)
    async with recorded(request, "mapping.change", prefix, {"fields": sorted(given)}) as caller:
        version = await services_of(request).routes.update(
            prefix, lambda route: msgspec.structs.replace(route, **given), caller.actor
        )
    return Changed(prefix=prefix, message="Changed.", version=version)


@delete(ONE, status_code=200, operation_class=NamesPrefix, responses=documented(400, 404) | _ERRORS)
async def delete_mapping(request: AdminRequest) -> Changed:
    """Deletes a mapping."""
    prefix = _named(request)
    async with recorded(request, "mapping.delete", prefix) as caller:
        version = await services_of(request).routes.delete(prefix, caller.actor)
    return Changed(prefix=prefix, message="Deleted.", version=version)


def options_of(route: Route) -> dict[str, Any]:
    """All of a route but its target, as JSON has it."""
    return {name: msgspec.to_builtins(getattr(route, name)) for name in _DEFAULTS}


def notable(route: Route) -> dict[str, Any]:
    """The options that differ from the defaults. Lists have thousands of routes, most of them without any."""
    return {
        name: msgspec.to_builtins(value)
        for name, default in _DEFAULTS.items()
        if (value := getattr(route, name)) != default
    }


def _prefix(name: str, text: str) -> str:
    try:
        return values.prefix(text)
    except ValueError as error:
        raise answers.bad_request(f"{name}: not a prefix, expected {error}") from None


def _named(request: AdminRequest) -> str:
    """The prefix that the path of a request names."""
    prefix = _prefix_in_path(request)
    if prefix is None:
        raise answers.no_mapping()
    return prefix


def _prefix_in_path(request: AdminRequest) -> str | None:
    return prefix_in(request.scope.get("raw_path") or request.scope["path"].encode(), BASE)


async def _mapping(request: AdminRequest) -> Mapping:
    stored = await _stored(request)
    return Mapping(
        prefix=stored.prefix,
        target=leads_to(stored.route),
        options=options_of(stored.route),
        created_at=stored.created_at,
        updated_at=stored.updated_at,
    )


async def _stored(request: AdminRequest) -> StoredRoute:
    stored = await services_of(request).routes.get(_named(request))
    if stored is None:
        raise answers.no_mapping()
    return stored


# A prefix may be spelled as the path of another endpoint, and that of `/` comes to the path of the list. Which prefix
# is meant is read from the path as it was sent.
_BATCH_DELETE = f"{BASE}/batch-delete"
_ODDLY_SPELLED = [
    get(_BATCH_DELETE, include_in_schema=False)(get_mapping.fn),
    put([_BATCH_DELETE, BASE], include_in_schema=False)(change_mapping.fn),
    delete([_BATCH_DELETE, BASE], status_code=200, include_in_schema=False)(delete_mapping.fn),
]

PRIVATE = [
    list_mappings,
    create_mapping,
    delete_mappings,
    get_mapping,
    change_mapping,
    delete_mapping,
    *_ODDLY_SPELLED,
]
