"""Plain values to the structs of `proxy/config.py`. Pure; every refusal is a ConfigError that says where, which key,
what was found and what was expected.

Types and bounds come from the contract's own annotations, so a new field is read without a line here. `CHECKS` is the
table of what a type cannot say.
"""

import difflib
import functools
import re
import types
import typing
from collections.abc import Callable, Collection
from enum import StrEnum
from pathlib import PurePath
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import inspect

from proxy.config import (
    AccessSettings,
    Admin,
    Backend,
    BalanceQuery,
    Config,
    ConfigError,
    Credentials,
    CredentialSource,
    Database,
    Estimates,
    Grpc,
    HealthCheck,
    KeyPool,
    ListenerTls,
    ModelPrice,
    PoolGroup,
    Prices,
    QuotaCleanup,
    Redis,
    Retention,
    Route,
    Server,
    Struct,
    Upstream,
    UpstreamTls,
)
from proxy.sources import values, yaml_document

AnyStruct = TypeVar("AnyStruct", bound=Struct)

TOKEN_KINDS = ("input", "output", "cache_read", "cache_write", "cache_write_1h")
BALANCE_POINTERS = ("used", "total", "remaining", "period_begin", "period_end")
CHECKS: dict[tuple[type[Struct], str], Callable[[Any], Any]] = {
    (Server, "host"): values.listen_address,
    (Server, "health_prefix"): values.health_prefix,
    (Server, "stats_path"): values.prefix,
    (Server, "trusted_proxies"): values.network,
    (Server, "real_ip_header"): values.field_name,
    (Admin, "host"): values.listen_address,
    (Admin, "trusted_proxies"): values.network,
    (Route, "target"): values.target,
    (Route, "upstream"): values.group_id,
    (Route, "base"): values.base,
    (Route, "via"): values.via,
    (Route, "credential_field"): values.credential_field,
    (Route, "pool_groups"): values.group_id,
    (Server, "tracing"): values.target,
    (UpstreamTls, "server_name"): values.host_name,
    (Backend, "url"): values.origin,
    (Backend, "id"): values.backend_id,
    (Backend, "name"): values.version,
    (HealthCheck, "path"): values.health_path,
    (Grpc, "host"): values.listen_address,
    (AccessSettings, "api_key"): values.secret,
    (Credentials, "api_key"): values.secret,
    (Credentials, "refresh_token"): values.secret,
    (Credentials, "token_url"): values.target,
    (BalanceQuery, "pool_groups"): values.group_id,
    (BalanceQuery, "url"): values.balance_url,
    (BalanceQuery, "headers"): values.balance_headers,
    **{(BalanceQuery, name): values.pointer for name in BALANCE_POINTERS},
    (Prices, "version"): values.version,
    **{(ModelPrice, name): values.price for name in TOKEN_KINDS},
}
FILES = (
    {(Config, "data_dir"), (Credentials, "auth_file")}
    | {(ListenerTls, name) for name in ("certificate", "key", "client_ca")}
    | {(UpstreamTls, name) for name in ("ca", "certificate", "key")}
    | {(Grpc, name) for name in ("certificate", "key")}
)
SECTIONS: dict[str, type[Struct]] = {
    "server": Server,
    "admin": Admin,
    "redis": Redis,
    "database": Database,
    "retention": Retention,
    "access": AccessSettings,
    "quota_cleanup": QuotaCleanup,
    "credentials": Credentials,
    "key_pool": KeyPool,
    "prices": Prices,
    "estimates": Estimates,
    "grpc": Grpc,
}
"""The sections whose fields other layers may set too."""
SECRETS: frozenset[tuple[type[Struct], str]] = frozenset(
    {(AccessSettings, "api_key"), (Credentials, "api_key"), (Credentials, "refresh_token"), (Admin, "token")}
)
"""Never shown, also where they are refused."""
NAMED: dict[tuple[type[Struct], str], tuple[type[Struct], str, Callable[[str], str]]] = {
    (KeyPool, "groups"): (PoolGroup, "group", values.group_id),
    (KeyPool, "balance_queries"): (BalanceQuery, "name", values.group_id),
    (Prices, "models"): (ModelPrice, "model", values.model_pattern),
}
"""Fields that are mappings from names to structs, what such a name is called and what it must look like."""
FROM_POOL = frozenset({CredentialSource.POOL, CredentialSource.AUTO})
MAX_CONNECTIONS = Route(target="http://a").max_connections
fields_of = functools.cache(msgspec.structs.fields)
"""A struct's fields. To evaluate the annotations anew for each of 10,000 routes takes a second."""
# A password in a URL is refused, and must not be printed while doing so.
_USERINFO = re.compile(r"(?<=//)[^/]*(?=@)")


