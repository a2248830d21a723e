"""A test of a key: which upstream is asked with it, and for what; and what the answer says of the key. Pure.

The call is a cheap one that every provider of a dialect has: the list of its models.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import quote, urlsplit

import msgspec

from proxy import dialects
from proxy.config import CredentialSource, Dialect, Route, Upstream, UpstreamTls
from proxy.rules import credential_fields

# A base that ends with the version of the API has it already.
_VERSIONED = re.compile(r"/v\d+[a-z0-9]*$")
_VERSIONS = {Dialect.GEMINI: "/v1beta"}
_EXTRA = {Dialect.ANTHROPIC: {"anthropic-version": "2023-06-01"}}
_PROVIDERS = {"anthropic": Dialect.ANTHROPIC, "gemini": Dialect.GEMINI, "openai": Dialect.OPENAI}
_USING = (CredentialSource.POOL, CredentialSource.AUTO)


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request. `url`, `fields` and `body` may hold the key, so they are never shown.

    `target` is whose address has to be one that is allowed.
    """

    url: str = field(repr=False)
    fields: Mapping[str, str] = field(repr=False)
    target: str
    tls: UpstreamTls | None
    method: str = "GET"
    body: bytes | None = field(default=None, repr=False)


class Finding(Enum):
    """What an answer says of the key that it was asked with. AGAIN: nothing yet; another attempt may tell."""

    GOOD = "good"
    BANNED = "banned"
    DISABLED = "disabled"
    NOTHING = "nothing"
    AGAIN = "again"


def to_backends(routes: Mapping[str, Route], upstreams: Mapping[str, Upstream]) -> dict[str, Route]:
    """Returns the routes, each of an upstream as one to a backend of it: the first that requests go to.

    Without such a backend there is no such route.
    """
    found: dict[str, Route] = {}
    for prefix, route in routes.items():
        if route.upstream is None:
            found[prefix] = route
            continue
        upstream = upstreams.get(route.upstream, Upstream())
        used = [one for one in upstream.backends if one.active and not one.draining]
        if used:
            first = min(used, key=lambda one: one.priority)
            target = f"{first.url}{route.base}"
            found[prefix] = msgspec.structs.replace(route, target=target, upstream=None, base="", tls=upstream.tls)
    return found


def route_for(routes: Mapping[str, Route], group: str, provider: str) -> Route | None:
    """Returns the route that a key of a group is tested by; None where no route may use it. Each has a target.

    One whose API is the provider's goes first, then by prefix.
    """
    using = [
        route
        for _, route in sorted(routes.items())
        if route.credential in _USING and (not route.pool_groups or group in route.pool_groups)
    ]
    wanted = _PROVIDERS.get(provider)
    return next((route for route in using if dialect_of(route) is wanted), using[0] if using else None)


def dialect_of(route: Route) -> Dialect:
    """Returns what the route says, or what its target's host tells."""
    if route.dialect is not None:
        return route.dialect
    return dialects.guess(urlsplit(route.target).hostname or "")


def call(route: Route, secret: str) -> Call:
    """Returns what to ask a route's target for, with the key where the route wants it."""
    dialect = dialect_of(route)
    base = route.target.rstrip("/")
    version = "" if _VERSIONED.search(urlsplit(base).path) else _VERSIONS.get(dialect, "/v1")
    url = f"{base}{version}/models"
    place = route.credential_field or dialects.of(dialect).credential_field.decode()
    fields = {"accept": "application/json", **_EXTRA.get(dialect, {})}
    if place.startswith("?"):
        url += f"{place}={quote(secret, safe='')}"
    else:
        name, value = credential_fields.header(place.lower().encode(), secret)
        fields[name.decode()] = value.decode()
    tls = route.tls if base.startswith("https:") else None
    return Call(url=url, fields=fields, target=route.target, tls=tls)


def finding(status: int) -> Finding:
    """Judges as reference 001 does: 402 bans, 429 and 5xx pass, other 4xx disable.

    Not 404 and 405, which say that the upstream has no list of models; a redirection says nothing either.
    """
    if 200 <= status < 300:
        return Finding.GOOD
    if status == 402:
        return Finding.BANNED
    if may_pass(status):
        return Finding.AGAIN
    if status in (404, 405) or status < 400:
        return Finding.NOTHING
    return Finding.DISABLED


def may_pass(status: int) -> bool:
    """Whether the same call may be answered differently in a moment."""
    return status in (408, 425, 429) or status >= 500
