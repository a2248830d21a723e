"""The configuration of upstreams and their routes as one document, as reference 004 documents it."""

from collections.abc import Mapping
from typing import Any

import msgspec
from litestar import get, post, put

from admin.answers import Answer, documented
from admin.context import AdminRequest, recorded, services_of
from admin.request_bodies import JSON, body_of, schema_of, takes_one_of
from admin.rules.speedmimi_documents import BackendDocument, OptionsDocument, RoutingDocument

BASE = "/api/v1/config"
EXAMPLE = {
    "config": {
        "backends": {"default": [{"id": "backend1", "host": "backend1.example.com", "port": 8081, "weight": 100}]},
        "routing": {"default": {"path": "/", "upstream": "default", "load_balancer": "least_connections_weight"}},
    }
}


class NewConfig(msgspec.Struct, frozen=True):
    """What is to be in use."""

    config: dict[str, Any]


class BalancingConfig(Answer, frozen=True, kw_only=True):
    """What is in use: `server`, `ssl`, `backends`, `routing`, `upstreams` and `grpc`.

    `backends` and `routing` are as the reference has them, with further fields by the names of the YAML file;
    `upstreams` is what an upstream has beside its backends, where that is not as by default. The names in `routing` are
    the paths. `version` is that of the configuration.
    """

    version: int
    config: dict[str, Any]


class ChangedBalancing(Answer, frozen=True, kw_only=True):
    """`version` is the new one of the configuration, or that before where nothing differs."""

    message: str
    version: int


class ReloadedTls(Answer, frozen=True, kw_only=True):
    """`workers` is how many serve what the certificate's file holds now."""

    message: str
    workers: int


def _by_name(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": schema}


def _schema() -> dict[str, Any]:
    config = {
        "backends": _by_name({"type": "array", "items": schema_of(BackendDocument)}),
        "routing": _by_name(schema_of(RoutingDocument)),
        "upstreams": _by_name(schema_of(OptionsDocument)),
        **{name: {"type": "object", "description": "As it is in use."} for name in ("server", "ssl", "grpc")},
    }
    properties = {"config": {"type": "object", "properties": config, "minProperties": 1}}
    return {"type": "object", "properties": properties, "required": ["config"]}


_ERRORS = documented(401, 403, 429, 503)


@get(BASE, responses=_ERRORS)
async def show_balancing(request: AdminRequest) -> BalancingConfig:
    """Shows upstreams, the routes that lead to them, and the settings of the listener."""
    config = dict(await services_of(request).management.config())
    return BalancingConfig(version=config.pop("version"), config=config)


@put(
    BASE,
    operation_class=takes_one_of({JSON: (_schema(), EXAMPLE)}),
    responses=documented(400, 408, 413, 415) | _ERRORS,
)
async def change_balancing(request: AdminRequest) -> ChangedBalancing:
    """Takes over `backends` and `routing`, each whole if it is given, as one version of the configuration.

    What a document leaves out of a backend or a route is as by default where the reference has it, and stays as it is
    where it does not. Routes to a target are no part of this. `server`, `ssl` and `grpc` belong into the settings file:
    they may be given as they are.
    """
    document = (await body_of(request, NewConfig)).config
    sections = ", ".join(sorted(document))[:200]
    async with recorded(request, "balancing.change", sections) as caller:
        version = await services_of(request).management.update_config(document, caller.actor)
    return ChangedBalancing(message="Changed.", version=version)


@post(f"{BASE}/reload-ssl", status_code=200, responses=documented(400, 409) | _ERRORS)
async def reload_ssl(request: AdminRequest) -> ReloadedTls:
    """Has all workers load the listener's certificate and key again; connections that are open stay as they are."""
    async with recorded(request, "tls.reload", "tls") as caller:
        done = await services_of(request).management.reload_tls(caller.actor)
    return ReloadedTls(message=done["message"], workers=done["workers"])


PRIVATE = [show_balancing, change_balancing, reload_ssl]