class _Secret:
    """Stands in a message for what may not be in it."""


_SECRET = _Secret()


class Given(NamedTuple):
    """A value and its place: `where` is a file and line, `environment` or `command line`; `key` is as spelled there."""

    value: Any
    where: str
    key: str

    def refuse(self, expected: str) -> ConfigError:
        return ConfigError(self.where, self.key, f"found {shown(self.value)}, expected {expected}")


class Reader:
    """Reads one YAML document. Relative file names in it are relative to `folder`, as its author sees them."""

    def __init__(self, name: str, document: yaml_document.Document, folder: PurePath) -> None:
        self.name = name
        self.document = document
        self.folder = folder

    def config(self) -> dict[str, Any]:
        """The fields of Config that the document gives; a section as a dict, for other layers to be laid over it."""
        if self.document.value is None:
            return {}
        fields = self._mapping(self.document.value, ())
        self._refuse_unknown(fields, Config.__struct_fields__, ())
        read: dict[str, Any] = {}
        for name, section in SECTIONS.items():
            if name in fields:
                read[name] = self._fields(section, fields[name], (name,))
        if "data_dir" in fields:
            read["data_dir"] = self._field(Config, "data_dir", str, fields["data_dir"], ("data_dir",))
        if fields.get("tls") is not None:
            read["tls"] = self._struct(ListenerTls, fields["tls"], ("tls",))
        if "routes" in fields:
            read["routes"] = self._routes(self._mapping(fields["routes"], ("routes",)))
        if "upstreams" in fields:
            read["upstreams"] = self._upstreams(fields["upstreams"])
        return read

    def where(self, path: yaml_document.Path) -> str:
        """`file:line` of a key path, or of the nearest key above it that has a line."""
        while path and path not in self.document.lines:
            path = path[:-1]
        return f"{self.name}:{self.document.lines[path]}" if path else self.name

    def _routes(self, routes: dict[str, Any]) -> dict[str, Route]:
        read: dict[str, Route] = {}
        spelled: dict[str, str] = {}
        for key, value in routes.items():
            path = ("routes", key)
            try:
                prefix = values.prefix(key)
            except ValueError as error:
                raise ConfigError(self.where(path), ".".join(path), f"not a prefix, expected {error}") from None
            if prefix in read:
                raise ConfigError(self.where(path), ".".join(path), f"the same prefix as {spelled[prefix]}")
            spelled[prefix] = key
            read[prefix] = self._struct(Route, {"target": value} if isinstance(value, str) else value, path)
            self._refuse_odd_target(read[prefix], path)
            self._refuse_odd_credential(read[prefix], path)
        return read

    def _upstreams(self, value: Any) -> dict[str, Upstream]:
        path = ("upstreams",)
        read = self._named(Upstream, "name", values.group_id, value, path)
        return {name: self._upstream(name, upstream, (*path, name)) for name, upstream in read.items()}

    def _upstream(self, name: str, upstream: Upstream, path: yaml_document.Path) -> Upstream:
        """The upstream with an id for each backend. Two of one id or one URL could not be told apart."""
        backends: list[Backend] = []
        for place, backend in enumerate(upstream.backends):
            given = backend if backend.id else msgspec.structs.replace(backend, id=backend_id(name, backend.url))
            here = (*path, "backends", str(place))
            for field in ("id", "url"):
                if any(getattr(given, field) == getattr(other, field) for other in backends):
                    problem = f"{getattr(given, field)} is there twice, expected backends of different {field}s"
                    raise ConfigError(self.where(here), ".".join((*here, field)), problem)
            backends.append(given)
        if upstream.tls != UpstreamTls() and backends and not any(one.url.startswith("https://") for one in backends):
            here = (*path, "tls")
            raise ConfigError(self.where(here), ".".join(here), "no backend is an https URL, expected no tls")
        return msgspec.structs.replace(upstream, backends=tuple(backends))

    def _refuse_odd_target(self, route: Route, path: yaml_document.Path) -> None:
        """A route leads to one place, and what it says of that has to be of that kind."""
        if route.upstream is None:
            if not route.target:
                raise ConfigError(self.where(path), ".".join((*path, "target")), "missing, and there is no upstream")
            odd = {"base": route.base != "", "balancer": route.balancer is not None}
            odd["protocols"] = route.protocols is not None
            beside = "without upstream"
        else:
            odd = {"target": route.target != "", "max_connections": route.max_connections != MAX_CONNECTIONS}
            odd["tls"] = route.tls != UpstreamTls()
            beside = f"with upstream: {route.upstream}"
        for name, is_there in odd.items():
            if is_there:
                here = (*path, name)
                raise ConfigError(self.where(here), ".".join(here), f"not {beside}")

    def _refuse_odd_credential(self, route: Route, path: yaml_document.Path) -> None:
        """What a route says of credentials and would not do."""
        if route.pool_groups and route.credential not in FROM_POOL:
            self._refuse_beside(route, "pool_groups", "credential: pool or auto", path)
        if route.credential_field is not None and route.credential is CredentialSource.CLIENT:
            self._refuse_beside(route, "credential_field", "a credential other than the client's own", path)

    def _refuse_beside(self, route: Route, name: str, expected: str, path: yaml_document.Path) -> None:
        here = (*path, name)
        problem = f"not with credential: {route.credential.value}, expected {expected}"
        raise ConfigError(self.where(here), ".".join(here), problem)

    def _named(
        self,
        struct: type[AnyStruct],
        word: str,
        check: Callable[[str], str],
        value: Any,
        path: yaml_document.Path,
    ) -> dict[str, AnyStruct]:
        read: dict[str, AnyStruct] = {}
        for key, item in self._mapping(value, path).items():
            here = (*path, key)
            try:
                check(key)
            except ValueError as error:
                raise ConfigError(self.where(here), ".".join(here), f"not a {word}, expected {error}") from None
            read[key] = one = self._struct(struct, item, here)
            if isinstance(one, BalanceQuery):
                self._refuse_odd_query(one, here)
        return read

    def _refuse_odd_query(self, query: BalanceQuery, path: yaml_document.Path) -> None:
        """A preset says all that is asked; without one, a URL is needed and a figure in the answer."""
        alone = BalanceQuery(preset=query.preset, providers=query.providers, pool_groups=query.pool_groups)
        if query.preset is not None and query != alone:
            problem = "a preset says what is asked, expected only providers and pool_groups beside it"
        elif query.preset is None and query.url is None:
            problem = "found neither preset nor url, expected one of them"
        elif query.preset is None and query.used is None and query.remaining is None:
            problem = "found neither used nor remaining, expected one of them"
        else:
            return
        raise ConfigError(self.where(path), ".".join(path), problem)

    def _struct(self, struct: type[AnyStruct], value: Any, path: yaml_document.Path) -> AnyStruct:
        fields = self._fields(struct, value, path)
        for field in fields_of(struct):
            if field.required and field.name not in fields:
                raise ConfigError(self.where(path), ".".join((*path, field.name)), "missing")
        return struct(**fields)

    def _fields(self, struct: type[Struct], value: Any, path: yaml_document.Path) -> dict[str, Any]:
        mapping = self._mapping(value, path)
        known = {field.name: field.type for field in fields_of(struct)}
        self._refuse_unknown(mapping, known, path)
        return {name: self._field(struct, name, known[name], item, (*path, name)) for name, item in mapping.items()}

    def _field(self, struct: type[Struct], name: str, type_: Any, value: Any, path: yaml_document.Path) -> Any:
        if (struct, name) == (Upstream, "backends"):
            return self._backends(value, path)
        if inner := _struct_in(type_):
            return None if value is None and inner is not type_ else self._struct(inner, value, path)
        if (struct, name) in NAMED:
            return self._named(*NAMED[struct, name], value, path)
        given = _hidden(struct, name, Given(value, self.where(path), ".".join(path)))
        if isinstance(type_, type) and issubclass(type_, StrEnum) and type(value) in (int, float):
            value = str(value)  # `http: 2` and `min_version: 1.3` mean the text
        read = checked(struct, name, convert(type_, value, given), given)
        return str(self.folder / read) if read is not None and (struct, name) in FILES else read

    def _backends(self, value: Any, path: yaml_document.Path) -> tuple[Backend, ...]:
        if not isinstance(value, list):
            raise Given(value, self.where(path), ".".join(path)).refuse("a list of backends")
        items = [{"url": item} if isinstance(item, str) else item for item in value]
        return tuple(self._struct(Backend, item, (*path, str(place))) for place, item in enumerate(items))

    def _mapping(self, value: Any, path: yaml_document.Path) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        expected = "a URL or a mapping" if path[:1] == ("routes",) and len(path) == 2 else "a mapping of keys to values"
        raise Given(value, self.where(path), ".".join(path)).refuse(expected)

    def _refuse_unknown(self, mapping: dict[str, Any], known: Collection[str], path: yaml_document.Path) -> None:
        for key in mapping:
            if key not in known:
                raise ConfigError(
                    self.where((*path, key)), ".".join((*path, key)), f"unknown key, {nearest(key, known)}"
                )


