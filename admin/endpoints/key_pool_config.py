"""The settings of the key pool, nested as reference 001 spells them (`rules/key_pool_names.py`)."""

from collections.abc import Callable
from typing import Any

import msgspec
from litestar import get, post, put

from admin import answers
from admin.answers import Answer, documented
from admin.context import AdminRequest, key_services_of, recorded
from admin.request_bodies import JSON, schema_of, takes_one_of, value_of
from admin.rules import key_pool_names
from admin.rules.key_pool_names import NAMES
from proxy.config import KeyPool

BASE = "/admin/config"
EXAMPLE = {
    "algorithm": "max-remaining",
    "retry": {"enabled": True, "max": 3},
    "autoBan": {"enabled": True, "ban_402": True},
}


class PoolConfig(Answer, frozen=True, kw_only=True):
    """All settings, by section: `algorithm`, `retry`, `autoBan`, `performance`, `multiTier`, `timeWindow`, `balance`.

    `balance.queries` changes as a whole.
    """

    data: dict[str, Any]


class ChangedPoolConfig(PoolConfig, frozen=True, kw_only=True):
    message: str


def _schema() -> dict[str, Any]:
    types: dict[str, Any] = schema_of(KeyPool)["properties"]
    nested: dict[str, Any] = {}
    for one in NAMES:
        section = nested.setdefault(one.section, {"type": "object", "properties": {}})["properties"]
        section[one.name] = {name: value for name, value in types[one.field].items() if name != "default"}
    top = nested.pop("")["properties"]
    return {"type": "object", "properties": top | nested, "minProperties": 1}


_ERRORS = documented(401, 403, 429, 503)


@get(BASE, responses=_ERRORS)
async def show_config(request: AdminRequest) -> PoolConfig:
    """Shows how keys are chosen, banned and tried again."""
    return PoolConfig(data=key_pool_names.shown(await key_services_of(request).pool.current()))


@put(
    BASE,
    operation_class=takes_one_of({JSON: (_schema(), EXAMPLE)}),
    responses=documented(400, 408, 413, 415) | _ERRORS,
)
async def change_config(request: AdminRequest) -> ChangedPoolConfig:
    """Changes what is given of the settings; the rest stays as it is. `retry.maxRetries`, `ban402` and so on do too."""
    given = await value_of(request, key_pool_names.changes)
    if not given:
        raise answers.bad_request("the body is empty, expected the settings to change")
    return await _update(request, "config.change", lambda pool: msgspec.structs.replace(pool, **given), sorted(given))


@post(BASE + "/reset", status_code=200, responses=_ERRORS)
async def reset_config(request: AdminRequest) -> ChangedPoolConfig:
    """Makes all settings what they are by default. Pool groups stay."""
    return await _update(request, "config.reset", lambda pool: KeyPool(groups=pool.groups), [])


async def _update(
    request: AdminRequest, action: str, change: Callable[[KeyPool], KeyPool], fields: list[str]
) -> ChangedPoolConfig:
    async with recorded(request, action, "key_pool", {"fields": fields} if fields else None) as caller:
        pool = await key_services_of(request).pool.update(change=change, actor=caller.actor)
    return ChangedPoolConfig(message="Changed.", data=key_pool_names.shown(pool))


PRIVATE = [show_config, change_config, reset_config]
