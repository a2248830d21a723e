"""JSON bodies to structs, strictly. Pure; every refusal is a BodyError that names the field and what was expected.

A refusal tells the type that was found, never the value: that may be a secret.
"""

import types
import typing
from collections.abc import Collection
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from proxy.sources import structs

AnyStruct = TypeVar("AnyStruct", bound=msgspec.Struct)

_JSON_TYPES = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
}


class BodyError(Exception):
    """A body that cannot be used, in one line."""


def read(struct: type[AnyStruct], body: bytes) -> AnyStruct:
    """Returns the struct that a body describes."""
    return _built(struct, fields(struct, body), "")


def fields(struct: type[msgspec.Struct], body: bytes) -> dict[str, Any]:
    """Returns those fields of a struct that a body gives."""
    return fields_in(struct, decoded(body), "")


def decoded(body: bytes) -> Any:
    """Returns what a body says as plain values."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error) if isinstance(error, msgspec.DecodeError) else "it cannot be decoded"
        raise BodyError(f"the body is not JSON: {reason}") from None


def mapping(given: Any, where: str) -> dict[str, Any]:
    """Returns what has to be an object; `where` it stands is empty for the whole body."""
    if not isinstance(given, dict):
        raise BodyError(f"{where or 'the body'}: found {_found(given)}, expected an object")
    return given


def unknown(where: str, name: str, known: Collection[str]) -> BodyError:
    """Returns the refusal of a name that is not known at a place, which ends with it."""
    return BodyError(f"{where.removesuffix(name)}{_shown(name)}: unknown field, {structs.nearest(name, known)}")


def value(type_: Any, given: Any, where: str) -> Any:
    """Returns what is given as a type that a struct's field may have."""
    if struct := _struct_in(type_):
        if given is None and struct is not type_:
            return None
        return _built(struct, fields_in(struct, given, where), f"{where}.")
    if typing.get_origin(type_) is dict and issubclass(of := typing.get_args(type_)[1], msgspec.Struct):
        return {name: value(of, item, f"{where}.{name}") for name, item in mapping(given, where).items()}
    try:
        return msgspec.convert(given, type_, strict=True)
    except msgspec.ValidationError:
        info = inspect.type_info(type_)
        if wrong := structs.wrong_item(type_, given):
            place, info = wrong
            given, where = given[place], f"{where}[{place}]"
        raise BodyError(f"{where}: found {_found(given)}, expected {_expectation(info)}") from None


def _built(struct: type[AnyStruct], given: dict[str, Any], prefix: str) -> AnyStruct:
    for field in msgspec.structs.fields(struct):
        if field.required and field.name not in given:
            raise BodyError(f"{prefix}{field.encode_name}: missing")
    return struct(**given)


def fields_in(struct: type[msgspec.Struct], given: Any, where: str) -> dict[str, Any]:
    """Returns those fields of a struct that an object gives; `where` it stands is empty for the whole body."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    prefix = f"{where}." if where else ""
    found = mapping(given, where)
    for name in found:
        if name not in fields:
            raise unknown(f"{prefix}{name}", name, fields)
    return {fields[name].name: value(fields[name].type, item, f"{prefix}{name}") for name, item in found.items()}


def _struct_in(type_: Any) -> type[msgspec.Struct] | None:
    """The struct that a type is, or is unless it is null."""
    for one in (type_, *(typing.get_args(type_) if isinstance(type_, types.UnionType) else ())):
        if isinstance(one, type) and issubclass(one, msgspec.Struct):
            return one
    return None


def _expectation(info: inspect.Type) -> str:
    match info:
        case inspect.ListType(min_length=int(low), max_length=int(high)):
            return f"a list of {low} to {high} texts"
        case inspect.StrType(min_length=int(low), max_length=int(high)):
            return f"text of {low} to {high} characters"
        case _:
            return structs.expectation(info)


def _found(value: Any) -> str:
    return "null" if value is None else _JSON_TYPES[type(value)]


def _shown(name: str) -> str:
    """A name that a client made up, in one line of sane length."""
    plain = "".join(char if char.isprintable() else "?" for char in name)
    return plain if len(plain) <= 40 else f"{plain[:37]}..."