def _struct_in(type_: Any) -> type[Struct] | None:
    """The struct that a field is, or is unless it is null."""
    for one in (type_, *(typing.get_args(type_) if typing.get_origin(type_) is types.UnionType else ())):
        if isinstance(one, type) and issubclass(one, Struct):
            return one
    return None


def backend_id(upstream: str, url: str) -> str:
    """The id of a backend that has been given none: `{upstream}-{host}-{port}`, as reference 004 has it."""
    target = urlsplit(url)
    port = target.port or (443 if target.scheme == "https" else 80)
    return f"{upstream}-{target.hostname}-{port}"


def _hidden(struct: type[Struct], name: str, given: Given) -> Given:
    """What stands in messages about a field."""
    return given._replace(value=_SECRET) if (struct, name) in SECRETS else given


def from_text(struct: type[Struct], name: str, given: Given) -> Any:
    """One field from the text of a variable or an option.

    `null` is None where the field may be None; what stands between commas are the items of a list.
    """
    type_ = next(field.type for field in fields_of(struct) if field.name == name)
    text = given.value.strip()
    if isinstance(type_, type) and issubclass(type_, StrEnum):
        text = text.lower()
    value: Any = None if text == "null" and _may_be_none(type_) else text
    if typing.get_origin(type_) is tuple:
        value = [item.strip() for item in text.split(",")]
    shown_as = _hidden(struct, name, given)
    return checked(struct, name, convert(type_, value, shown_as, strict=value is None), shown_as)


def convert(type_: Any, value: Any, given: Given, *, strict: bool = True) -> Any:
    try:
        return msgspec.convert(value, type_, strict=strict)
    except msgspec.ValidationError:
        wrong = wrong_item(type_, value, strict=strict)
        if wrong is None:
            raise given.refuse(expectation(inspect.type_info(type_))) from None
        place, item = wrong
        named = given if isinstance(given.value, _Secret | str) else given._replace(value=value[place])
        raise named._replace(key=f"{given.key}[{place}]").refuse(expectation(item)) from None


def wrong_item(type_: Any, value: Any, *, strict: bool = True) -> tuple[int, inspect.Type] | None:
    """Returns where in a list the first item stands that is of no use, counted from 0, and what it should be.

    None where it is no list, or each of its items would do.
    """
    if typing.get_origin(type_) is typing.Annotated:
        type_ = typing.get_args(type_)[0]
    if typing.get_origin(type_) not in (list, tuple) or not isinstance(value, list):
        return None
    of = typing.get_args(type_)[0]
    for place, item in enumerate(value):
        try:
            msgspec.convert(item, of, strict=strict)
        except msgspec.ValidationError:
            return place, inspect.type_info(of)
    return None


def checked(struct: type[Struct], name: str, value: Any, given: Given) -> Any:
    """The value as its check normalises it; None and fields without a check pass."""
    check = values.file_name if (struct, name) in FILES else CHECKS.get((struct, name))
    if value is None or check is None:
        return value
    try:
        return tuple(map(check, value)) if isinstance(value, tuple) else check(value)
    except ValueError as error:
        raise given.refuse(str(error)) from None


def nearest(name: str, known: Collection[str]) -> str:
    """The end of a message about an unknown name."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"the nearest known one is {close[0]}" if close else f"expected one of {', '.join(known)}"


def expectation(info: inspect.Type) -> str:
    """What a type takes, in words."""
    match info:
        case inspect.UnionType(types=types):
            return " or ".join(
                expectation(one) for one in sorted(types, key=lambda one: isinstance(one, inspect.NoneType))
            )
        case inspect.IntType(ge=low, le=high):
            return f"an integer from {low} to {high}"
        case inspect.FloatType(gt=low, ge=None, le=high):
            return f"a number above {low:g} and up to {high:.0f}"
        case inspect.FloatType(ge=low, le=high):
            return f"a number from {low:g} to {high:.0f}"
        case inspect.EnumType(cls=cls):
            return f"one of {', '.join(cls)}"
        case inspect.LiteralType(values=known):
            return f"one of {', '.join(map(str, known))}"
        case inspect.VarTupleType(item_type=inspect.IntType(ge=low, le=high)):
            return f"a list of integers from {low} to {high}"
        case inspect.VarTupleType():
            return "a list of text"
        case inspect.BoolType():
            return "true or false"
        case inspect.NoneType():
            return "null"
        case inspect.DictType(value_type=inspect.StrType()):
            return "a mapping from text to text"
        case inspect.DictType():
            return "a mapping"
        case _:
            return "text"


def _may_be_none(type_: Any) -> bool:
    info = inspect.type_info(type_)
    return isinstance(info, inspect.UnionType) and info.includes_none


def shown(value: Any) -> str:
    """A value as YAML spells it, cut to a length that fits a line and without the password of a URL."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, _Secret):
        return "a secret that is not shown"
    text = repr(_USERINFO.sub("***", value) if isinstance(value, str) else value)
    return text if len(text) <= 80 else f"{text[:76]}...{text[-1]}"
